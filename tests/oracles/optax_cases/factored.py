"""Adafactor. Optax cannot run SM3 on a scalar, see test_factored."""

from typing import Any

import jax.numpy as jnp

from .case import COSINE, MASK, Args, args, matrices


def power(step: Any, exponent: Any) -> Any:
    """The default decay, but in float64: Optax's own is computed in float32."""
    return 1 - (jnp.asarray(step, jnp.float64) + 1) ** -exponent


def bounded(step: Any, largest: Any) -> Any:
    return jnp.minimum(power(step, 0.8), largest)


IN_FLOAT32 = "Optax computes the decay of the second moment in float32"

TRANSFORMATIONS: dict[str, list[Args]] = {
    "scale_by_factored_rms": [
        args().but(rtol=1e-5, why=IN_FLOAT32),
        args(decay_rate_fn=power),
        args(False, 0.5, epsilon=1e-3, decay_rate_fn=power),
        args(True, 0.9, -5, 2, 1e-8, power),
        args(min_dim_size_to_factor=3, decay_rate_fn=power),
        args(True, 0.7, 0, 2, decay_rate_fn=bounded),
    ],
}

OPTIMIZERS: dict[str, list[Args]] = {
    name: [case.but(rtol=1e-5, why=IN_FLOAT32) for case in cases]
    for name, cases in {
        "adafactor": [
            args(0.1),
            args(),
            args(0.1, 2, 0.6, -3, False, 0.5),
            args(COSINE, 2, multiply_by_parameter_scale=False, clipping_threshold=None),
            args(0.1, 3, weight_decay_rate=0.01, weight_decay_mask=MASK, eps=1e-3),
            args(0.1, 2, momentum=0.9, weight_decay_rate=0.1, weight_decay_mask=matrices),
            args(0.1, momentum=0.5, dtype_momentum=jnp.float64, factored=False),
        ],
    }.items()
}
