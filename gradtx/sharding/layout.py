"""How a tree of arrays is divided among the devices of a mesh, read from the arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from gradtx.core.leaves import Leaves, align, at, describe
from gradtx.core.meshes.placing import axes_of, parts_of
from gradtx.core.printing import show
from gradtx.core.state import Params

AnyMesh: TypeAlias = Mesh | AbstractMesh
# A tree of NamedShardings.
Shardings: TypeAlias = Any


@dataclass(frozen=True)
class Layout:
    """A tree of arrays, or of their shapes, and how each lies on the one mesh.

    specs: one for each leaf, None where the leaf is absent.
    """

    mesh: AnyMesh
    leaves: Leaves
    specs: Sequence[PartitionSpec | None]

    def shapes(self, mesh: AnyMesh) -> Params:
        """The tree as shapes that are divided in the same way over another mesh."""
        shape: Any = jax.ShapeDtypeStruct

        def leaf(x: Any, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
            dtype = jax.dtypes.result_type(x)
            made: jax.ShapeDtypeStruct = shape(
                np.shape(x), dtype, sharding=NamedSharding(mesh, spec)
            )
            return made

        pairs = zip(self.leaves.values, self.specs, strict=True)
        return self.leaves.tree(None if spec is None else leaf(x, spec) for x, spec in pairs)


GIVE_SHARDINGS = "give shardings=, a tree of NamedShardings like params"


def layout_of(
    where: str, params: Params, shardings: Shardings | None = None, *, instead: str | None = None
) -> Layout:
    """How params lie: by shardings if they are given, or else each leaf by its own.

    instead: for errors, what a caller may do other than putting the params on a mesh.

    Raises: TypeError, with the leaf's path, where there is no sharding on a mesh; ValueError for
    one that does not fit its leaf, for shardings of another tree and for several meshes.
    """
    leaves = Leaves.of(params)
    if shardings is None:
        lying = [getattr(x, "sharding", None) for x in leaves.values]
    else:
        lying = align(leaves, shardings, f"{where}: shardings", "params")
    found: list[NamedSharding | None] = []
    for x, path, sharding in zip(leaves.values, leaves.paths, lying, strict=True):
        if x is not None and not isinstance(sharding, NamedSharding):
            given = f"got {show(sharding)}, which is no NamedSharding"
            what = _seen(x) if shardings is None else given
            raise TypeError(
                f"{where}: {at(path)}: {what}: put the params on the mesh, "
                "jax.device_put(params, NamedSharding(mesh, PartitionSpec()))"
                + (f", or {instead}" if instead else "")
            )
        found.append(None if x is None else sharding)
    meshes: dict[AnyMesh, int] = {}
    for i, sharding in enumerate(found):
        if sharding is not None:
            meshes.setdefault(sharding.mesh, i)
    if not meshes:
        raise ValueError(f"{where}: there are no params, and so no mesh on which they lie")
    (mesh, first), *others = meshes.items()
    for other, i in others:
        raise ValueError(
            f"{where}: {at(leaves.paths[i])}: the mesh is ({sizes(other)}), and "
            f"{at(leaves.paths[first])} it is ({sizes(mesh)}): a state lies on one mesh; give "
            "each part an optimizer of its own"
        )
    for i, sharding in enumerate(found):
        if sharding is not None:
            _check_fits(where, leaves, i, sharding)
    return Layout(mesh, leaves, [None if x is None else x.spec for x in found])


def _seen(x: Any) -> str:
    """A parameter and where it lies, if not on a mesh, for errors."""
    sharding = getattr(x, "sharding", None)
    if sharding is None:
        return f"{describe(x)} has no sharding"
    if len(sharding.device_set) == 1:
        return f"{describe(x)} lies on one device"
    return f"{describe(x)} has the sharding {sharding}, which is no NamedSharding"


def _check_fits(where: str, leaves: Leaves, i: int, sharding: NamedSharding) -> None:
    """Refuse a spec of more axes than leaf i has, or one that does not divide an axis evenly."""
    x = leaves.values[i]
    misfit = misfit_of(sharding.mesh, sharding.spec, np.shape(x))
    if misfit:
        raise ValueError(f"{where}: {at(leaves.paths[i])}: {describe(x)}: {misfit}")


def misfit_of(mesh: AnyMesh, spec: Any, shape: tuple[int, ...]) -> str | None:
    """Why an array of this shape cannot be divided in this way; None if it can."""
    if len(spec) > len(shape):
        return f"{spec} is of {len(spec)} axes, and the array has {len(shape)}"
    for axis, names in enumerate(spec):
        if unknown := [name for name in axes_of(names) if name not in mesh.shape]:
            return f"{spec} names {unknown[0]!r}, which is no axis of the mesh ({sizes(mesh)})"
        parts = parts_of(mesh, names)
        if shape[axis] % parts:
            return (
                f"{spec} cuts axis {axis} into {parts} parts, which do not divide {shape[axis]}: "
                "leave the axis whole, or pad the parameter"
            )
    return None


def plain(spec: Any) -> tuple[Any, ...]:
    """A spec as a tuple, without entries at its end that divide nothing."""
    names = [axes_of(x) for x in spec or ()]
    while names and not names[-1]:
        names.pop()
    return tuple((x[0] if len(x) == 1 else x) if x else None for x in names)


def without_ones(mesh: AnyMesh, spec: Any) -> tuple[Any, ...]:
    """The same without mesh axes of one device, over which nothing is divided."""
    return plain([[n for n in axes_of(x) if mesh.shape.get(n) != 1] for x in spec])


def sizes(mesh: AnyMesh) -> str:
    """The axes of a mesh and their sizes, for errors."""
    return ", ".join(f"{name}={size}" for name, size in mesh.shape.items())
