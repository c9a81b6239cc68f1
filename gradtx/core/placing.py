"""Where a state lies: on the mesh of the parameters, and what is shaped like one where that lies.

An array that JAX makes lies on the first device, and moves to the mesh with the first step, which
is compiled for it once and for the next steps again.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from gradtx.core.dtypes import cast
from gradtx.core.state import OptState, Params


def on_the_mesh(state: OptState, params: Params) -> OptState:
    """The state with a copy of what lies elsewhere on every device of the params' mesh."""
    meshes = {mesh for x in jax.tree.leaves(params) if (mesh := _mesh_of(x)) is not None}
    if len(meshes) != 1:
        return state
    (mesh,) = meshes
    replicated = NamedSharding(mesh, PartitionSpec())  # type: ignore[no-untyped-call]

    def placed(x: Any) -> Any:
        there = not isinstance(x, jax.Array) or isinstance(x, jax.core.Tracer)
        return x if there or _mesh_of(x) == mesh else jax.device_put(x, replicated)

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


# -- dividing arrays -------------------------------------------------------------------------------


def mesh_of_types(x: Any) -> AbstractMesh | None:
    """The mesh of several devices that the type of a traced array names, whoever divides over it:
    an argument of `jit` has that of the array that was given. None if it names none."""
    if not isinstance(x, jax.core.Tracer):
        return None
    mesh: AbstractMesh = jax.typeof(x).sharding.mesh
    return None if mesh.empty or mesh.size == 1 else mesh


def laid(x: Any, mesh: Mesh | AbstractMesh, spec: PartitionSpec) -> Any:
    """x, divided over the mesh as spec says: eagerly and while a program is traced."""
    sharding = NamedSharding(mesh, spec)
    if not isinstance(x, jax.core.Tracer):
        return jax.device_put(x, sharding)
    if AxisType.Explicit in mesh.axis_types:
        return _reshard(x, sharding)
    return lax.with_sharding_constraint(x, sharding)  # type: ignore[no-untyped-call]


def axes_of(names: Any) -> tuple[str, ...]:
    """The axes of a mesh over which one axis of an array is divided: an element of its spec."""
    if names is None or names is PartitionSpec.UNCONSTRAINED:
        return ()
    return (names,) if isinstance(names, str) else tuple(names)


def parts_of(mesh: Mesh | AbstractMesh, names: Any) -> int:
    """Into how many parts an element of a spec cuts an axis."""
    return math.prod(mesh.shape[name] for name in axes_of(names))


def spread(
    mesh: Mesh | AbstractMesh, spec: PartitionSpec, shape: tuple[int, ...], axes: tuple[str, ...]
) -> PartitionSpec:
    """The spec divided over these axes of the mesh too, those that it does not use yet: of the
    array's own axes the longest, first among those that are whole. As it is if none divides."""
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
    make: Any = PartitionSpec
    made: PartitionSpec = make(*given)
    return made


def _find_reshard() -> Any:
    found = getattr(jax.sharding, "reshard", None)
    if found is None:  # its place until JAX 0.7
        found = importlib.import_module("jax.experimental.shard").reshard
    return found


_reshard: Any = _find_reshard()
