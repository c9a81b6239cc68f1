"""The last step of an update: adding the updates to the parameters."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core.dtypes import cast, compute_dtype, is_inexact
from gradtx.core.leaves import Leaves, align, at, describe, is_array_or_number
from gradtx.core.state import Params, Updates


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Applied:
    """What a wrapper may return instead of updates in a step (`gradtx.step`): the parameters after
    its inner transformation's updates were added to them. None where there was no update."""

    params: Params


def apply_updates(params: Params, updates: Updates) -> Params:
    """Add updates to parameters, each leaf in its parameter's dtype.

        params + updates

    The sum is taken in float32 or wider and rounded once, to nearest.

    Args:
        params: the parameters, a pytree of arrays.
        updates: what `tx.update` returned, a tree like params. A parameter whose update is None
            stays as it is.

    Raises: ValueError, with the leaf's path, if trees or shapes differ.

    Example:
        >>> params = {"a": jnp.array([1.0, 2.0]), "b": jnp.ones(1, jnp.bfloat16)}
        >>> updates = {"a": jnp.array([0.5, -0.5]), "b": None}
        >>> gradtx.apply_updates(params, updates)
        {'a': Array([1.5, 1.5], dtype=float32), 'b': Array([1], dtype=bfloat16)}

    See also: `step`.
    """
    leaves = Leaves.of(updates)
    aligned = align(leaves, params, "apply_updates: params")

    def apply(i: int, update: Any, param: Any) -> Any:
        if update is None or getattr(update, "dtype", None) == jax.dtypes.float0:
            return param
        arrays = is_array_or_number(update) and (param is None or is_array_or_number(param))
        if not arrays or param is None or np.shape(param) != np.shape(update):
            raise ValueError(
                f"apply_updates: {at(leaves.paths[i])}: the update {describe(update)} does not "
                f"fit the parameter {'None' if param is None else describe(param)}"
                + ("" if arrays else "; updates are a tree like params, of arrays or None")
            )
        return _add(param, update)

    pairs = zip(leaves.values, aligned, strict=True)
    new = [apply(i, update, param) for i, (update, param) in enumerate(pairs)]
    return jax.tree.unflatten(leaves.treedef, new)


def _add(param: Any, update: Any) -> jax.Array:
    """param + update for one leaf."""
    if _is_wide(param) and _is_wide(update) and param.dtype == update.dtype:
        # Under a trace, calling a jitted function costs more than an addition; eagerly, less.
        traced = isinstance(param, jax.core.Tracer) or isinstance(update, jax.core.Tracer)
        return lax.add(param, update) if traced else _add_and_round(param, update)
    param, update = jnp.asarray(param), jnp.asarray(update)
    if not is_inexact(param):
        return param + cast(update, param.dtype)
    return _add_and_round(param, update)


def _is_wide(x: object) -> TypeGuard[jax.Array]:
    """Whether x is an array of float32 or wider, so that it needs no cast."""
    return isinstance(x, jax.Array) and x.dtype in _WIDE and not x.weak_type


_WIDE = frozenset(map(np.dtype, ("float32", "float64", "complex64", "complex128")))


@functools.partial(jax.jit, inline=True)
def _add_and_round(param: jax.Array, update: jax.Array) -> jax.Array:
    """Add in float32 or wider and round. Jitted so that, eagerly, it is one dispatch."""
    dtype = compute_dtype(param.dtype, update.dtype)
    return cast(lax.add(cast(param, dtype), cast(update, dtype)), param.dtype)
