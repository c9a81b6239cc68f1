"""Shrinking the updates when a metric has stopped improving."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx import tree
from gradtx.core.counts import increment, start
from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import cast, real_dtype_of
from gradtx.core.kinds import Fraction, NonNegative, PositiveFraction
from gradtx.core.numerics import infinity
from gradtx.core.rule import Rule

__all__ = ["ReduceLROnPlateauState", "reduce_on_plateau"]


class ReduceLROnPlateauState(NamedTuple):
    """The factor of the updates, the best value, how many values (means of `accumulation_size`)
    in a row were no better, how many more are not counted, and the mean of `count` values so far.
    """

    scale: Any
    best_value: Any
    plateau_count: Any
    cooldown_count: Any
    count: Any
    avg_value: Any


@per_tree
def reduce_on_plateau(
    factor: PositiveFraction = 0.1,
    patience: NonNegative = 10,
    rtol: Fraction = 1e-4,
    atol: NonNegative = 0.0,
    cooldown: NonNegative = 0,
    accumulation_size: NonNegative = 1,
    min_scale: Fraction = 0.0,
) -> Any:
    """Shrink the updates when a metric, given as `value`, has stopped falling.

        better: value < best - (rtol |best| + atol)
        scale <- max(factor scale, min_scale)       after `patience` values in a row, none better
        u = scale g

    After that the next `cooldown` values are not counted. With an accumulation_size n > 1 it is the
    mean of every n values that is compared. A patience of 0 is one of 1.
    """

    def init(params: Any) -> ReduceLROnPlateauState:
        dtype = real_dtype_of(params)
        return ReduceLROnPlateauState(
            scale=jnp.ones((), dtype),
            best_value=infinity(dtype),
            plateau_count=start(),
            cooldown_count=start(),
            count=start(),
            avg_value=jnp.zeros((), dtype),
        )

    def update(updates: Any, state: ReduceLROnPlateauState, *, value: Any) -> Any:
        dtype = state.avg_value.dtype
        best = cast(state.best_value, dtype)
        count = increment(state.count)
        n = cast(count, dtype)
        mean = state.avg_value + (as_loss(value, dtype) - state.avg_value) / n
        due = n >= accumulation_size
        known = jnp.isfinite(best)
        old = lax.select(known, best, jnp.zeros_like(best))
        better = jnp.where(known, mean < old - (rtol * jnp.abs(old) + atol), mean < best)
        bad = jnp.where(better, 0, increment(state.plateau_count))
        cooling = state.cooldown_count > 0
        fires = ~cooling & ~better & (cast(bad, dtype) >= patience)
        shrunk = jnp.maximum(state.scale * factor, min_scale)
        scale = jnp.where(due & fires, shrunk, state.scale)
        rest = jnp.where(cooling, state.cooldown_count - 1, jnp.where(fires, _whole(cooldown), 0))
        new = ReduceLROnPlateauState(
            scale=scale,
            best_value=lax.select(due & better, mean, best),
            plateau_count=jnp.where(due, jnp.where(cooling | fires, 0, bad), state.plateau_count),
            cooldown_count=jnp.where(due, rest, state.cooldown_count),
            count=jnp.where(due, 0, count),
            avg_value=jnp.where(due, 0, mean),
        )
        return tree.scale(scale, updates), new

    return Rule(init, update)


def _whole(number: Any) -> Any:
    return jnp.ceil(jnp.asarray(number, jnp.float32)).astype(np.int32)


def as_loss(value: Any, dtype: Any) -> Any:
    """The extra argument `value` as a scalar in this dtype."""
    array = jnp.asarray(value)
    if array.shape != () or jnp.iscomplexobj(array):
        raise ValueError(f"value must be one real number, got {array.dtype}{list(array.shape)}")
    return cast(array, dtype)
