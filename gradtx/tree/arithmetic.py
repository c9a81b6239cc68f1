"""Arithmetic on trees, leaf by leaf. Reductions accumulate in float32 or wider."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from gradtx.core.dtypes import cast as _cast_array
from gradtx.core.dtypes import compute_dtype
from gradtx.core.norms import Norm, norm_of
from gradtx.core.numerics import abs_sq
from gradtx.tree.types import Tree

__all__ = [
    "add",
    "add_scale",
    "allclose",
    "batch_shape",
    "clip",
    "conj",
    "div",
    "full_like",
    "global_norm",
    "max",
    "min",
    "mul",
    "norm",
    "ones_like",
    "real",
    "scale",
    "size",
    "sub",
    "sum",
    "vdot",
    "where",
    "zeros_like",
]


def add(tree_x: Tree, tree_y: Tree, *other_trees: Tree) -> Tree:
    """x + y + ..."""
    return jax.tree.map(
        lambda *leaves: functools.reduce(operator.add, leaves), tree_x, tree_y, *other_trees
    )


def sub(tree_x: Tree, tree_y: Tree) -> Tree:
    """x - y"""
    return jax.tree.map(lambda x, y: x - y, tree_x, tree_y)


def mul(tree_x: Tree, tree_y: Tree) -> Tree:
    """x * y, element by element"""
    return jax.tree.map(lambda x, y: x * y, tree_x, tree_y)


def div(tree_x: Tree, tree_y: Tree) -> Tree:
    """x / y, element by element"""
    return jax.tree.map(lambda x, y: x / y, tree_x, tree_y)


def scale(scalar: ArrayLike, tree: Tree) -> Tree:
    """scalar * x"""
    return jax.tree.map(lambda x: scalar * x, tree)


def add_scale(tree_x: Tree, scalar: ArrayLike, tree_y: Tree) -> Tree:
    """x + scalar * y; None where x is None"""
    return jax.tree.map(
        lambda x, y: None if x is None else x + scalar * y,
        tree_x,
        tree_y,
        is_leaf=lambda x: x is None,
    )


def where(condition: ArrayLike, tree_x: Tree, tree_y: Tree) -> Tree:
    """x where the condition, an array broadcast to every leaf, holds; otherwise y"""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), tree_x, tree_y)


def clip(
    tree: Tree, min_value: ArrayLike | None = None, max_value: ArrayLike | None = None
) -> Tree:
    """x, but at least min_value and at most max_value; None means no bound"""
    return jax.tree.map(lambda x: jnp.clip(x, min_value, max_value), tree)


def conj(tree: Tree) -> Tree:
    """The complex conjugate of x"""
    return jax.tree.map(jnp.conj, tree)


def real(tree: Tree) -> Tree:
    """The real part of x"""
    return jax.tree.map(jnp.real, tree)


def batch_shape(tree: Tree, shape: tuple[int, ...] = ()) -> Tree:
    """x broadcast over new leading axes of this shape"""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape, *jnp.shape(x))), tree)


def zeros_like(tree: Tree, dtype: DTypeLike | None = None) -> Tree:
    """0 in the shape of every leaf"""
    return jax.tree.map(lambda x: jnp.zeros_like(x, dtype=dtype), tree)


def ones_like(tree: Tree, dtype: DTypeLike | None = None) -> Tree:
    """1 in the shape of every leaf"""
    return jax.tree.map(lambda x: jnp.ones_like(x, dtype=dtype), tree)


def full_like(tree: Tree, fill_value: ArrayLike, dtype: DTypeLike | None = None) -> Tree:
    """fill_value in the shape of every leaf"""
    return jax.tree.map(lambda x: jnp.full_like(x, fill_value, dtype=dtype), tree)


def size(tree: Tree) -> int:
    """The number of elements in all leaves."""
    return functools.reduce(operator.add, (jnp.size(x) for x in jax.tree.leaves(tree)), 0)


# A function of an array, of any shape, to a scalar.
Reduction = Callable[[jax.Array], jax.Array]


def _reduce(reduction: Reduction, leaf: ArrayLike) -> jax.Array:
    """One leaf reduced to a scalar, in float32 or wider."""
    x = jnp.asarray(leaf)
    return reduction(_cast_array(x, compute_dtype(x.dtype)))


def _total(tree: Tree, reduction: Reduction) -> jax.Array:
    """The sum of the leaves' scalars, in the widest of their dtypes."""
    terms = [_reduce(reduction, x) for x in jax.tree.leaves(tree)]
    dtype = compute_dtype(*(x.dtype for x in terms))
    return functools.reduce(lax.add, [_cast_array(x, dtype) for x in terms], jnp.zeros((), dtype))


