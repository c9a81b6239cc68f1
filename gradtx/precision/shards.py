"""The kernel on a mesh: it runs on each shard of a leaf.

XLA's partitioner does not look into a kernel and would gather all of its arrays. It is told that
they may be divided as the leaf is: each of them has the leaf's axes.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gradtx.core.elementwise import Shape
from gradtx.precision.formats import FORMATS
from gradtx.precision.kernel import WIDTH, numbers_of, run_in_kernel, stretches
from gradtx.precision.moments import Given, Made, Moments, after_another

Kernel = Callable[..., Made]


def run_on_shards(what: Moments, given: Given, interpret: bool = False) -> Made:
    """`run_in_kernel` on each shard of the leaf, wherever a mesh divides it. interpret: run it
    without TPUs."""
    kernel: Kernel = functools.partial(run_in_kernel, what, interpret=interpret)
    if jax.device_count() == 1 or jax.sharding.get_abstract_mesh().manual_axes:
        return kernel(given)  # a whole leaf, or a shard of it in a shard_map
    forms = [form for form in (*what.reads, *what.makes) if form]
    smaller = any(form != FORMATS[form.name] for form in forms)  # so that shards hold whole ones
    if smaller or len(stretches(what.part.shape)) != len(what.part.shape):
        return after_another(what, given)

    # A partitioned function cannot be batched; under `vmap` it is the bare kernel.
    @jax.custom_batching.custom_vmap
    def run(given: Given) -> Any:
        return _partitioned(what, given, kernel)(given, numbers_of(what.part.shape))

    @run.def_vmap
    def batched(size: int, is_batched: Sequence[Any], given: Given) -> Any:
        axes = jax.tree.map(lambda yes: 0 if yes else None, is_batched[0])
        made = jax.vmap(kernel, in_axes=(axes,), axis_size=size)(given)
        return made, jax.tree.map(lambda _: True, made)

    made: Made = run(given)
    return made


def _partitioned(what: Moments, given: Given, kernel: Kernel) -> Any:
    """The kernel as a function of what it is given and of the leaf's `numbers_of`, which tell a
    shard where in the leaf it lies."""
    shape = what.part.shape

    @custom_partitioning
    def run(given: Given, numbers: jax.Array) -> Any:
        return kernel(given)

    def partition(mesh: Mesh, arguments: Any, results: Any) -> Any:
        given = arguments[0]
        of_first = jax.tree.leaves(given.arrays)[0].sharding
        divided = NamedSharding(of_first.mesh, _in_whole_stretches(shape, of_first))
        whole = NamedSharding(of_first.mesh, PartitionSpec())  # type: ignore[no-untyped-call]
        shardings = Given(
            jax.tree.map(lambda _: divided, given.arrays),
            *jax.tree.map(lambda _: whole, (given.scalars, given.keys, given.step_count)),
        )

        return mesh, kernel, jax.tree.map(lambda _: divided, results), (shardings, divided)

    made = jax.eval_shape(functools.partial(after_another, what), given)
    rule = _rule(shape, given, made)
    sizes = {f"of{n}": int(n) for n in re.findall(r" of(\d+)\)", rule)}
    define: Any = run.def_partition
    define(partition, sharding_rule=rule, need_replication_factors=tuple(sizes), **sizes)
    return run


def _in_whole_stretches(shape: Shape, sharding: NamedSharding) -> PartitionSpec:
    """The leaf's division, without axes that it would not cut evenly between stretches."""
    spec = (*sharding.spec, *[None] * (len(shape) - len(sharding.spec)))
    sizes = (*shape[:-1], shape[-1] // WIDTH if shape[-1] % WIDTH == 0 else 1)

    def parts(names: Any) -> int:
        names = (names,) if isinstance(names, str) else names or ()
        return math.prod(sharding.mesh.shape[name] for name in names)

    make_spec: Any = PartitionSpec
    made: PartitionSpec = make_spec(
        *[x if size % parts(x) == 0 else None for x, size in zip(spec, sizes, strict=True)]
    )
    return made


# -- which axes correspond, for the propagation of shardings ---------------------------------------


def _rule(shape: Shape, given: Given, made: Made) -> str:
    """The axes of all operands and results. The last of an array is the leaf's stretches, times
    what it has for each of them; if the last stretch is shorter, it cannot be divided."""
    leading = [f"axis{i}" for i in range(len(shape) - 1)]
    *_, in_row = stretches(shape)

    def array(x: Any) -> str:
        if shape[-1] % WIDTH:
            return " ".join([*leading, f"row{x.shape[-1]}"])
        of_each = x.shape[-1] // in_row
        last = "stretch" if of_each == 1 else f"(stretch of{of_each})"
        return " ".join([*leading, last])

    arrays = list(map(array, jax.tree.leaves(given.arrays)))
    keys = [f"key{i}" for i in range(len(given.keys))]
    numbers = " ".join([*leading, f"row{in_row}" if shape[-1] % WIDTH else "stretch"])
    operands = [*arrays, *["" for _ in given.scalars], *keys, "", numbers]
    return ", ".join(operands) + " -> " + ", ".join(map(array, jax.tree.leaves(made)))
