"""Rounding of parameters and storage of state. Their own laws are in tests/precision."""

import gradtx

from .example import E, Example, linear

EXAMPLES: tuple[Example, ...] = (
    E(
        "store",
        "three bytes",
        lambda: gradtx.store(gradtx.adam(0.1), "bfloat16+8", min_size=0),
        narrow=True,
        coded=True,
        written_out=False,
    ),
    E(
        "store",
        "by field around a schedule",
        lambda: gradtx.store(gradtx.adamw(linear()), {"nu": "bfloat16+8"}, min_size=0),
        needs_params=True,
        narrow=True,
        coded=True,
        written_out=False,
    ),
    E("stochastic_rounding", "default", gradtx.stochastic_rounding, narrow_params=True),
    E("kahan", "default", gradtx.kahan, narrow_params=True),
    E(
        "master_weights",
        "adam",
        lambda: gradtx.master_weights(gradtx.adam(0.1)),
        narrow_params=True,
        written_out=False,
    ),
)
