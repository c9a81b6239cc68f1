"""Adafactor's second moment: for a matrix only row and column means are stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core.decorators import per_leaf
from gradtx.core.dtypes import cast, real_dtype, scalar_dtype
from gradtx.core.hyperparameters import NonNegative, Real
from gradtx.core.numerics import abs_sq, real_full_like, running_mean, sqrt, zeros_like_result
from gradtx.core.rule import Rule
from gradtx.core.state import Count, Updates
from gradtx.core.step import Step

__all__ = ["FactoredState", "scale_by_factored_rms"]


class FactoredState(NamedTuple):
    """The running means of the squares.

    For a factored array, v_row has the parameter's shape without the longest axis, v_col without
    the second longest; for any other array, v is shaped like the parameter. Fields that an array
    does not use are zeros of shape (1,).
    """

    count: Count
    v_row: Updates
    v_col: Updates
    v: Updates


@per_leaf
def scale_by_factored_rms(
    factored: bool = True,
    decay_rate: NonNegative = 0.8,
    step_offset: Real = 0,
    min_dim_size_to_factor: int = 128,
    epsilon: NonNegative = 1e-30,
    decay_rate_fn: Callable[[Array, float | Array], Array] | None = None,
) -> Rule:
    """Divide by the root mean square of past gradients, stored as row and column means.

        R <- d * R + (1 - d) * mean(g^2 + epsilon, over the longest axis)
        C <- d * C + (1 - d) * mean(g^2 + epsilon, over the second longest axis)
        u  = g / sqrt(R * C / mean(R)),             d = 1 - t^-decay_rate

    This is Adafactor's second moment: for a matrix of m rows and n columns it keeps m + n numbers
    rather than m n. Arrays without two axes of at least min_dim_size_to_factor, and all arrays if
    factored=False, store the mean V of every element, and u = g / sqrt(V).

    Args:
        factored: store row and column means where that is possible; False stores every element.
        decay_rate: how d grows with the step t. 1 weighs all gradients so far equally, smaller
            forgets old ones sooner, and 0 remembers none.
        step_offset: a number subtracted from t; the difference is at least 1. Give the step at
            which a resumed run enters a new phase, such as fine-tuning, so that d starts from 0
            again.
        min_dim_size_to_factor: the least length of the second longest axis of an array that is
            factored. Larger keeps more arrays exact, at the cost of memory.
        epsilon: a small number added to the squares, which keeps u finite where gradients are 0.
        decay_rate_fn: a function that replaces d: it is called with t - 1 - step_offset and
            decay_rate.

    State: R and C, 4 (m + n) / (m n) bytes a parameter: 0.008 for a matrix of 1024 x 1024; 4 for
    arrays that are not factored.

    Example:
        >>> tx = gradtx.scale_by_factored_rms()
        >>> state = tx.init({"kernel": jnp.zeros((512, 256)), "bias": jnp.zeros(256)})
        >>> print(state.v_row["kernel"].shape, state.v_col["kernel"].shape, state.v["bias"].shape)
        (256,) (512,) (256,)

    See also: `adafactor`, `scale_by_rms`.

    References: Shazeer & Stern, 2018, https://arxiv.org/abs/1804.04235
    """

    def precompute(step: Step) -> Array:
        done = cast(step.count - 1, scalar_dtype()) - jnp.asarray(step_offset, scalar_dtype())
        if decay_rate_fn is not None:
            return jnp.asarray(decay_rate_fn(done, decay_rate), scalar_dtype())
        log_time = jnp.log(jnp.maximum(done + 1, 1))
        return -jnp.expm1(-jnp.asarray(decay_rate, scalar_dtype()) * log_time)

    def init(param: Array) -> FactoredState:
        axes = _factored_axes(param.shape, factored, min_dim_size_to_factor)
        if axes is None:
            return FactoredState(
                count=None, v_row=unused(param), v_col=unused(param), v=real_full_like(param, 0)
            )
        row, column = zeros_like_result(
            lambda x: tuple(jnp.mean(abs_sq(x), axis) for axis in axes), param
        )
        return FactoredState(count=None, v_row=row, v_col=column, v=unused(param))

    # param is requested so that its shape is checked: a transposed gradient would fit the state.
    def update(
        grad: Array, state: FactoredState, param: Array, precomputed: Array
    ) -> tuple[Array, FactoredState]:
        axes = _factored_axes(grad.shape, factored, min_dim_size_to_factor)
        squares = abs_sq(grad) + epsilon
        if axes is None:
            v = running_mean(state.v, squares, precomputed)
            return grad / root(v), state._replace(v=v)
        row, column = (
            running_mean(old, jnp.mean(squares, axis), precomputed)
            for old, axis in zip((state.v_row, state.v_col), axes, strict=True)
        )
        return over_root(grad, row, column, axes), state._replace(v_row=row, v_col=column)

    return Rule(init, update, precompute)


def _factored_axes(shape: tuple[int, ...], factored: bool, least: int) -> tuple[int, int] | None:
    """The longest and the second longest axis, or None unless both are long enough."""
    if not factored or len(shape) < 2:
        return None
    *_, second, longest = (int(axis) for axis in np.argsort(shape, kind="stable"))
    return (longest, second) if shape[second] >= max(least, 1) else None


def over_root(x: Array, row: Array, column: Array, axes: tuple[int, int]) -> Array:
    """x / sqrt(row * column / mean(row)): division by the root of a factored second moment.

    axes: the axis that row is the mean over, and the axis that column is.
    """
    first, second = axes
    # Take roots first: near 1e-30 the quotients and their derivatives would underflow float32; and
    # multiply by reciprocals, since the derivative of x / root, at x = 0, would overflow.
    over_mean = second - 1 if second > first else second
    mean = jnp.mean(row, over_mean, keepdims=True)
    # Squares that overflowed give 0, as in Adam, rather than inf / inf.
    by_row = jnp.where(jnp.isfinite(mean), root(mean) / root(row), 0)
    by_column = 1 / root(column)
    return x * jnp.expand_dims(by_row, first) * jnp.expand_dims(by_column, second)


def root(x: Array) -> Array:
    """sqrt(x), or 1 where x is 0: no gradient has come yet, so there is nothing to scale."""
    return sqrt(jnp.where(x > 0, x, 1))


def unused(param: Array) -> Array:
    """What a field holds for an array that does not use it."""
    return jnp.zeros((1,), real_dtype(param.dtype))
