"""Slow copies of parameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.core.dtypes import cast, compute_dtype, is_inexact
from gradtx.core.leaves import Leaves, align, at, describe, is_array_or_number
from gradtx.core.numerics import times
from gradtx.tree.casting import cast_like
from gradtx.tree.types import Tree

__all__ = ["incremental_update", "periodic_update"]


def incremental_update(new_tensors: Tree, old_tensors: Tree, step_size: ArrayLike) -> Tree:
    """Move a running average of parameters one step towards new ones.

        step_size * new + (1 - step_size) * old

    The average is taken in float32 or wider and keeps the dtype of old. Leaves of integers or
    booleans, which have no average, become those of new. Where new is None, so is the result.

    Args:
        new_tensors: the new parameters, a pytree of arrays.
        old_tensors: the average so far, a tree like them.
        step_size: the weight of the new ones: the average reaches back about 1 / step_size steps.
            Target networks take 0.005, averages for evaluation 0.001 or less.

    Raises: ValueError, with the leaf's path, if trees or shapes differ.

    Example:
        >>> average, params = {"w": jnp.array([0.0])}, {"w": jnp.array([8.0])}
        >>> for _ in range(3):
        ...     average = gradtx.incremental_update(params, average, step_size=0.5)
        ...     print(average["w"])
        [4.]
        [6.]
        [7.]

    See also: `periodic_update`.

    References: Polyak & Juditsky, 1992, https://doi.org/10.1137/0330046
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

    leaves, old = _side_by_side("incremental_update", new_tensors, old_tensors)
    return leaves.tree(map(average, leaves.values, old))


def periodic_update(
    new_tensors: Tree, old_tensors: Tree, steps: ArrayLike, update_period: ArrayLike
) -> Tree:
    """Replace a copy of parameters by new ones every update_period steps.

        new if steps is a multiple of update_period, otherwise old

    The result is in the dtypes of old, and None where new is None.

    Args:
        new_tensors: the new parameters, a pytree of arrays.
        old_tensors: the copy so far, a tree like them.
        steps: the number of the step, a whole number or an array of one.
        update_period: how many steps a copy is kept.

    Raises: ValueError, with the leaf's path, if trees or shapes differ.

    Example:
        >>> target, params = jnp.array([0.0]), jnp.array([8.0])
        >>> print(gradtx.periodic_update(params, target, steps=99, update_period=100))
        [0.]
        >>> print(gradtx.periodic_update(params, target, steps=100, update_period=100))
        [8.]

    See also: `incremental_update`.

    References: Mnih et al., 2013, https://arxiv.org/abs/1312.5602
    """
    leaves, old = _side_by_side("periodic_update", new_tensors, old_tensors)
    pairs = zip(leaves.values, old, strict=True)
    old_tensors = leaves.tree(None if x is None else y for x, y in pairs)
    return jax.lax.cond(
        jnp.mod(steps, update_period) == 0,
        lambda new, old: cast_like(new, old),
        lambda new, old: old,
        new_tensors,
        old_tensors,
    )


def _side_by_side(who: str, new_tensors: Tree, old_tensors: Tree) -> tuple[Leaves, list[Any]]:
    """The leaves of new, and the leaf of old at each; an error unless they are alike in shape."""
    leaves = Leaves.of(new_tensors)
    aligned = align(leaves, old_tensors, f"{who}: old_tensors", "new_tensors")
    for i, (new, old) in enumerate(zip(leaves.values, aligned, strict=True)):
        arrays = is_array_or_number(new) and is_array_or_number(old)
        if new is not None and not (arrays and np.shape(new) == np.shape(old)):
            raise ValueError(
                f"{who}: {at(leaves.paths[i])}: new_tensors has {describe(new)}, old_tensors "
                f"{describe(old)}; both must be alike in structure and shapes"
            )
    return leaves, aligned
