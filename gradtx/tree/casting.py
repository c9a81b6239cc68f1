"""The dtypes of trees."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gradtx.core.dtypes import cast as _cast_array
from gradtx.core.dtypes import is_inexact
from gradtx.core.leaves import Leaves
from gradtx.tree.types import Tree

__all__ = ["cast", "cast_like", "dtype"]


def cast(tree: Tree, dtype: DTypeLike | None) -> Tree:
    """Cast the floating leaves of a tree to one dtype; others, such as counts, stay as they are.

    Args:
        tree: a tree of arrays.
        dtype: the dtype; None leaves the tree as it is.

    Example:
        >>> tree = gradtx.tree.cast({"w": jnp.ones(2), "count": jnp.array(3)}, jnp.bfloat16)
        >>> print(tree["w"].dtype, tree["count"].dtype)
        bfloat16 int32

    See also: `tree.cast_like`, `tree.dtype`.
    """
    if dtype is None:
        return tree
    return jax.tree.map(lambda x: _cast_array(x, dtype) if is_inexact(x) else x, tree)


def cast_like(tree: Tree, other_tree: Tree) -> Tree:
    """Cast each leaf to the dtype of the same leaf of another tree.

    Args:
        tree: a tree of arrays.
        other_tree: a tree of the same structure, of which only the dtypes matter.

    Example:
        >>> params = {"w": jnp.ones(2, jnp.bfloat16)}
        >>> gradtx.tree.cast_like({"w": jnp.ones(2)}, params)["w"].dtype
        dtype(bfloat16)

    See also: `tree.cast`.
    """
    return jax.tree.map(lambda x, y: _cast_array(x, y.dtype), tree, other_tree)


def dtype(tree: Tree, mixed_dtype_handler: str | None = None) -> np.dtype:
    """Find the dtype that all leaves have, or JAX's default floating dtype if there are none.

    Args:
        tree: a tree of arrays.
        mixed_dtype_handler: what to return if the dtypes differ. "promote": the dtype to which JAX
            promotes all of them together; "highest": the one to which all others are promoted;
            "lowest": the one that is promoted to all others. None: an error.

    Raises: ValueError if they differ and no handler is given, or if two of them have no order,
    such as float16 and bfloat16.

    Example:
        >>> mixed = {"w": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2)}
        >>> print(gradtx.tree.dtype(mixed, "lowest"), gradtx.tree.dtype(mixed, "highest"))
        bfloat16 float32

    See also: `tree.cast`.
    """
    dtypes = [jnp.result_type(x) for x in jax.tree.leaves(tree)]
    if not dtypes:
        return np.dtype(jnp.result_type(float))
    if mixed_dtype_handler is None:
        _check_equal(tree, dtypes)
        return dtypes[0]
    handlers: dict[str, Callable[[Any, Any], Any]] = {
        "promote": jnp.promote_types,
        "highest": lambda a, b: _ordered(a, b)[1],
        "lowest": lambda a, b: _ordered(a, b)[0],
    }
    if mixed_dtype_handler not in handlers:
        raise ValueError(
            "tree.dtype: mixed_dtype_handler must be None, 'promote', 'highest' or 'lowest', "
            f"got {mixed_dtype_handler!r}"
        )
    with jax.numpy_dtype_promotion("standard"):
        return functools.reduce(handlers[mixed_dtype_handler], dtypes)


def _check_equal(tree: Tree, dtypes: list[Any]) -> None:
    leaves = Leaves.of(jax.tree.map(lambda x: jnp.result_type(x), tree))
    if any(d != dtypes[0] for d in dtypes):
        present = zip(leaves.paths, leaves.values, strict=True)
        found = ", ".join(f"{path or 'the root'}: {d}" for path, d in present if d is not None)
        raise ValueError(
            f"tree.dtype: the leaves are of different dtypes ({found}): "
            "choose one with mixed_dtype_handler='promote', 'highest' or 'lowest'"
        )


def _ordered(a: Any, b: Any) -> tuple[Any, Any]:
    """The lower and the higher of two dtypes: the lower is promoted to the higher."""
    promoted = jnp.promote_types(a, b)
    if promoted not in (a, b):
        raise ValueError(f"tree.dtype: neither of {a} and {b} is promoted to the other")
    return (a, b) if promoted == b else (b, a)
