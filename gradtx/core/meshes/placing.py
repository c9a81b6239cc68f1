"""Where a state lies: on the mesh of the parameters, and like a parameter where shaped like one.

An array that JAX makes lies on the first device, and would move to the mesh in the first step. The
step would then be compiled twice: for the first call, and again for the next ones.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from gradtx.core.dtypes import cast
from gradtx.core.state import OptState, Params, fields_of_factors, is_named_tuple


def on_the_mesh(state: OptState, params: Params) -> OptState:
    """The state, with what lies elsewhere copied to every device of the params' mesh, even if it
    has only one: to `jit`, a mesh of one device is a different place from the device."""
    leaves = jax.tree.leaves(params)
    traced = next((x for x in leaves if mesh_of_types(x, least=1) is not None), None)
    if traced is not None:
        return _in_its_program(state, traced)
    meshes = {mesh for x in leaves if (mesh := mesh_at(x, least=1)) is not None}
    if len(meshes) != 1:
        return state
    (mesh,) = meshes
    explicit = AxisType.Explicit in mesh.axis_types

    def placed(x: Any) -> Any:
        if not isinstance(x, jax.Array) or isinstance(x, jax.core.Tracer):
            return x
        there = mesh_at(x, least=1) == mesh
        if there and not explicit:
            return x
        # With explicit axes, an entry for each axis of x, as JAX writes it: another spelling is
        # another type, for which the second step would compile again.
        sharding: Any = x.sharding
        spec = sharding.spec if there else ()
        spec = full_spec(spec, x.ndim) if explicit else spec
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))  # type: ignore[no-untyped-call]

    return jax.tree.map(placed, state)


def _in_its_program(state: OptState, param: jax.Array) -> OptState:
    """The state, made by a program that needs the parameter: `jit` drops arguments that are not
    needed, and a program without an argument on a mesh runs on one device."""
    leaves, treedef = jax.tree.flatten(state)
    if not leaves:
        return state
    barrier: Any = lax.optimization_barrier
    leaves[0], _ = barrier((leaves[0], lax.stop_gradient(param)))
    return jax.tree.unflatten(treedef, leaves)


def mesh_at(x: Any, least: int = 2) -> Mesh | AbstractMesh | None:
    """The mesh of at least that many devices that an array lies on, as far as it can be seen."""
    if isinstance(x, jax.core.Tracer):
        return mesh_of_types(x, least)
    sharding = getattr(x, "sharding", None)
    if not isinstance(sharding, NamedSharding) or sharding.mesh.size < least:
        return None
    return sharding.mesh


def mesh_of_types(x: Any, least: int = 2) -> AbstractMesh | None:
    """The mesh of at least that many devices that the type of a traced array names, with automatic
    or explicit axes; None if it names none. An argument of `jit` has that of the array passed."""
    if not isinstance(x, jax.core.Tracer):
        return None
    mesh: AbstractMesh = jax.typeof(x).sharding.mesh
    return None if mesh.empty or mesh.size < least or mesh.manual_axes else mesh


def alike(x: jax.Array, like: jax.Array) -> jax.Array:
    """x, of the shape of `like`, placed where that lies also while a program is traced, in which
    XLA would give constants no place.

    It is a select, on a condition that XLA does not know, between x and `like`, which has a place.
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
    """x, of the shape of `like`, placed where that lies if it is on a mesh of several devices: XLA
    might divide x differently, having computed it from parts."""
    mesh = jax.typeof(like).sharding.mesh
    if mesh.size <= 1 or mesh.axis_types != (AxisType.Auto,) * len(mesh.axis_types):
        return x
    if isinstance(x, jax.core.Tracer) or isinstance(like, jax.core.Tracer):
        return alike(x, like)
    return x if x.sharding == like.sharding else jax.device_put(x, like.sharding)


def seen_alike(x: jax.Array, like: jax.Array) -> jax.Array:
    """`alike` if the type of `like` names a mesh, otherwise x as it is."""
    return x if mesh_of_types(like) is None else alike(x, like)


def trees_alike(state: OptState, params: Params) -> OptState:
    """A state made by an init, with each tree in it that is like the params placed where they lie,
    while a program is traced."""
    leaves, treedef = jax.tree.flatten(params)
    if not any(mesh_of_types(x) is not None for x in leaves):
        return state

    def is_like(tree: Any) -> bool:
        found, structure = jax.tree.flatten(tree)
        same: Any = structure
        return same == treedef and all(
            np.shape(x) == np.shape(y) for x, y in zip(found, leaves, strict=True)
        )

    def laid_out(tree: Any) -> Any:
        return jax.tree.map(_array_alike, tree, params) if is_like(tree) else tree

    return jax.tree.map(laid_out, state, is_leaf=is_like)


def _array_alike(x: Any, like: Any) -> Any:
    return seen_alike(jnp.asarray(x), like) if hasattr(x, "dtype") else x


# -- dividing arrays -------------------------------------------------------------------------------


