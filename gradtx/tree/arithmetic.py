"""Arithmetic of trees, leaf by leaf. Reductions accumulate in float32 or wider."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core.dtypes import cast as _cast_array
from gradtx.core.dtypes import compute_dtype
from gradtx.core.norms import Norm, norm_of
from gradtx.core.numerics import abs_sq

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


def add(tree_x: Any, tree_y: Any, *other_trees: Any) -> Any:
    """x + y + ..."""
    return jax.tree.map(
        lambda *leaves: functools.reduce(operator.add, leaves), tree_x, tree_y, *other_trees
    )


def sub(tree_x: Any, tree_y: Any) -> Any:
    """x - y"""
    return jax.tree.map(lambda x, y: x - y, tree_x, tree_y)


def mul(tree_x: Any, tree_y: Any) -> Any:
    """x * y, element by element"""
    return jax.tree.map(lambda x, y: x * y, tree_x, tree_y)


def div(tree_x: Any, tree_y: Any) -> Any:
    """x / y, element by element"""
    return jax.tree.map(lambda x, y: x / y, tree_x, tree_y)


def scale(scalar: Any, tree: Any) -> Any:
    """scalar * x"""
    return jax.tree.map(lambda x: scalar * x, tree)


def add_scale(tree_x: Any, scalar: Any, tree_y: Any) -> Any:
    """x + scalar * y; None where x is None"""
    return jax.tree.map(
        lambda x, y: None if x is None else x + scalar * y,
        tree_x,
        tree_y,
        is_leaf=lambda x: x is None,
    )


def where(condition: Any, tree_x: Any, tree_y: Any) -> Any:
    """x where the condition (an array, broadcast to every leaf) holds, else y"""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), tree_x, tree_y)


def clip(tree: Any, min_value: Any = None, max_value: Any = None) -> Any:
    """x, but at least min_value and at most max_value; None is no bound"""
    return jax.tree.map(lambda x: jnp.clip(x, min_value, max_value), tree)


def conj(tree: Any) -> Any:
    """The complex conjugate of x"""
    return jax.tree.map(jnp.conj, tree)


def real(tree: Any) -> Any:
    """The real part of x"""
    return jax.tree.map(jnp.real, tree)


def batch_shape(tree: Any, shape: tuple[int, ...] = ()) -> Any:
    """x broadcast over new leading axes of this shape"""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape, *jnp.shape(x))), tree)


def zeros_like(tree: Any, dtype: Any = None) -> Any:
    """0 in the shape of every leaf"""
    return jax.tree.map(lambda x: jnp.zeros_like(x, dtype=dtype), tree)


def ones_like(tree: Any, dtype: Any = None) -> Any:
    """1 in the shape of every leaf"""
    return jax.tree.map(lambda x: jnp.ones_like(x, dtype=dtype), tree)


def full_like(tree: Any, fill_value: Any, dtype: Any = None) -> Any:
    """fill_value in the shape of every leaf"""
    return jax.tree.map(lambda x: jnp.full_like(x, fill_value, dtype=dtype), tree)


def size(tree: Any) -> int:
    """The number of elements of all leaves."""
    return functools.reduce(operator.add, (jnp.size(x) for x in jax.tree.leaves(tree)), 0)


def _reduce(reduction: Callable[[jax.Array], jax.Array], leaf: Any) -> jax.Array:
    """One leaf to a scalar."""
    x = jnp.asarray(leaf)
    return reduction(_cast_array(x, compute_dtype(x.dtype)))


def _total(tree: Any, reduction: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """The sum over leaves of a scalar each, in the widest of their dtypes."""
    terms = [_reduce(reduction, x) for x in jax.tree.leaves(tree)]
    dtype = compute_dtype(*(x.dtype for x in terms))
    return functools.reduce(lax.add, [_cast_array(x, dtype) for x in terms], jnp.zeros((), dtype))


@functools.partial(jax.jit, inline=True)
def _sum_of_squares(x: jax.Array) -> jax.Array:
    # Jitted so that outside of jit it is one call; of lax, since a jnp function is traced again for
    # each shape.
    return lax.reduce_sum(abs_sq(x), tuple(range(x.ndim)))


def _sum_of_magnitudes(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.abs(x))


def sum(tree: Any, associative_reduction: bool = False) -> jax.Array:
    """The sum of all elements of all leaves.

    associative_reduction: add the leaves' sums in pairs instead of one after the other.
    """
    if associative_reduction:
        sums = jax.tree.map(lambda x: _reduce(jnp.sum, x), tree)
        return _total(jax.tree.reduce_associative(operator.add, sums, identity=0.0), jnp.sum)
    return _total(tree, jnp.sum)


def max(tree: Any) -> jax.Array:
    """The largest element of all leaves, in float32 or wider; -inf where there is none."""
    return _extreme(tree, _largest, jnp.maximum, -jnp.inf)


def min(tree: Any) -> jax.Array:
    """The smallest element of all leaves, in float32 or wider; inf where there is none."""
    return _extreme(tree, lambda x: -_largest(-x), jnp.minimum, jnp.inf)


def _largest(x: jax.Array) -> jax.Array:
    """The maximum, NaN where an element is one: XLA:CPU may lose it in the maximum of an array."""
    return jnp.where(jnp.any(jnp.isnan(x)), jnp.nan, jnp.max(x, initial=-jnp.inf))


def _extreme(tree: Any, of_leaf: Any, of_two: Any, of_none: float) -> jax.Array:
    found = [_reduce(of_leaf, x) for x in jax.tree.leaves(tree) if jnp.size(x)]
    dtype = compute_dtype(*(x.dtype for x in found))
    wide = (_cast_array(x, dtype) for x in found)
    return functools.reduce(of_two, wide, jnp.asarray(of_none, dtype))


def allclose(
    a: Any, b: Any, rtol: Any = 1e-05, atol: Any = 1e-08, equal_nan: bool = False
) -> jax.Array | bool:
    """Whether |x - y| <= atol + rtol * |y| in all elements of all leaves."""
    close = jax.tree.map(
        lambda x, y: jnp.allclose(x, y, rtol=rtol, atol=atol, equal_nan=equal_nan), a, b
    )
    return functools.reduce(operator.and_, jax.tree.leaves(close), True)


def vdot(tree_x: Any, tree_y: Any) -> jax.Array:
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


def length(tree: Any) -> Norm:
    """The norm of all leaves as one vector, ready to divide by."""
    return norm_of([jnp.asarray(x) for x in jax.tree.leaves(tree)])


def norm(tree: Any, ord: Any = None, squared: bool = False) -> jax.Array:
    """The norm of all leaves as one vector: ord 2 (default), 1 or inf; squared if asked.

    A norm is right wherever it can be represented; a square is not beyond 1e19 and below 1e-19 in
    float32, where it is infinite and 0.

    Raises: ValueError for another ord.
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


def global_norm(updates: Any) -> jax.Array:
    """sqrt(sum of |x|^2 over all leaves), in float32 or wider; its derivative at 0 is 0."""
    return norm(updates)
