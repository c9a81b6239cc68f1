"""Inside `jax.shard_map`: the mesh axes that the function takes care of itself, its manual axes,
and over which of them a value differs from device to device."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import jax
from jax import lax
from jax.interpreters import mlir

if TYPE_CHECKING:
    from jax.extend.core import Primitive

T = TypeVar("T")


def manual_axes() -> Mapping[str, int]:
    """The manual mesh axes, with their sizes; none outside of `jax.shard_map`."""
    mesh = jax.sharding.get_abstract_mesh()
    return {name: mesh.shape[name] for name in mesh.manual_axes}


def varies_over(x: Any) -> frozenset[str]:
    """The manual axes over which a value, or an abstract value, may differ from device to device.

    None are known with `check_vma=False`.
    """
    aval = x if isinstance(x, jax.core.AbstractValue) else jax.typeof(x)
    newer: Any = getattr(aval, "manual_axis_type", None)  # from JAX 0.11 on
    found = newer.varying if newer is not None else getattr(aval, "vma", None)
    return found or frozenset()


def varying(x: jax.Array, axes: Iterable[str]) -> jax.Array:
    """The same value, typed as one that may differ over these axes too."""
    missing = tuple(sorted(frozenset(axes) - varies_over(x)))
    if not missing:
        return x
    known: Any = lax
    made: jax.Array = (
        known.pcast(x, missing, to="varying") if hasattr(lax, "pcast") else known.pvary(x, missing)
    )
    return made


def untyped(tree: T) -> T:
    """Inside `jax.shard_map`, the arrays with types that name no mesh: operations that were traced
    outside hold types of the mesh there, which JAX refuses to mix with those inside."""
    if not manual_axes():
        return tree
    made: T = jax.tree.map(_of_no_mesh().bind, tree)
    return made


@functools.cache
def _of_no_mesh() -> Primitive:
    from jax.extend.core import Primitive  # importing it earlier would import all of Pallas

    same = Primitive("of_no_mesh")
    same.def_abstract_eval(lambda x: jax.core.ShapedArray(x.shape, x.dtype))  # type: ignore[no-untyped-call]
    mlir.register_lowering(same, lambda _, x: [x])
    return same


# Names of scopes, which tell which transformation an operation belongs to, and that an operation is
# meant for each device's piece by itself.
SCOPE = "gradtx."
EACH_SHARD = "gradtx: each shard"


def named(name: str) -> AbstractContextManager[Any]:
    """A context in which operations that are traced inside `jax.shard_map` carry the name of their
    transformation."""
    return jax.named_scope(SCOPE + name) if manual_axes() else nullcontext()


def each_shard() -> AbstractContextManager[Any]:
    """A context for operations that combine elements and yet are right on any piece of an array."""
    return jax.named_scope(EACH_SHARD) if manual_axes() else nullcontext()


def barrier(tree: T) -> T:
    """`lax.optimization_barrier`, after which each array varies over the axes that it did before,
    and not over those of the others."""
    arrays, treedef = jax.tree.flatten(tree)
    alike: dict[frozenset[str], list[int]] = {}
    for i, x in enumerate(arrays):
        alike.setdefault(varies_over(x), []).append(i)
    made = list(arrays)
    for places in alike.values():
        kept = lax.optimization_barrier([arrays[i] for i in places])  # type: ignore[no-untyped-call]
        for i, x in zip(places, kept, strict=True):
            made[i] = x
    whole: T = jax.tree.unflatten(treedef, made)
    return whole
