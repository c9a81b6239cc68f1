"""Second moments kept in bfloat16, where a transformation has `nu_dtype`."""

from typing import Any

import gradtx

from .example import E, Example
from .learning_rate_free import OBJECTIVE

BF16 = "bfloat16"


def nu_in_bf16(name: str, make: Any, **about: Any) -> Example:
    """A transformation that keeps its second moment in bfloat16."""
    return E(name, "nu bf16", make, narrow=True, narrow_squares=True, written_out=False, **about)


EXAMPLES: tuple[Example, ...] = (
    nu_in_bf16("scale_by_adam", lambda: gradtx.scale_by_adam(nu_dtype=BF16)),
    nu_in_bf16("adam", lambda: gradtx.adam(0.1, nu_dtype=BF16)),
    nu_in_bf16("nadam", lambda: gradtx.nadam(0.1, nu_dtype=BF16)),
    E(
        "adamw",
        "both bf16",
        lambda: gradtx.adamw(0.1, mu_dtype=BF16, nu_dtype=BF16),
        needs_params=True,
        narrow=True,
        written_out=False,
    ),
    nu_in_bf16("nadamw", lambda: gradtx.nadamw(0.1, nu_dtype=BF16), needs_params=True),
    nu_in_bf16("scale_by_amsgrad", lambda: gradtx.scale_by_amsgrad(nu_dtype=BF16)),
    nu_in_bf16("amsgrad", lambda: gradtx.amsgrad(0.1, max_of="raw", nu_dtype=BF16)),
    nu_in_bf16("scale_by_ademamix", lambda: gradtx.scale_by_ademamix(nu_dtype=BF16)),
    nu_in_bf16(
        "ademamix", lambda: gradtx.ademamix(0.1, weight_decay=0.1, nu_dtype=BF16), needs_params=True
    ),
    nu_in_bf16(
        "scale_by_adopt",
        lambda: gradtx.scale_by_adopt(nu_dtype=BF16, use_clipping=False),
        idle=("eps", "clip_value_fn"),
    ),
    nu_in_bf16(
        "adopt",
        lambda: gradtx.adopt(0.1, nu_dtype=BF16, use_clipping=False),
        idle=("eps", "clip_value_fn"),
    ),
    nu_in_bf16("optimistic_adam", lambda: gradtx.optimistic_adam(0.1, nu_dtype=BF16)),
    nu_in_bf16("optimistic_adam_v2", lambda: gradtx.optimistic_adam_v2(0.1, nu_dtype=BF16)),
    E(
        "scale_by_sophia",
        "nu bf16",
        lambda: gradtx.scale_by_sophia(gamma=0.5, update_interval=2, nu_dtype=BF16),
        needs_params=True,
        couples=True,
        real=True,
        narrow=True,
        idle=("eps",),
        extra=OBJECTIVE,
        written_out=False,
    ),
    E(
        "sophia",
        "nu bf16",
        lambda: gradtx.sophia(0.1, gamma=0.5, update_interval=2, nu_dtype=BF16),
        needs_params=True,
        couples=True,
        real=True,
        narrow=True,
        idle=("eps",),
        extra=OBJECTIVE,
        written_out=False,
    ),
    nu_in_bf16(
        "muon",
        lambda: gradtx.muon(0.1, ns_steps=2, nu_dtype=BF16),
        needs_params=True,
        idle=("eps",),
    ),
)
