"""How far a run is: the count of updates, and the bias of running means at that count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core.counts import increment
from gradtx.core.dtypes import cast, real_dtype


class Step:
    """How far the run is. `step.count` is the number of updates so far, this one included: an int32
    scalar.

    biases: pairs (decay, 1 - decay^count), each computed once for the tree.
    """

    def __init__(self, count: jax.Array, biases: Sequence[tuple[Any, jax.Array]] = ()):
        self.count = count
        self._biases = biases

    @property
    def next(self) -> Step:
        """The step after this one."""
        return Step(increment(self.count))

    def bias(self, decay: Any, dtype: Any) -> jax.Array:
        """1 - decay^count, a scalar in `dtype`: the factor by which a running mean that started at
        zero is too small."""
        for known, bias in self._biases:
            if known is decay:
                return cast(bias, dtype)
        return one_minus_power(decay, cast(self.count, dtype))

    def debias(self, moment: jax.Array, decay: Any) -> jax.Array:
        """moment / (1 - decay^count): a running mean that started at zero, without that bias."""
        bias = self.bias(decay, real_dtype(moment.dtype))
        return lax.div(moment, bias if bias.dtype == moment.dtype else cast(bias, moment.dtype))


def one_minus_power(decay: Any, time: jax.Array) -> jax.Array:
    """1 - decay^time, computed as -expm1(time * log(decay)): near time = 1 with decay = 0.999 the
    direct form loses five of float32's seven digits."""
    log_decay: Any
    if isinstance(decay, int | float):
        log_decay = math.log1p(decay - 1) if decay > 0 else _LOG_OF_ZERO
    else:
        log = jnp.log1p(jnp.where(decay > 0, decay, 1) - 1)
        log_decay = jnp.where(decay > 0, log, _LOG_OF_ZERO)
    return -jnp.expm1(time * log_decay)


# Its exponential is 0 in float64 too; an infinity would stop a run under `jax_debug_infs`.
_LOG_OF_ZERO = -1e4
