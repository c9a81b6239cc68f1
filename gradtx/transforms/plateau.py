"""Scaling the updates down when a metric has stopped improving."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike, DTypeLike

from gradtx import tree
from gradtx.core.counts import increment, start
from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import cast, real_dtype_of
from gradtx.core.hyperparameters import Fraction, NonNegative, PositiveFraction
from gradtx.core.numerics import infinity
from gradtx.core.rule import Rule
from gradtx.core.state import Adapted, Params, Updates

__all__ = ["ReduceLROnPlateauState", "reduce_on_plateau"]


class ReduceLROnPlateauState(NamedTuple):
    """Scalars: the factor of the updates; the best value; how many values in a row (means over
    `accumulation_size` steps) were no better; for how many more values the cooldown lasts; and the
    mean of the `count` values since the last comparison.
    """

    scale: Adapted
    best_value: Array
    plateau_count: Array
    cooldown_count: Array
    count: Array  # type: ignore[assignment]  # tuples have a method of this name
    avg_value: Array


@per_tree
def reduce_on_plateau(
    factor: PositiveFraction = 0.1,
    patience: NonNegative = 10,
    rtol: Fraction = 1e-4,
    atol: NonNegative = 0.0,
    cooldown: NonNegative = 0,
    accumulation_size: NonNegative = 1,
    min_scale: Fraction = 0.0,
) -> Rule:
    """Scale the updates down when a metric, passed as `value`, has stopped falling.

        better: value < best - (rtol |best| + atol)
        scale <- max(factor scale, min_scale)       after `patience` values in a row, none better
        u = scale g

    Put it last in a chain and pass the loss to update on every step: `tx.update(grads, state,
    params, value=loss)`. The loss of single batches is noisy: set an accumulation_size.

    Args:
        factor: the factor on the scale at each reduction
        patience: after how many values in a row without a better one the scale falls. 0 acts like 1
        rtol: how much lower than the best a value must be to count as better, relative to the best
        atol: how much lower it must be in addition, in absolute terms
        cooldown: how many values after a reduction are not counted
        accumulation_size: how many values are averaged; the means are compared, and patience and
            cooldown count means
        min_scale: the lowest scale

    State: six scalars, among them `scale`.

    Example:
        >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.reduce_on_plateau(factor=0.5, patience=2))
        >>> grads = jnp.array([1.0])
        >>> state = tx.init(grads)
        >>> for loss in (3.0, 2.0, 2.0, 2.0):
        ...     updates, state = tx.update(grads, state, value=loss)
        ...     print(updates)
        [-1.]
        [-1.]
        [-1.]
        [-0.5]

    See also: `piecewise_constant_schedule`, for reductions known beforehand.
    """

    def init(params: Params) -> ReduceLROnPlateauState:
        dtype = real_dtype_of(params)
        return ReduceLROnPlateauState(
            scale=jnp.ones((), dtype),
            best_value=infinity(dtype),
            plateau_count=start(),
            cooldown_count=start(),
            count=start(),
            avg_value=jnp.zeros((), dtype),
        )

    def update(
        updates: Updates, state: ReduceLROnPlateauState, *, value: ArrayLike
    ) -> tuple[Updates, ReduceLROnPlateauState]:
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


def _whole(number: float | Array) -> Array:
    """The number rounded up, as an int32."""
    return jnp.ceil(jnp.asarray(number, jnp.float32)).astype(np.int32)


def as_loss(value: ArrayLike, dtype: DTypeLike) -> Array:
    """The extra argument `value`, a real scalar, in this dtype."""
    array = jnp.asarray(value)
    if array.shape != () or jnp.iscomplexobj(array):
        raise ValueError(f"value must be one real number, got {array.dtype}{list(array.shape)}")
    return cast(array, dtype)
