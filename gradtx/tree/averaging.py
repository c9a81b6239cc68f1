"""Slow copies of parameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.dtypes import cast, compute_dtype, is_inexact
from gradtx.core.numerics import times
from gradtx.tree.casting import cast_like


def incremental_update(new_tensors: Any, old_tensors: Any, step_size: Any) -> Any:
    """step_size * new + (1 - step_size) * old: one step of a running average of parameters.

    The average is taken in float32 or wider and keeps the dtype of old. Leaves of integers or
    booleans, of which there is no average, become those of new. None where new is None.
    Polyak & Juditsky, 1992, https://doi.org/10.1137/0330046
    """

    def average(new: Any, old: Any) -> Any:
        if new is None:
            return None
        new, old = jnp.asarray(new), jnp.asarray(old)
        if not is_inexact(old):
            return cast(new, old.dtype)
        dtype = compute_dtype(new.dtype, old.dtype)
        weight = step_size if isinstance(step_size, int | float) else cast(step_size, dtype)
        result = times(weight, cast(new, dtype)) + times(1 - weight, cast(old, dtype))
        return cast(result, old.dtype)

    return jax.tree.map(average, new_tensors, old_tensors, is_leaf=lambda x: x is None)


def periodic_update(new_tensors: Any, old_tensors: Any, steps: Any, update_period: Any) -> Any:
    """new where steps is a multiple of update_period, otherwise old, in the dtypes of old.

    Mnih et al., 2013, https://arxiv.org/abs/1312.5602
    """
    return jax.lax.cond(
        jnp.mod(steps, update_period) == 0,
        lambda new, old: cast_like(new, old),
        lambda new, old: old,
        new_tensors,
        old_tensors,
    )
