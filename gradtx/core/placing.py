"""Where a state lies: on the mesh of the parameters, and what is shaped like one where that lies.

An array that JAX makes lies on the first device, and moves to the mesh with the first step, which
is compiled for it once and for the next steps again.
"""

from __future__ import annotations

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
