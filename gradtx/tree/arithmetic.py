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
from gradtx.core.meshes.placing import seen_alike
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
    """Add trees leaf by leaf.

        x + y + ...

    Args:
        tree_x: a tree of arrays.
        tree_y: a tree of the same structure.
        other_trees: more trees of that structure.

    Example:
        >>> one, two, three = ({"a": jnp.array([x])} for x in (1.0, 2.0, 3.0))
        >>> gradtx.tree.add(one, two, three)
        {'a': Array([6.], dtype=float32)}

    See also: `tree.sub`, `tree.add_scale`.
    """
    return jax.tree.map(
        lambda *leaves: functools.reduce(operator.add, leaves), tree_x, tree_y, *other_trees
    )


def sub(tree_x: Tree, tree_y: Tree) -> Tree:
    """Subtract one tree from another leaf by leaf.

        x - y

    Args:
        tree_x: a tree of arrays.
        tree_y: the tree that is subtracted, of the same structure.

    Example:
        >>> gradtx.tree.sub({"a": jnp.array([5.0])}, {"a": jnp.array([2.0])})
        {'a': Array([3.], dtype=float32)}

    See also: `tree.add`.
    """
    return jax.tree.map(lambda x, y: x - y, tree_x, tree_y)


def mul(tree_x: Tree, tree_y: Tree) -> Tree:
    """Multiply two trees element by element.

        x * y

    Args:
        tree_x: a tree of arrays.
        tree_y: a tree of the same structure.

    Example:
        >>> gradtx.tree.mul({"a": jnp.array([2.0, 3.0])}, {"a": jnp.array([4.0, 5.0])})
        {'a': Array([ 8., 15.], dtype=float32)}

    See also: `tree.scale`, which multiplies by one number, and `tree.vdot`.
    """
    return jax.tree.map(lambda x, y: x * y, tree_x, tree_y)


def div(tree_x: Tree, tree_y: Tree) -> Tree:
    """Divide one tree by another element by element.

        x / y

    Args:
        tree_x: a tree of arrays.
        tree_y: the tree to divide by, of the same structure.

    Example:
        >>> gradtx.tree.div({"a": jnp.array([8.0, 9.0])}, {"a": jnp.array([4.0, 3.0])})
        {'a': Array([2., 3.], dtype=float32)}

    See also: `tree.mul`.
    """
    return jax.tree.map(lambda x, y: x / y, tree_x, tree_y)


def scale(scalar: ArrayLike, tree: Tree) -> Tree:
    """Multiply every leaf by one number.

        scalar * x

    Args:
        scalar: the number, or an array that broadcasts to every leaf.
        tree: a tree of arrays.

    Example:
        >>> gradtx.tree.scale(0.5, {"a": jnp.array([4.0]), "b": jnp.array([6.0])})
        {'a': Array([2.], dtype=float32), 'b': Array([3.], dtype=float32)}

    See also: `tree.mul`, `tree.add_scale`.
    """
    return jax.tree.map(lambda x: scalar * x, tree)


def add_scale(tree_x: Tree, scalar: ArrayLike, tree_y: Tree) -> Tree:
    """Add a multiple of one tree to another.

        x + scalar * y

    Args:
        tree_x: a tree of arrays. Where a leaf is None, so is the result.
        scalar: what the second tree is multiplied by.
        tree_y: a tree of the same structure.

    Example:
        >>> gradtx.tree.add_scale({"a": jnp.array([1.0])}, -0.5, {"a": jnp.array([4.0])})
        {'a': Array([-1.], dtype=float32)}

    See also: `tree.add`, `tree.scale`.
    """
    return jax.tree.map(
        lambda x, y: None if x is None else x + scalar * y,
        tree_x,
        tree_y,
        is_leaf=lambda x: x is None,
    )


def where(condition: ArrayLike, tree_x: Tree, tree_y: Tree) -> Tree:
    """Choose between two trees by one condition.

        x where the condition holds, otherwise y

    Args:
        condition: a boolean, or an array of them that broadcasts to every leaf.
        tree_x: the tree that is chosen where it holds.
        tree_y: the tree that is chosen elsewhere, of the same structure.

    Example:
        >>> new, old = {"a": jnp.array([1.0])}, {"a": jnp.array([2.0])}
        >>> gradtx.tree.where(jnp.isfinite(new["a"]).all(), new, old)
        {'a': Array([1.], dtype=float32)}
    """
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), tree_x, tree_y)


