"""What a device holds of a tree of arrays, and what it holds that all others hold too."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, Sharding

from gradtx.core.leaves import describe
from gradtx.core.meshes.placing import axes_of
from gradtx.core.printing import show
from gradtx.core.state import OptState, Params
from gradtx.sharding.layout import Shardings, misfit_of

__all__ = ["bytes_per_device", "replicated"]


def bytes_per_device(tree: OptState | Params, shardings: Shardings | None = None) -> int:
    """Count the bytes that each device holds of a tree of arrays.

    Args:
        tree: arrays, or their shapes as `jax.eval_shape` gives them.
        shardings: how they lie, a tree of shardings like `tree`; None means their own.

    Returns: the bytes, of the largest part where parts differ.

    Raises: TypeError, with the leaf's path, for a leaf that has no sharding; ValueError for
    one that does not fit, and for shardings of another tree.

    Example:
        >>> mesh = jax.sharding.AbstractMesh((8,), ("data",))
        >>> rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
        >>> params = {"w": jax.ShapeDtypeStruct((64, 2), jnp.float32, sharding=rows)}
        >>> tx = gradtx.adam(1e-3)
        >>> state = jax.eval_shape(tx.init, params)
        >>> gradtx.sharding.bytes_per_device(state, gradtx.sharding.state_shardings(tx, params))
        132

    See also: `replicated`, `state_shardings`, `inspection.state_bytes_per_parameter`.
    """
    return sum(size for _, size, _ in _leaves("bytes_per_device", tree, shardings))


def replicated(
    tree: OptState | Params,
    shardings: Shardings | None = None,
    *,
    axis: str | tuple[str, ...] | None = None,
) -> dict[str, int]:
    """List the arrays that are not spread, with what each takes on every device.

    For a state that `zero` spread over an axis, these are what could not be spread: counts and
    other scalars, and arrays of which no axis can be divided evenly.

    Args:
        tree: arrays, or their shapes as `jax.eval_shape` gives them.
        shardings: how they lie, a tree of shardings like `tree`; None means their own.
        axis: an axis of the mesh, or several: arrays are listed that are not divided over all of
            these. None: those that every device holds in full.

    Returns: a dict from paths to bytes, the largest first.

    Raises: TypeError, with the leaf's path, for a leaf that has no sharding on a mesh; ValueError
    for an axis that the mesh does not have.

    Example:
        >>> mesh = jax.sharding.AbstractMesh((8,), ("data",))
        >>> rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
        >>> params = {"w": jax.ShapeDtypeStruct((64, 2), jnp.float32, sharding=rows)}
        >>> tx = gradtx.adam(1e-3)
        >>> where = gradtx.sharding.state_shardings(tx, params)
        >>> gradtx.sharding.replicated(jax.eval_shape(tx.init, params), where)
        {'[0].count': 4}

    See also: `zero`, `bytes_per_device`.
    """
    found: dict[str, int] = {}
    for path, size, sharding in _leaves("replicated", tree, shardings):
        if not isinstance(sharding, NamedSharding):
            raise TypeError(f"replicated: at {path}: {sharding} is no NamedSharding on a mesh")
        wanted = axes_of(axis)
        if unknown := [name for name in wanted if name not in sharding.mesh.shape]:
            known = ", ".join(map(repr, sharding.mesh.shape))
            raise ValueError(f"replicated: the mesh has no axis {unknown[0]!r}; it has {known}")
        names = {name for part in sharding.spec for name in axes_of(part)}
        divided = {name for name in names if sharding.mesh.shape[name] > 1}
        if not divided if axis is None else not names.issuperset(wanted):
            found[path] = size
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _leaves(
    where: str, tree: OptState | Params, shardings: Shardings | None
) -> Iterator[tuple[str, int, Sharding]]:
    """The path of each array, its bytes on a device and its sharding."""
    entries, _ = jax.tree_util.tree_flatten_with_path(tree)
    given: list[Any] = [getattr(x, "sharding", None) for _, x in entries]
    if shardings is not None:
        others, _ = jax.tree_util.tree_flatten_with_path(shardings)
        if [keys for keys, _ in others] != [keys for keys, _ in entries]:
            mine, its = ([jax.tree_util.keystr(keys) for keys, _ in x] for x in (entries, others))
            only = [f"{p} is in the arrays only" for p in mine if p not in its]
            only += [f"{p} is in shardings only" for p in its if p not in mine]
            differ = "; ".join(only[:3]) or "they are in another order"
            raise ValueError(f"{where}: shardings must be a tree like the one of arrays: {differ}")
        given = [sharding for _, sharding in others]
    for (keys, x), sharding in zip(entries, given, strict=True):
        path = jax.tree_util.keystr(keys)
        if not isinstance(sharding, Sharding):
            raise TypeError(
                f"{where}: at {path}: {describe(x)} has no sharding: give shardings=, which "
                "state_shardings tells for a state"
                if shardings is None
                else f"{where}: at {path}: {show(sharding)} is no sharding: give "
                "NamedSharding(mesh, spec), as state_shardings tells it for a state"
            )
        if isinstance(sharding, NamedSharding):
            misfit = misfit_of(sharding.mesh, sharding.spec, np.shape(x))
            if misfit:
                raise ValueError(f"{where}: at {path}: {describe(x)}: {misfit}")
        shape = sharding.shard_shape(np.shape(x))
        yield path, math.prod(shape) * jax.dtypes.result_type(x).itemsize, sharding