def laid(x: Any, mesh: Mesh | AbstractMesh, spec: PartitionSpec) -> Any:
    """x, divided over the mesh as spec says: eagerly and while a program is traced."""
    typed = AxisType.Explicit in mesh.axis_types
    if typed:  # an entry for every axis, as in types
        make: Any = PartitionSpec
        spec = make(*spec, *[None] * (np.ndim(x) - len(spec)))
    sharding = NamedSharding(mesh, spec)
    if not isinstance(x, jax.core.Tracer):
        return jax.device_put(x, sharding)
    if typed:
        return _reshard(x, sharding)
    return lax.with_sharding_constraint(x, sharding)  # type: ignore[no-untyped-call]


def axes_of(names: Any) -> tuple[str, ...]:
    """The axes of a mesh that divide one axis of an array, from that element of its spec."""
    if names is None or names is PartitionSpec.UNCONSTRAINED:
        return ()
    return (names,) if isinstance(names, str) else tuple(names)


def parts_of(mesh: Mesh | AbstractMesh, names: Any) -> int:
    """The number of parts into which an element of a spec cuts an axis."""
    return math.prod(mesh.shape[name] for name in axes_of(names))


def spread(
    mesh: Mesh | AbstractMesh, spec: PartitionSpec, shape: tuple[int, ...], axes: tuple[str, ...]
) -> PartitionSpec:
    """The spec, divided also over these axes of the mesh unless it uses them already: along the
    longest axis of the array that they divide evenly, if possible an undivided one. Unchanged if
    there is none."""
    used = {name for names in spec for name in axes_of(names)}
    more = tuple(name for name in axes if name not in used)
    number = math.prod(mesh.shape[name] for name in more)
    given = [*spec, *[None] * (len(shape) - len(spec))]
    lengths = [n // parts_of(mesh, names) for n, names in zip(shape, given, strict=True)]
    fitting = [i for i, n in enumerate(lengths) if n and n % number == 0]
    if number == 1 or not fitting:
        return spec
    chosen = max(fitting, key=lambda i: (given[i] is None, lengths[i], -i))
    together = (*axes_of(given[chosen]), *more)
    given[chosen] = together[0] if len(together) == 1 else together
    while given[-1] is None:  # as JAX writes them
        given.pop()
    make: Any = PartitionSpec
    made: PartitionSpec = make(*given)
    return made


def parted(x: Any, like: Any) -> Any:
    """x, which is not shaped like a parameter, divided over the whole mesh that `like` lies on if
    it is a matrix; a vector is on every device.

    Its shape alone decides how, so that after a step it lies where it lay before: XLA would divide
    it like the arrays that it is computed from, and compile the next step again for that.
    """
    mesh = mesh_at(like)
    if mesh is None or len({*mesh.axis_types}) > 1 or AxisType.Manual in mesh.axis_types:
        return x
    return laid(x, mesh, parted_spec(np.shape(x), mesh))


def parted_spec(shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """How `parted` divides an array of this shape."""
    make: Any = PartitionSpec
    spec: PartitionSpec = make()
    if len(shape) > 1:
        for axis, _ in sorted(mesh.shape.items(), key=lambda item: -item[1]):
            spec = spread(mesh, spec, shape, (axis,))
    return spec


def factors_parted(own: OptState, like: Sequence[Any]) -> OptState:
    """A rule's state with its factors divided over the mesh that some of `like` lie on; factors of
    vectors, which are vectors themselves, lie like a vector of their length among `like`."""
    names = fields_of_factors(type(own)) if is_named_tuple(own) else ()
    on_mesh = [x for x in like if mesh_at(x) is not None]
    if not on_mesh or not names:
        return own
    vectors = {np.shape(x): x for x in reversed(on_mesh) if np.ndim(x) == 1}

    def placed(x: Any) -> Any:
        # A vector's factor is a diagonal, used with the vector element by element.
        own = vectors.get(np.shape(x))
        return parted(x, on_mesh[0]) if own is None else _beside(x, own)

    return own._replace(**{name: jax.tree.map(placed, getattr(own, name)) for name in names})


def _beside(x: Any, like: Any) -> Any:
    """x, placed where `like`, of the same shape and on a mesh, lies."""
    if not isinstance(like, jax.core.Tracer):
        return laid(x, like.sharding.mesh, like.sharding.spec)
    sharding = jax.typeof(like).sharding
    typed = AxisType.Explicit in sharding.mesh.axis_types
    return laid(x, sharding.mesh, sharding.spec) if typed else alike(x, like)


def _find_reshard() -> Any:
    found = getattr(jax.sharding, "reshard", None)
    if found is None:  # its place until JAX 0.7
        found = importlib.import_module("jax.experimental.shard").reshard
    return found


_reshard: Any = _find_reshard()


def shard_shape(x: jax.Array) -> tuple[int, ...]:
    """The shape of what each device of a mesh holds of an array, as far as that is known: while a
    program is traced, where the axes of the mesh are explicit."""
    sharding = jax.typeof(x).sharding if isinstance(x, jax.core.Tracer) else x.sharding
    if not isinstance(sharding, NamedSharding):
        return x.shape
    spec = full_spec(sharding.spec, x.ndim)
    return tuple(
        [-(-n // parts_of(sharding.mesh, names)) for n, names in zip(x.shape, spec, strict=True)]
    )


def full_spec(spec: Any, ndim: int) -> tuple[Any, ...]:
    """For each axis of an array the names of the mesh's axes that divide it."""
    return (*spec, *[None] * (ndim - len(spec)))
