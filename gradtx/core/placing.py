"""Where a state lies: on the mesh of the parameters, and what is shaped like one where that lies.

An array that JAX makes lies on the first device, and moves to the mesh with the first step, which
is compiled for it once and for the next steps again.

Where the axes of a mesh are explicit, an update is left to XLA all the same: `on_auto_axes`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from gradtx.core.dtypes import cast
from gradtx.core.state import OptState, Params

T = TypeVar("T")


def on_the_mesh(state: OptState, params: Params) -> OptState:
    """The state with a copy of what lies elsewhere on every device of the params' mesh."""
    meshes = {mesh for x in jax.tree.leaves(params) if (mesh := _mesh_of(x)) is not None}
    if len(meshes) != 1:
        return state
    (mesh,) = meshes
    explicit = AxisType.Explicit in mesh.axis_types

    def placed(x: Any) -> Any:
        if not isinstance(x, jax.Array) or isinstance(x, jax.core.Tracer):
            return x
        there = _mesh_of(x) == mesh
        if there and not explicit:
            return x
        # With explicit axes, one for each axis of x, as JAX writes it: another spelling is another
        # type, for which the second step would compile again.
        sharding: Any = x.sharding
        spec = sharding.spec if there else ()
        spec = _full(spec, x.ndim) if explicit else spec
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))  # type: ignore[no-untyped-call]

    return jax.tree.map(placed, state)


def _mesh_of(x: Any) -> Mesh | AbstractMesh | None:
    """The mesh of several devices that an array lies on."""
    if not isinstance(x, jax.Array) or isinstance(x, jax.core.Tracer):
        return None
    sharding = x.sharding
    if not isinstance(sharding, NamedSharding) or len(sharding.device_set) == 1:
        return None
    return sharding.mesh


def alike(x: jax.Array, like: jax.Array) -> jax.Array:
    """x, of the shape of `like`, where that lies, also while a program is traced: XLA would give
    constants no place.

    It is a select whose condition XLA does not know, between x and what has a place.
    """
    if not isinstance(like, jax.core.Tracer) or not x.ndim:
        return x
    mesh = jax.typeof(like).sharding.mesh
    if any(kind != AxisType.Auto for kind in mesh.axis_types):
        return x  # the type of `like` says how it is divided, and so does that of x
    never = lax.optimization_barrier(jnp.zeros((), bool))  # type: ignore[no-untyped-call]
    there = lax.stop_gradient(like if jnp.iscomplexobj(x) else like.real)
    return lax.select(jnp.broadcast_to(never, x.shape), cast(there, x.dtype), x)


def kept_like(x: jax.Array, like: jax.Array) -> jax.Array:
    """x, of the shape of `like`, where that lies if it is on a mesh of several devices: XLA might
    divide otherwise what it has made of parts of it."""
    mesh = jax.typeof(like).sharding.mesh
    if mesh.size <= 1 or mesh.axis_types != (AxisType.Auto,) * len(mesh.axis_types):
        return x
    if isinstance(x, jax.core.Tracer) or isinstance(like, jax.core.Tracer):
        return alike(x, like)
    return x if x.sharding == like.sharding else jax.device_put(x, like.sharding)


def shard_shape(x: jax.Array) -> tuple[int, ...]:
    """The shape of what each device of a mesh holds of an array, as far as that is known: while a
    program is traced, where the axes of the mesh are explicit."""
    sharding = jax.typeof(x).sharding if isinstance(x, jax.core.Tracer) else x.sharding
    if not isinstance(sharding, NamedSharding):
        return x.shape
    spec = _full(sharding.spec, x.ndim)
    return tuple([-(-n // _parts(sharding, names)) for n, names in zip(x.shape, spec, strict=True)])


def _full(spec: Any, ndim: int) -> tuple[Any, ...]:
    """For each axis of an array the names of the mesh's axes that divide it."""
    return (*spec, *[None] * (ndim - len(spec)))


def _parts(sharding: NamedSharding, names: Any) -> int:
    """Into how many parts they divide it."""
    names = (names,) if isinstance(names, str) else names or ()
    return math.prod(sharding.mesh.shape[name] for name in names)


# -- meshes with explicit axes ---------------------------------------------------------------------


def on_auto_axes(function: Callable[..., T], arguments: tuple[Any, ...], like: Any) -> T:
    """function(*arguments); if explicit axes of a mesh divide them, with automatic axes inside and
    its results divided as `like`, a tree of the same structure, of arrays or shardings.

    What an operation on divided arrays makes may be divided in several ways, of which a program
    with explicit axes has to choose one for each operation. The results are known here: updates
    lie where the parameters do, and a state where it was. Functions that are given stay outside,
    with the arrays that they close over: nothing changes if there is one.
    """
    mesh = explicit_mesh(like)
    leaves, treedef = jax.tree.flatten(arguments)
    if mesh is None or any(map(callable, leaves)):
        return function(*arguments)
    arrays = {i: x for i, x in enumerate(leaves) if isinstance(x, jax.Array)}

    def inside(arrays: dict[int, jax.Array]) -> T:
        given = [arrays.get(i, x) for i, x in enumerate(leaves)]
        return function(*jax.tree.unflatten(treedef, given))

    def place(x: Any) -> NamedSharding:
        sharding = x if isinstance(x, NamedSharding) else jax.typeof(x).sharding
        spec = sharding.spec if sharding.mesh == mesh else PartitionSpec()  # type: ignore[no-untyped-call]
        return NamedSharding(mesh, spec)

    run: Any = jax.sharding.auto_axes(inside, out_sharding=jax.tree.map(place, like))
    made: T = run(arrays)
    return made


def divided_like(x: jax.Array, shape: tuple[int, ...], axes: Iterable[int]) -> NamedSharding:
    """How explicit axes of a mesh, which divide x, may divide an array of this shape whose axes are
    these of x."""
    sharding = jax.typeof(x).sharding
    spec = _full(sharding.spec, x.ndim)
    found = [
        spec[axis] if n % _parts(sharding, spec[axis]) == 0 else None
        for n, axis in zip(shape, axes, strict=True)
    ]
    return NamedSharding(sharding.mesh, PartitionSpec(*found))  # type: ignore[no-untyped-call]


def everywhere(tree: Any, ndim: int) -> NamedSharding | None:
    """Where all of an array is on every device of the tree's mesh, if its axes are explicit."""
    mesh = explicit_mesh(tree)
    spec = PartitionSpec(*[None] * ndim)  # type: ignore[no-untyped-call]
    return None if mesh is None else NamedSharding(mesh, spec)


def explicit_mesh(tree: Any) -> AbstractMesh | None:
    """The mesh, of which some axes are explicit, by which arrays of a tree are divided."""
    if not hasattr(jax.sharding, "auto_axes"):
        return None
    for x in jax.tree.leaves(tree):
        if isinstance(x, jax.Array | NamedSharding):
            sharding: Any = x if isinstance(x, NamedSharding) else jax.typeof(x).sharding
            mesh: AbstractMesh = sharding.mesh
            if AxisType.Explicit in mesh.axis_types:
                return mesh
    return None
