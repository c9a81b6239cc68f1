"""Meshes of eight devices, and parameters on them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

P: Any = PartitionSpec  # which JAX leaves untyped

SHAPES = {"w": (8, 16), "b": (16,), "s": ()}
SPECS = {
    "8": {"w": P("data", None), "b": P("data"), "s": P()},
    "2x4": {"w": P("data", "model"), "b": P("model"), "s": P()},
}


def mesh_of(name: str) -> Mesh:
    """The mesh "8", of one axis, or "2x4", of two."""
    sizes = tuple(map(int, name.split("x")))
    return Mesh(np.asarray(jax.devices()[:8]).reshape(sizes), ("data", "model")[: len(sizes)])


def abstract(mesh: Mesh) -> AbstractMesh:
    return AbstractMesh(tuple(mesh.shape.values()), tuple(mesh.shape.keys()))


def placed(mesh: Mesh, specs: Any, shapes: Any = None) -> Any:
    """Parameters of these shapes on the mesh."""
    rng = np.random.default_rng(0)

    def leaf(shape: Any, spec: Any) -> Any:
        x = jnp.asarray(rng.uniform(0.5, 2, shape), jnp.float32)
        return jax.device_put(x, NamedSharding(mesh, spec))

    shapes = shapes or SHAPES
    return {name: leaf(shapes[name], specs[name]) for name in shapes}


def same_places(got: Any, expected: Any) -> list[str]:
    """Where two trees of arrays or shardings lie differently."""
    wrong = []
    pairs = zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected), strict=True)
    for (path, x), y in pairs:
        mine, its, ndim = sharding(x), sharding(y), max(rank(x), rank(y))
        if not mine.is_equivalent_to(its, ndim):
            wrong.append(f"{jax.tree_util.keystr(path)}: {mine} instead of {its}")
    return wrong


def sharding(x: Any) -> Any:
    return x if isinstance(x, NamedSharding) else x.sharding


def rank(x: Any) -> int:
    return getattr(x, "ndim", 0)
