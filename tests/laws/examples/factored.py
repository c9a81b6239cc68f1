"""Second moments in little memory: Adafactor, SM3."""

from typing import Any

import optax

import gradtx

from .example import E, Example, linear


def slower(step: Any, decay_rate: Any) -> Any:
    """Another decay of the second moment."""
    return decay_rate * (step + 1) / (step + 2)


EXAMPLES: tuple[Example, ...] = (
    E(
        "scale_by_factored_rms",
        "default",
        gradtx.scale_by_factored_rms,
        needs_params=True,
        twin=optax.scale_by_factored_rms,
    ),
    E(
        "scale_by_factored_rms",
        "factored",
        lambda: gradtx.scale_by_factored_rms(min_dim_size_to_factor=2, epsilon=1e-3),
        needs_params=True,
        twin=lambda: optax.scale_by_factored_rms(min_dim_size_to_factor=2, epsilon=1e-3),
    ),
    E(
        "scale_by_factored_rms",
        "its own decay and offset",
        lambda: gradtx.scale_by_factored_rms(False, 0.7, -2, decay_rate_fn=slower),
        needs_params=True,
        written_out=False,
        twin=lambda: optax.scale_by_factored_rms(False, 0.7, -2, decay_rate_fn=slower),
    ),
    E(
        "adafactor",
        "default",
        lambda: gradtx.adafactor(0.1),
        needs_params=True,
        rates=(0.05, 0.01),
        twin=lambda: optax.adafactor(0.1),
        written_out=False,
    ),
    E(
        "adafactor",
        "factored momentum decay",
        lambda: gradtx.adafactor(
            linear(),
            2,
            clipping_threshold=0.5,
            momentum=0.9,
            weight_decay_rate=1e-2,
            eps=1e-3,
            weight_decay_mask="^w",
        ),
        needs_params=True,
        by_path=True,
        float32=True,
        written_out=False,
    ),
    E(
        "adafactor",
        "of parts",
        lambda: gradtx.adafactor(
            multiply_by_parameter_scale=False, clipping_threshold=None, factored=False
        ),
        needs_params=True,
        twin=lambda: optax.adafactor(
            multiply_by_parameter_scale=False, clipping_threshold=None, factored=False
        ),
        written_out=False,
    ),
    E("scale_by_sm3", "default", gradtx.scale_by_sm3),
    E("scale_by_sm3", "decaying", lambda: gradtx.scale_by_sm3(0.5, 0.9, 1e-3)),
    E("sm3", "default", lambda: gradtx.sm3(0.1), rates=(0.5, 0.5)),
)
