"""The last step: adding the updates to the parameters."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core.dtypes import cast, compute_dtype, is_inexact
from gradtx.core.leaves import Leaves, align, at, describe
from gradtx.core.state import Params, Updates


def apply_updates(params: Params, updates: Updates) -> Params:
    """params + updates, each leaf in its parameter's dtype.

    The sum is taken in float32 or wider and rounded once. Where the update is None the parameter
    stays. Raises: ValueError, with the leaf's path, where trees or shapes differ.
    """
    leaves = Leaves.of(updates)
    aligned = align(leaves, params, "apply_updates: params")

    def apply(i: int, update: Any, param: Any) -> Any:
        if update is None or getattr(update, "dtype", None) == jax.dtypes.float0:
            return param
        if param is None or np.shape(param) != np.shape(update):
            raise ValueError(
                f"apply_updates: {at(leaves.paths[i])}: the update {describe(update)} does not "
                f"fit the parameter {'None' if param is None else describe(param)}"
            )
        return _add(param, update)

    pairs = zip(leaves.values, aligned, strict=True)
    new = [apply(i, update, param) for i, (update, param) in enumerate(pairs)]
    return jax.tree.unflatten(leaves.treedef, new)


def _add(param: Any, update: Any) -> Any:
    """One leaf."""
    param, update = jnp.asarray(param), jnp.asarray(update)
    if not is_inexact(param):
        return param + cast(update, param.dtype)
    if param.dtype == update.dtype == compute_dtype(param.dtype):
        return lax.add(param, cast(update, update.dtype))
    return _add_and_round(param, update)


@functools.partial(jax.jit, inline=True)
def _add_and_round(param: Any, update: Any) -> Any:
    """One leaf in float32 or wider; jitted so that outside of jit it is one call."""
    dtype = compute_dtype(param.dtype, update.dtype)
    return cast(lax.add(cast(param, dtype), cast(update, dtype)), param.dtype)