def clip(
    tree: Tree, min_value: ArrayLike | None = None, max_value: ArrayLike | None = None
) -> Tree:
    """Limit every element to a range.

        max_value where x > max_value, min_value where x < min_value, otherwise x

    Args:
        tree: a tree of arrays.
        min_value: the smallest value; None means no bound.
        max_value: the largest value; None means no bound.

    Example:
        >>> gradtx.tree.clip({"a": jnp.array([-3.0, 0.5])}, min_value=-1.0)
        {'a': Array([-1. ,  0.5], dtype=float32)}

    See also: `gradtx.clip`, a transformation.
    """
    return jax.tree.map(lambda x: jnp.clip(x, min_value, max_value), tree)


def conj(tree: Tree) -> Tree:
    """Take the complex conjugate of every leaf; real ones stay as they are.

    For a real loss of complex parameters, the conjugate of what `jax.grad` returns points uphill.

    Args:
        tree: a tree of arrays.

    Example:
        >>> gradtx.tree.conj({"a": jnp.array([1.0 + 2.0j])})
        {'a': Array([1.-2.j], dtype=complex64)}

    See also: `tree.real`.
    """
    return jax.tree.map(jnp.conj, tree)


def real(tree: Tree) -> Tree:
    """Take the real part of every leaf.

    Args:
        tree: a tree of arrays.

    Example:
        >>> gradtx.tree.real({"a": jnp.array([1.0 + 2.0j])})
        {'a': Array([1.], dtype=float32)}

    See also: `tree.conj`.
    """
    return jax.tree.map(jnp.real, tree)


def batch_shape(tree: Tree, shape: tuple[int, ...] = ()) -> Tree:
    """Broadcast every leaf over new leading axes.

    Args:
        tree: a tree of arrays.
        shape: the lengths of the new axes; () adds none.

    Example:
        >>> gradtx.tree.batch_shape({"a": jnp.array([1.0, 2.0])}, (3,))["a"].shape
        (3, 2)
    """
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape, *jnp.shape(x))), tree)


def zeros_like(tree: Tree, dtype: DTypeLike | None = None) -> Tree:
    """Make a tree of zeros with the shapes of another.

    Args:
        tree: a tree of arrays.
        dtype: the dtype of the zeros; None means that of each leaf.

    Example:
        >>> gradtx.tree.zeros_like({"a": jnp.array([1, 2])}, jnp.float32)
        {'a': Array([0., 0.], dtype=float32)}

    See also: `gradtx.zeros_like`, for one array and its state, `tree.ones_like`, `tree.full_like`.
    """
    return jax.tree.map(lambda x: seen_alike(jnp.zeros_like(x, dtype=dtype), x), tree)


def ones_like(tree: Tree, dtype: DTypeLike | None = None) -> Tree:
    """Make a tree of ones with the shapes of another.

    Args:
        tree: a tree of arrays.
        dtype: the dtype of the ones; None means that of each leaf.

    Example:
        >>> gradtx.tree.ones_like({"a": jnp.zeros(2)})
        {'a': Array([1., 1.], dtype=float32)}

    See also: `tree.zeros_like`, `tree.full_like`.
    """
    return jax.tree.map(lambda x: jnp.ones_like(x, dtype=dtype), tree)


def full_like(tree: Tree, fill_value: ArrayLike, dtype: DTypeLike | None = None) -> Tree:
    """Make a tree of one value with the shapes of another.

    Args:
        tree: a tree of arrays.
        fill_value: the value, or an array that broadcasts to every leaf.
        dtype: the dtype of the result; None means that of each leaf.

    Example:
        >>> gradtx.tree.full_like({"a": jnp.zeros(2)}, 7)
        {'a': Array([7., 7.], dtype=float32)}

    See also: `tree.zeros_like`, `tree.ones_like`.
    """
    return jax.tree.map(lambda x: jnp.full_like(x, fill_value, dtype=dtype), tree)


def size(tree: Tree) -> int:
    """Count the elements of all leaves.

    Args:
        tree: a tree of arrays or shapes.

    Returns: a Python int, also under `jax.jit`.

    Example:
        >>> gradtx.tree.size({"w": jnp.zeros((3, 4)), "b": jnp.zeros(4)})
        16
    """
    return functools.reduce(operator.add, (jnp.size(x) for x in jax.tree.leaves(tree)), 0)


