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
    """m <- decay * m + (1 - decay) * g^order"""
    return _updated(lambda g, m: running_mean(m, g**order, decay), updates, moments)


def update_infinity_moment(updates: Tree, moments: Tree, decay: Scalar, eps: Scalar) -> Tree:
    """u <- max(|g| + eps, decay * u)"""
    return _updated(
        lambda g, m: jnp.maximum(jnp.abs(g) + cast(eps, m.dtype), times(decay, m)),
        updates,
        moments,
    )


def update_moment_per_elem_norm(updates: Tree, moments: Tree, decay: Scalar, order: float) -> Tree:
    """m <- decay * m + (1 - decay) * |g|^order for complex g, with g^order for real g"""

    def power(g: jax.Array) -> jax.Array:
        if not jnp.iscomplexobj(g):
            return g**order
        return abs_sq(g) ** (order // 2 if order % 2 == 0 else order / 2)

    return _updated(lambda g, m: running_mean(m, power(g), decay), updates, moments)


def bias_correction(moment: Tree, decay: ArrayLike, count: ArrayLike) -> Tree:
    """m / (1 - decay^count): running means that started at zero, without that bias.

    The divisor is correct to rounding even if decay^count is nearly 1.
    """

    def leaf(m: ArrayLike) -> jax.Array:
        dtype = compute_dtype(jnp.asarray(m).dtype)
        real = real_dtype(dtype)
        number = decay if isinstance(decay, int | float) else cast(decay, real)
        bias = one_minus_power(number, cast(count, real))
        return cast(cast(m, dtype) / cast(bias, dtype), jnp.asarray(m).dtype)

    return jax.tree.map(leaf, moment)
