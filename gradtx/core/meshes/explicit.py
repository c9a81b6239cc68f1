"""Meshes with explicit axes: the types of arrays say how these axes divide them.

There each operation on divided arrays has to say how its result is divided. An update and an init
run with automatic axes instead, and say it only for their results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from gradtx.core.meshes.placing import full_spec, on_the_mesh, parts_of

T = TypeVar("T")


def on_auto_axes(function: Callable[..., T], arguments: tuple[Any, ...], like: Any) -> T:
    """function(*arguments). If a mesh has explicit axes, they are automatic inside, and the
    results are divided as `like` is, a tree of arrays or shardings of the same structure.

    The result of an operation on divided arrays may be divided in several ways, and a program with
    explicit axes has to choose one for each operation. Here the choice for the results is known:
    updates lie where the parameters do, and a state where it was. If an argument is a function,
    nothing changes: the arrays that it closes over would stay outside.
    """
    mesh = explicit_mesh(like)
    leaves, treedef = jax.tree.flatten(arguments)
    if mesh is None or any(map(callable, leaves)):
        return function(*arguments)
    arrays = {i: x for i, x in enumerate(leaves) if isinstance(x, jax.Array)}

    def inside(arrays: dict[int, jax.Array]) -> T:
        given = [arrays.get(i, x) for i, x in enumerate(leaves)]
        made = function(*jax.tree.unflatten(treedef, given))
        # Eagerly, a constant lies on the first device, and JAX does not move it to the mesh.
        return on_the_mesh(made, arrays) if _is_eager(arrays) else made

    def place(x: Any) -> NamedSharding:
        sharding = x if isinstance(x, NamedSharding) else jax.typeof(x).sharding
        spec = sharding.spec if sharding.mesh == mesh else PartitionSpec()  # type: ignore[no-untyped-call]
        return NamedSharding(mesh, spec)

    run: Any = jax.sharding.auto_axes(inside, out_sharding=jax.tree.map(place, like))
    made: T = run(arrays)
    return made


def _is_eager(arrays: dict[int, jax.Array]) -> bool:
    return not any(isinstance(x, jax.core.Tracer) for x in arrays.values())


def divided_like(x: jax.Array, shape: tuple[int, ...], axes: Iterable[int]) -> NamedSharding:
    """How the explicit axes of the mesh that divide x may divide an array of this shape, whose axes
    correspond to these axes of x."""
    sharding = jax.typeof(x).sharding
    spec = full_spec(sharding.spec, x.ndim)
    found = [
        spec[axis] if n % parts_of(sharding.mesh, spec[axis]) == 0 else None
        for n, axis in zip(shape, axes, strict=True)
    ]
    return NamedSharding(sharding.mesh, PartitionSpec(*found))  # type: ignore[no-untyped-call]


def everywhere(tree: Any, ndim: int) -> NamedSharding | None:
    """The sharding with all of an array on every device of the tree's mesh, if that is explicit."""
    mesh = explicit_mesh(tree)
    spec = PartitionSpec(*[None] * ndim)  # type: ignore[no-untyped-call]
    return None if mesh is None else NamedSharding(mesh, spec)


def explicit_mesh(tree: Any) -> AbstractMesh | None:
    """The mesh that divides the arrays of a tree, if some of its axes are explicit."""
    if not hasattr(jax.sharding, "auto_axes"):
        return None
    for x in jax.tree.leaves(tree):
        if isinstance(x, jax.Array | NamedSharding):
            sharding: Any = x if isinstance(x, NamedSharding) else jax.typeof(x).sharding
            mesh: AbstractMesh = sharding.mesh
            if AxisType.Explicit in mesh.axis_types:
                return mesh
    return None
