"""Running moments of trees, computed in float32 or wider and kept in the dtype that they have."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.core.dtypes import Scalar, cast, compute_dtype, real_dtype
from gradtx.core.numerics import abs_sq, running_mean, times
from gradtx.core.step import one_minus_power
from gradtx.tree.types import Tree

__all__ = [
    "bias_correction",
    "update_infinity_moment",
    "update_moment",
    "update_moment_per_elem_norm",
]


def _updated(
    formula: Callable[[jax.Array, jax.Array], jax.Array], updates: Tree, moments: Tree
) -> Tree:
    """The formula on each gradient and moment; None where there is no gradient."""

    def leaf(g: ArrayLike | None, moment: ArrayLike) -> jax.Array | None:
        if g is None:
            return None
        g, moment = jnp.asarray(g), jnp.asarray(moment)
        dtype = compute_dtype(g.dtype, moment.dtype)
        # A real moment of a complex gradient stays real.
        wide = dtype if jnp.iscomplexobj(moment) else real_dtype(dtype)
        wide_g = dtype if jnp.iscomplexobj(g) else real_dtype(dtype)
        return cast(formula(cast(g, wide_g), cast(moment, wide)), moment.dtype)

    return jax.tree.map(leaf, updates, moments, is_leaf=lambda x: x is None)


def update_moment(updates: Tree, moments: Tree, decay: Scalar, order: float) -> Tree:
    """Update running means of a power of the gradients.

        m <- decay * m + (1 - decay) * g^order

    It is computed in float32 or wider and keeps the dtype of m. Where a gradient is None, so is the
    result.

    Args:
        updates: the gradients, a tree of arrays.
        moments: the means so far, a tree like them.
        decay: the decay, which reaches back about 1 / (1 - decay) steps.
        order: the power: 1 for a momentum, 2 for the mean of squares.

    Example:
        >>> gradtx.update_moment(jnp.array([2.0]), jnp.array([8.0]), decay=0.5, order=2)
        Array([6.], dtype=float32)

    See also: `bias_correction`, `update_moment_per_elem_norm`, for complex gradients.
    """
    return _updated(lambda g, m: running_mean(m, g**order, decay), updates, moments)


def update_infinity_moment(updates: Tree, moments: Tree, decay: Scalar, eps: Scalar) -> Tree:
    """Update decaying maxima of the magnitudes of gradients, as in Adamax.

        u <- max(|g| + eps, decay * u)

    It is computed in float32 or wider and keeps the dtype of u. Where a gradient is None, so is the
    result.

    Args:
        updates: the gradients, a tree of arrays.
        moments: the maxima so far, a tree like them.
        decay: what remains of a maximum after a step.
        eps: a small number added to magnitudes, so that a maximum is not 0.

    Example:
        >>> gradtx.update_infinity_moment(jnp.array([-2.0, 9.0]), jnp.array([8.0, 8.0]), 0.5, 0.0)
        Array([4., 9.], dtype=float32)

    See also: `update_moment`, `scale_by_adamax`.
    """
    return _updated(
        lambda g, m: jnp.maximum(jnp.abs(g) + cast(eps, m.dtype), times(decay, m)),
        updates,
        moments,
    )


def update_moment_per_elem_norm(updates: Tree, moments: Tree, decay: Scalar, order: float) -> Tree:
    """Update running means of a power of the magnitudes of gradients, which may be complex.

        m <- decay * m + (1 - decay) * |g|^order for complex g, with g^order for real g

    It is computed in float32 or wider and keeps the dtype of m. Where a gradient is None, so is the
    result.

    Args:
        updates: the gradients, a tree of arrays.
        moments: the means so far, a tree of real arrays of the same shapes.
        decay: the decay, which reaches back about 1 / (1 - decay) steps.
        order: the power: 2 for the mean of squares.

    Example:
        >>> grads, nu = jnp.array([3.0 + 4.0j]), jnp.array([0.0])
        >>> gradtx.update_moment_per_elem_norm(grads, nu, decay=0.5, order=2)
        Array([12.5], dtype=float32)

    See also: `update_moment`.
    """

    def power(g: jax.Array) -> jax.Array:
        if not jnp.iscomplexobj(g):
            return g**order
        return abs_sq(g) ** (order // 2 if order % 2 == 0 else order / 2)

    return _updated(lambda g, m: running_mean(m, power(g), decay), updates, moments)


def bias_correction(moment: Tree, decay: ArrayLike, count: ArrayLike) -> Tree:
    """Divide running means that started at zero by the total of their weights.

        m / (1 - decay^count)

    The divisor is correct to rounding even if decay^count is nearly 1. The result keeps the dtype
    of m.

    Args:
        moment: the running means, a tree of arrays.
        decay: the decay that they were updated with.
        count: how many updates there were, at least 1.

    Example:
        >>> mean = gradtx.update_moment(jnp.array([8.0]), jnp.zeros(1), decay=0.75, order=1)
        >>> print(mean, np.asarray(gradtx.bias_correction(mean, 0.75, count=1)).round(4))
        [2.] [8.]

    See also: `update_moment`.
    """

    def leaf(m: ArrayLike) -> jax.Array:
        dtype = compute_dtype(jnp.asarray(m).dtype)
        real = real_dtype(dtype)
        number = decay if isinstance(decay, int | float) else cast(decay, real)
        bias = one_minus_power(number, cast(count, real))
        return cast(cast(m, dtype) / cast(bias, dtype), jnp.asarray(m).dtype)

    return jax.tree.map(leaf, moment)
