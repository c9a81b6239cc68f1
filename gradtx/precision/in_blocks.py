"""A leaf's rules, run on its stored moments in one pass: decode, update and encode again.

A block's scale depends on the whole block and is needed to encode its first number, so compilers
keep a float32 moment in between. `in_blocks` runs the rules inside the blocks instead. It does so
with the part of the rules' jaxpr that works element by element.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import jax
from jax import lax

from gradtx.core.meshes.manual import each_shard
from gradtx.precision.moments import Given, Made, Moments, after_another
from gradtx.precision.twice import can_run_twice, run_twice


@partial(jax.jit, static_argnums=0)
def in_blocks(what: Moments, given: Given) -> Made:
    """The new moments, stored, and the other results of the part.

    Jitted so that leaves of equal shape share its trace.
    """
    with each_shard():
        return _on_platform(what, given)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _on_platform(what: Moments, given: Given) -> Made:
    whole = partial(after_another, what)
    if any(map(_is_divided, jax.tree.leaves(given))):
        return whole(given)
    gpu = partial(run_twice, what) if can_run_twice(what, given) else whole
    tpu = (_kernel(what, given) if what.kernel else None) or whole
    return lax.platform_dependent(given, cuda=gpu, rocm=gpu, tpu=tpu, default=whole)


def _is_divided(x: jax.Array) -> bool:
    """Whether the type of an array says how a mesh divides it. Reshaping such an array requires
    saying how the result is divided."""
    return any(axis is not None for axis in jax.typeof(x).sharding.spec)


def _is_on_a_mesh(given: Given) -> bool:
    """Whether arrays lie on a mesh of several devices, outside of a `jax.shard_map`."""
    manual = jax.sharding.get_abstract_mesh().manual_axes
    return not manual and any(
        jax.typeof(x).sharding.mesh.size > 1 for x in jax.tree.leaves(given.arrays)
    )


def load_kernel() -> ModuleType:
    """The form for TPU. Pallas takes longer to import than all of gradtx. Imported during the first
    trace of a step, it makes JAX 0.12 and later trace and compile the step a second time, because
    it adds to the settings that a trace depends on."""
    return importlib.import_module("gradtx.precision.kernel")


def _kernel(what: Moments, given: Given) -> Callable[[Given], Made] | None:
    """The form for TPU, if there is one."""
    module = load_kernel()
    # XLA for TPU does not divide a kernel: it would send the whole leaf to each device. In a
    # `jax.shard_map` the leaf is a shard.
    if _is_on_a_mesh(given) or not module.can_run_in_kernel(what, given):
        return None
    return partial(module.run_in_kernel, what)


@_on_platform.defjvp
def _derivative(what: Moments, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    return jax.jvp(partial(after_another, what), primals, tangents)
