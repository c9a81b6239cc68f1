"""The ways to train with less memory that `benchmarks.memory` and `benchmarks.quality` compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike

import gradtx
from benchmarks.recipes import Optimizer
from gradtx.precision.formats import FormatName


@dataclass(frozen=True)
class Way:
    """An optimizer, as a function of the learning rate, and the dtype of the parameters.

    floor: the bytes per parameter that a step cannot avoid, touching each array once. program: the
    same of its compiled program, where that is more: a block's scale needs the whole block first,
    and so g, m and v are read twice.
    """

    build: Callable[[float], Optimizer]
    floor: float
    program: float | None = None
    dtype: DTypeLike = np.float32
    library: ModuleType = gradtx


def _stored(name: FormatName, floor: float, program: float | None = None) -> Way:
    return Way(lambda rate: gradtx.store(gradtx.adamw(rate), name), floor, program)


BF16 = jnp.bfloat16
# A moment in 8 bits is 1 + 4 / 256 bytes, with its block's scale; in 4 bits, 0.5 + 4 / 128.
WAYS: dict[str, Way] = {
    "float32 (Optax)": Way(optax.adamw, 28, library=optax),
    "float32": Way(gradtx.adamw, 28),
    "all bfloat16 (Optax)": Way(optax.adamw, 14, dtype=BF16, library=optax),
    "bfloat16 params, stochastic rounding": Way(
        lambda rate: gradtx.chain(gradtx.adamw(rate), gradtx.stochastic_rounding()), 22, dtype=BF16
    ),
    "bfloat16 params, Kahan": Way(
        lambda rate: gradtx.chain(gradtx.adamw(rate), gradtx.kahan()), 26, dtype=BF16
    ),
    "bfloat16 params, master weights": Way(
        lambda rate: gradtx.master_weights(gradtx.adamw(rate)), 28, dtype=BF16
    ),
    "state bfloat16": _stored("bfloat16", 20),
    "state bfloat16+8": _stored("bfloat16+8", 24),
    "state float8": _stored("float8", 16.06, 22.09),
    "state int8": _stored("int8", 16.06, 22.09),
    "state int4": _stored("int4", 14.13, 19.19),
    "bfloat16 params, stochastic rounding, state int8": Way(
        lambda rate: gradtx.store(
            gradtx.chain(gradtx.adamw(rate), gradtx.stochastic_rounding()), "int8"
        ),
        10.06,
        14.09,
        BF16,
    ),
}
