"""The position in a run: the count of updates, and the bias of running means at that count."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from gradtx.core.counts import increment
from gradtx.core.dtypes import Scalar, cast, real_dtype


class Step:
    """The position in a run: `count` is the number of updates so far, including this one, as an
    int32 scalar.

    biases: pairs (decay, 1 - decay^count), each a scalar computed once for the whole tree.
    """

    def __init__(self, count: jax.Array, biases: Sequence[tuple[Scalar, jax.Array]] = ()):
        self.count = count
        self._biases = biases

    @property
    def next(self) -> Step:
        """The step after this one."""
        return Step(increment(self.count))

    def bias(self, decay: Scalar, dtype: DTypeLike) -> jax.Array:
        """1 - decay^count, a scalar in `dtype`, which is floating and real: the sum of the weights
        in a running mean that started at zero, and so the factor by which it is too small."""
        for known, bias in self._biases:
            if known is decay:
                return cast(bias, dtype)
        return one_minus_power(decay, cast(self.count, dtype))

    def debias(self, moment: jax.Array, decay: Scalar) -> jax.Array:
        """moment / (1 - decay^count), in the shape and dtype of moment: the running mean without
        the bias of its start at zero."""
        bias = self.bias(decay, real_dtype(moment.dtype))
        return lax.div(moment, bias if bias.dtype == moment.dtype else cast(bias, moment.dtype))


def one_minus_power(decay: Scalar, time: jax.Array) -> jax.Array:
    """1 - decay^time, computed as -expm1(time * log(decay)): near time = 1 with decay = 0.999 the
    direct form keeps only five of float32's seven digits."""
    log_decay: Scalar
    if isinstance(decay, int | float):
        log_decay = math.log1p(decay - 1) if decay > 0 else _LOG_OF_ZERO
    else:
        log = jnp.log1p(jnp.where(decay > 0, decay, 1) - 1)
        log_decay = jnp.where(decay > 0, log, _LOG_OF_ZERO)
    return -jnp.expm1(time * log_decay)


# exp(-1e4) is 0 even in float64. An infinity would stop a run under `jax_debug_infs`.
_LOG_OF_ZERO = -1e4