# A function from an array of any shape to a scalar.
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
    """Sum all elements of all leaves, in float32 or wider.

    Args:
        tree: a tree of arrays.
        associative_reduction: add the sums of the leaves in pairs instead of one by one, which
            shortens the chain of additions where there are many leaves.

    Example:
        >>> print(gradtx.tree.sum({"a": jnp.array([1.0, 2.0]), "b": jnp.array(4.0)}))
        7.0

    See also: `tree.vdot`, `tree.norm`.
    """
    if associative_reduction:
        sums = jax.tree.map(lambda x: _reduce(jnp.sum, x), tree)
        return _total(jax.tree.reduce_associative(operator.add, sums, identity=0.0), jnp.sum)
    return _total(tree, jnp.sum)


def max(tree: Tree) -> jax.Array:
    """Find the largest element of all leaves, in float32 or wider.

    Args:
        tree: a tree of arrays. If it has no element the result is -inf, and a NaN in it makes the
            result NaN.

    Example:
        >>> print(gradtx.tree.max({"a": jnp.array([1.0, 7.0]), "b": jnp.array(4.0)}))
        7.0

    See also: `tree.min`, `tree.norm` with ord="inf" for magnitudes.
    """
    return _extreme(tree, _largest, jnp.maximum, -jnp.inf)


def min(tree: Tree) -> jax.Array:
    """Find the smallest element of all leaves, in float32 or wider.

    Args:
        tree: a tree of arrays. If it has no element the result is inf, and a NaN in it makes the
            result NaN.

    Example:
        >>> print(gradtx.tree.min({"a": jnp.array([1.0, 7.0]), "b": jnp.array(4.0)}))
        1.0

    See also: `tree.max`.
    """
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
    """Check whether two trees are equal but for small differences.

        |x - y| <= atol + rtol * |y|        for all elements of all leaves

    Args:
        a: a tree of arrays, x above.
        b: a tree of the same structure, y above.
        rtol: the difference allowed relative to b.
        atol: the absolute difference allowed on top, which decides where b is near 0.
        equal_nan: count two NaNs in the same place as equal.

    Example:
        >>> x = {"a": jnp.array([1.0, 2.0])}
        >>> print(gradtx.tree.allclose(x, gradtx.tree.scale(1.001, x), rtol=0.01))
        True
    """
    close = jax.tree.map(
        lambda x, y: jnp.allclose(x, y, rtol=rtol, atol=atol, equal_nan=equal_nan), a, b
    )
    return functools.reduce(operator.and_, jax.tree.leaves(close), True)


def vdot(tree_x: Tree, tree_y: Tree) -> jax.Array:
    """Compute the inner product of two trees, in float32 or wider.

        <x, y> = sum of conj(x) * y over all leaves

    Args:
        tree_x: a tree of arrays, which are conjugated if they are complex.
        tree_y: a tree of the same structure.

    Example:
        >>> grads = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)}
        >>> updates = {"a": jnp.array([-1.0, 0.0]), "b": jnp.array(-1.0)}
        >>> print(gradtx.tree.vdot(grads, updates))
        -4.0

    See also: `tree.norm`, `tree.sum`.
    """
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
    """Compute the norm of all leaves as one vector, in float32 or wider.

        sqrt(sum |x|^2)  (ord 2),      sum |x|  (ord 1),      max |x|  (ord inf)

    A norm is right wherever it can be represented. Its square, in float32, is infinite for norms
    above 1e19 and 0 for norms below 1e-19.

    Args:
        tree: a tree of arrays.
        ord: which norm: 2, 1 or inf (also as "inf"); None is 2.
        squared: return the square of the norm, which for ord 2 saves the root.

    Raises: ValueError for any other ord.

    Example:
        >>> x = {"a": jnp.array([3.0]), "b": jnp.array([-4.0])}
        >>> for ord in (2, 1, "inf"):
        ...     print(gradtx.tree.norm(x, ord))
        5.0
        7.0
        4.0

    See also: `global_norm`, `tree.vdot`.
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
    """Compute the Euclidean norm of all leaves as one vector, in float32 or wider.

        sqrt(sum of |x|^2 over all leaves)

    Its derivative at 0 is 0. This is what `clip_by_global_norm` compares with its bound.

    Args:
        updates: a tree of arrays, usually gradients.

    Example:
        >>> print(gradtx.global_norm({"a": jnp.array([3.0]), "b": jnp.array([4.0])}))
        5.0

    See also: `tree.norm`, `clip_by_global_norm`.
    """
    return norm(updates)
