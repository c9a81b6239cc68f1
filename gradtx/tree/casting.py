"""The dtypes of trees."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.dtypes import cast as _cast_array
from gradtx.core.dtypes import is_inexact
from gradtx.core.leaves import Leaves

__all__ = ["cast", "cast_like", "dtype"]


def cast(tree: Any, dtype: Any) -> Any:
    """Floating leaves in another dtype; None leaves the tree as it is."""
    if dtype is None:
        return tree
    return jax.tree.map(lambda x: _cast_array(x, dtype) if is_inexact(x) else x, tree)


def cast_like(tree: Any, other_tree: Any) -> Any:
    """Each leaf in the dtype of the other tree's leaf"""
    return jax.tree.map(lambda x, y: _cast_array(x, y.dtype), tree, other_tree)


def dtype(tree: Any, mixed_dtype_handler: str | None = None) -> np.dtype:
    """The dtype of all leaves; JAX's default where there are none.

    mixed_dtype_handler: what it is where they differ, "promote": the dtype to which JAX promotes
    them together; "highest" or "lowest": the one of them to which all others are promoted, or
    which is promoted to all others.

    Raises: ValueError where they differ and nothing else is asked for, or where two of them have
    no order, such as float16 and bfloat16.
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


def _check_equal(tree: Any, dtypes: list[Any]) -> None:
    leaves = Leaves.of(jax.tree.map(lambda x: jnp.result_type(x), tree))
    if any(d != dtypes[0] for d in dtypes):
        present = zip(leaves.paths, leaves.values, strict=True)
        found = ", ".join(f"{path or 'the root'}: {d}" for path, d in present if d is not None)
        raise ValueError(
            f"tree.dtype: the leaves are of different dtypes ({found}): "
            "say what to do by mixed_dtype_handler='promote', 'highest' or 'lowest'"
        )


def _ordered(a: Any, b: Any) -> tuple[Any, Any]:
    """The lower and the higher of two dtypes: the lower is promoted to the higher."""
    promoted = jnp.promote_types(a, b)
    if promoted not in (a, b):
        raise ValueError(f"tree.dtype: neither of {a} and {b} is promoted to the other")
    return (a, b) if promoted == b else (b, a)
