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
    """An optimizer, as a function of the learning rate, and the dtype of the parameters."""

    build: Callable[[float], Optimizer]
    dtype: DTypeLike = np.float32
    library: ModuleType = gradtx


def _stored(name: FormatName) -> Way:
    return Way(lambda rate: gradtx.store(gradtx.adamw(rate), name))


BF16 = jnp.bfloat16
WAYS: dict[str, Way] = {
    "float32 (Optax)": Way(optax.adamw, library=optax),
    "float32": Way(gradtx.adamw),
    "all bfloat16 (Optax)": Way(optax.adamw, BF16, optax),
    "bfloat16 params, stochastic rounding": Way(
        lambda rate: gradtx.chain(gradtx.adamw(rate), gradtx.stochastic_rounding()), BF16
    ),
    "bfloat16 params, Kahan": Way(
        lambda rate: gradtx.chain(gradtx.adamw(rate), gradtx.kahan()), BF16
    ),
    "bfloat16 params, master weights": Way(
        lambda rate: gradtx.master_weights(gradtx.adamw(rate)), BF16
    ),
    "state bfloat16": _stored("bfloat16"),
    "state bfloat16+8": _stored("bfloat16+8"),
    "state float8": _stored("float8"),
    "state int8": _stored("int8"),
    "state int4": _stored("int4"),
    "bfloat16 params, stochastic rounding, state int8": Way(
        lambda rate: gradtx.chain(
            gradtx.store(gradtx.adamw(rate), "int8"), gradtx.stochastic_rounding()
        ),
        BF16,
    ),
}
