"""Adafactor's second moment: of a matrix only its row and column means are kept."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.decorators import per_leaf
from gradtx.core.dtypes import cast, real_dtype, scalar_dtype
from gradtx.core.kinds import NonNegative, Real
from gradtx.core.numerics import abs_sq, real_full_like, running_mean, sqrt, zeros_like_result
from gradtx.core.rule import Rule
from gradtx.core.state import Count, Updates

__all__ = ["FactoredState", "scale_by_factored_rms"]


class FactoredState(NamedTuple):
    """The running means of the squares: of rows and columns (v_row, v_col), or of all elements (v).

    What an array does not use is one zero.
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
    decay_rate_fn: Any = None,
) -> Any:
    """Divide by the root mean square of past gradients, kept as its row and column means.

        R <- d * R + (1 - d) * mean(g^2 + epsilon, over the longest axis)
        C <- d * C + (1 - d) * mean(g^2 + epsilon, over the second longest axis)
        u  = g / sqrt(R * C / mean(R)),             d = 1 - t^-decay_rate

    Arrays without two axes of at least min_dim_size_to_factor, and all with factored=False, keep
    the mean V of every element and u = g / sqrt(V). step_offset is subtracted from t, which stays
    at least 1. decay_rate_fn(steps before this one - step_offset, decay_rate) gives another d.
    Shazeer & Stern, 2018, https://arxiv.org/abs/1804.04235
    """

    def precompute(step: Any) -> Any:
        done = cast(step.count - 1, scalar_dtype()) - jnp.asarray(step_offset, scalar_dtype())
        if decay_rate_fn is not None:
            return jnp.asarray(decay_rate_fn(done, decay_rate), scalar_dtype())
        log_time = jnp.log(jnp.maximum(done + 1, 1))
        return -jnp.expm1(-jnp.asarray(decay_rate, scalar_dtype()) * log_time)

    def init(param: Any, step: Any) -> FactoredState:
        axes = _factored_axes(param.shape, factored, min_dim_size_to_factor)
        if axes is None:
            return FactoredState(
                step.count, _unused(param), _unused(param), real_full_like(param, 0)
            )
        row, column = zeros_like_result(
            lambda x: tuple(jnp.mean(abs_sq(x), axis) for axis in axes), param
        )
        return FactoredState(step.count, row, column, _unused(param))

    # The parameter is asked for because a transposed gradient would fit the state.
    def update(grad: Any, state: FactoredState, param: Any, step: Any, precomputed: Any) -> Any:
        axes = _factored_axes(grad.shape, factored, min_dim_size_to_factor)
        squares = abs_sq(grad) + epsilon
        if axes is None:
            v = running_mean(state.v, squares, precomputed)
            return grad / _root(v), FactoredState(step.count, state.v_row, state.v_col, v)
        longest, second = axes
        row = running_mean(state.v_row, jnp.mean(squares, longest), precomputed)
        column = running_mean(state.v_col, jnp.mean(squares, second), precomputed)
        # Roots first: near 1e-30 the quotients and their derivatives would leave float32.
        over_mean = second - 1 if second > longest else second
        by_row = _root(row) / _root(jnp.mean(row, over_mean, keepdims=True))
        scaled = grad / jnp.expand_dims(by_row, longest) / jnp.expand_dims(_root(column), second)
        return scaled, FactoredState(step.count, row, column, state.v)

    return Rule(init, update, precompute)


def _factored_axes(shape: tuple[int, ...], factored: bool, least: int) -> tuple[int, int] | None:
    """The longest axis and the second longest, if both are long enough."""
    if not factored or len(shape) < 2:
        return None
    *_, second, longest = (int(axis) for axis in np.argsort(shape, kind="stable"))
    return (longest, second) if shape[second] >= max(least, 1) else None


def _unused(param: jax.Array) -> jax.Array:
    return jnp.zeros((1,), real_dtype(param.dtype))


def _root(x: jax.Array) -> jax.Array:
    """sqrt(x), and 1 at 0, where nothing has come yet and there is nothing to divide."""
    return sqrt(jnp.where(x > 0, x, 1))