@functools.partial(jax.jit, inline=True)
def _sum_of_squares(x: jax.Array) -> jax.Array:
    # Jitted so that outside of jit it is one call; written in lax, since a jnp function would be
    # traced again for each shape.
    return lax.reduce_sum(abs_sq(x), tuple(range(x.ndim)))


def _sum_of_magnitudes(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.abs(x))


def sum(tree: Tree, associative_reduction: bool = False) -> jax.Array:
    """The sum of all elements of all leaves, in float32 or wider.

    associative_reduction: whether to add the leaves' sums in pairs instead of one by one.
    """
    if associative_reduction:
        sums = jax.tree.map(lambda x: _reduce(jnp.sum, x), tree)
        return _total(jax.tree.reduce_associative(operator.add, sums, identity=0.0), jnp.sum)
    return _total(tree, jnp.sum)


def max(tree: Tree) -> jax.Array:
    """The largest element of all leaves, in float32 or wider; -inf if there is none."""
    return _extreme(tree, _largest, jnp.maximum, -jnp.inf)


def min(tree: Tree) -> jax.Array:
    """The smallest element of all leaves, in float32 or wider; inf if there is none."""
    return _extreme(tree, lambda x: -_largest(-x), jnp.minimum, jnp.inf)


def _largest(x: jax.Array) -> jax.Array:
    """The maximum, or NaN if an element is one: XLA:CPU may lose a NaN in a maximum."""
    return jnp.where(jnp.any(jnp.isnan(x)), jnp.nan, jnp.max(x, initial=-jnp.inf))


def _extreme(
    tree: Tree, of_leaf: Reduction, of_two: Callable[..., jax.Array], of_none: float
) -> jax.Array:
    found = [_reduce(of_leaf, x) for x in jax.tree.leaves(tree) if jnp.size(x)]
    dtype = compute_dtype(*(x.dtype for x in found))
    wide = (_cast_array(x, dtype) for x in found)
    return functools.reduce(of_two, wide, jnp.asarray(of_none, dtype))


def allclose(
    a: Tree, b: Tree, rtol: ArrayLike = 1e-05, atol: ArrayLike = 1e-08, equal_nan: bool = False
) -> jax.Array | bool:
    """Whether |x - y| <= atol + rtol * |y| for all elements of all leaves."""
    close = jax.tree.map(
        lambda x, y: jnp.allclose(x, y, rtol=rtol, atol=atol, equal_nan=equal_nan), a, b
    )
    return functools.reduce(operator.and_, jax.tree.leaves(close), True)


def vdot(tree_x: Tree, tree_y: Tree) -> jax.Array:
    """<x, y> = sum of conj(x) * y over all leaves"""
    products = jax.tree.map(
        lambda x, y: (
            jnp.conj(_cast_array(x, compute_dtype(x.dtype)))
            * _cast_array(y, compute_dtype(y.dtype))
        ),
        tree_x,
        tree_y,
    )
    return _total(products, jnp.sum)


def length(tree: Tree) -> Norm:
    """The norm of all leaves as one vector, ready to divide by."""
    return norm_of([jnp.asarray(x) for x in jax.tree.leaves(tree)])


def norm(tree: Tree, ord: float | str | None = None, squared: bool = False) -> jax.Array:
    """The norm of all leaves as one vector: ord 2 (default), 1 or inf; squared if asked.

    A norm is right wherever it can be represented. Its square, in float32, is infinite for norms
    above 1e19 and 0 for norms below 1e-19.

    Raises: ValueError for any other ord.
    """
    if ord is None or ord == 2:
        return _total(tree, _sum_of_squares) if squared else length(tree).value
    if ord == 1:
        result = _total(tree, _sum_of_magnitudes)
    elif ord in (jnp.inf, "inf", "infinity"):
        largest = [jnp.maximum(_largest(jnp.abs(x)), 0) for x in jax.tree.leaves(tree)]
        result = jnp.max(jnp.asarray(largest)) if largest else jnp.zeros(())
    else:
        raise ValueError(f"tree.norm: ord must be None, 1, 2 or inf, got {ord!r}")
    return jnp.square(result) if squared else result


def global_norm(updates: Tree) -> jax.Array:
    """sqrt(sum of |x|^2 over all leaves), in float32 or wider; its derivative at 0 is 0."""
    return norm(updates)
