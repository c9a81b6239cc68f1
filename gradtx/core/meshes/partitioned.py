"""Functions that a program runs on the shards of its arrays, however these are divided.

Under `jax.jit` nobody knows how an array is divided until XLA has decided. It then tells the
functions that it cannot partition by itself. In JAX's explicit mode the types of arrays say it.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
from jax import lax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun
from jax.interpreters import mlir
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

# Names of axes of a mesh, those that divide into the largest parts first, and their sizes.
Names = tuple[str, ...]
Sizes = Mapping[str, int]
Arrays = list[jax.Array]

_spec: Any = PartitionSpec


class Division(tuple[Names, ...]):
    """For each axis of an array, the axes of a mesh that divide it."""

    @classmethod
    def of(
        cls, shape: Sequence[int], made: Sequence[int], spec: PartitionSpec, sizes: Sizes
    ) -> Division:
        """As the spec of an array says, without mesh axes that would not divide it evenly and
        those along axes whose length differs in the result, which has the shape `made`."""
        divided = []
        for n, m, given in itertools.zip_longest(shape, made, spec):
            names = (given,) if isinstance(given, str) else given or ()
            names = tuple(name for name in names if sizes.get(name, 1) > 1)
            while (n != m and names) or n % number_of(names, sizes):
                names = names[:-1]
            divided.append(names)
        return cls(divided)

    @property
    def names(self) -> Names:
        """All mesh axes that divide the array."""
        return tuple(itertools.chain(*self))

    def whole(self, shard: Sequence[int], sizes: Sizes) -> tuple[int, ...]:
        """The shape of an array of which a device has a shard of this shape."""
        return tuple(n * number_of(names, sizes) for n, names in zip(shard, self, strict=True))

    @property
    def spec(self) -> PartitionSpec:
        """The division as JAX writes it."""
        spec: PartitionSpec = _spec(
            *(names[0] if len(names) == 1 else names or None for names in self)
        )
        return spec


def number_of(names: Names, sizes: Sizes) -> int:
    """How many devices lie along these axes of a mesh."""
    return math.prod(sizes[name] for name in names)


# A function of arrays that may be divided, and of others that every device has. It returns an array
# for each of the former, with axes that correspond to its axes.
Whole = Callable[[Arrays, Arrays], Arrays]
# The same for a device's shards, given also how each array is divided, and the sizes of mesh axes.
OnShards = Callable[[Arrays, Arrays, Sequence[Division], Sizes], Arrays]


_ALONE: ContextVar[bool] = ContextVar("alone", default=False)


@contextmanager
def on_one_device() -> Iterator[None]:
    """What is traced inside is for whole arrays on one device, whatever mesh the other arrays that
    it reads lie on."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def mesh_of(arrays: Sequence[jax.Array]) -> AbstractMesh | Mesh | None:
    """The mesh of several devices on which the arrays of a program may be divided.

    None if there is none, or one with axes of several types. In an eager step each operation is a
    program of its own, and there is a mesh only if the types of its arrays say how it divides them.
    """
    meshes = {mesh for x in arrays if (mesh := jax.typeof(x).sharding.mesh).size > 1}
    if len(meshes) != 1 or _ALONE.get():
        return None
    (mesh,) = meshes
    kinds = {*mesh.axis_types}
    traced = any(isinstance(x, jax.core.Tracer) for x in arrays)
    return mesh if kinds == {AxisType.Explicit} or (traced and kinds == {AxisType.Auto}) else None


def run_on_shards(
    on_shards: OnShards,
    whole: Whole,
    hinted: Whole,
    arrays: Arrays,
    others: Arrays,
    mesh: AbstractMesh | Mesh,
    told: Sequence[PartitionSpec | None],
) -> Arrays:
    """whole(arrays, others), computed by on_shards, which may send numbers between devices.

    XLA for TPU does not partition functions in this way and does not say how arrays are divided.
    told: how each array is divided, None where nobody said it. hinted: the same function, for a TPU
    where that is not known of all arrays.
    """
    shaped: Any = jax.ShapeDtypeStruct  # which JAX leaves untyped
    untyped = jax.tree.map(lambda x: shaped(x.shape, x.dtype), (arrays, others))
    made = jax.eval_shape(whole, *untyped)

    def divisions(specs: Sequence[PartitionSpec], sizes: Sizes) -> list[Division]:
        return [
            Division.of(x.shape, y.shape, spec, sizes)
            for x, y, spec in zip(arrays, made, specs, strict=True)
        ]

    def of_known(specs: Sequence[PartitionSpec]) -> Whole:
        divided = divisions(specs, mesh.shape)
        placed = [own.spec for own in divided]
        known: Whole = jax.shard_map(
            lambda arrays, others: on_shards(arrays, others, divided, mesh.shape),
            mesh=mesh,
            in_specs=(placed, [_spec()] * len(others)),
            out_specs=placed,
            check_vma=False,
        )
        return known

    if mesh.axis_types[0] == AxisType.Explicit:
        return of_known([jax.typeof(x).sharding.spec for x in arrays])(arrays, others)

    elsewhere = _for_transformations(
        _partitioned(on_shards, whole, divisions, arrays, others, made), whole
    )
    specs = [spec for spec in told if spec is not None]
    on_tpu = hinted
    if len(specs) == len(arrays):
        on_tpu = _for_transformations(of_known(specs), hinted)
    results: Arrays = lax.platform_dependent(arrays, others, tpu=on_tpu, default=elsewhere)
    return results


def _partitioned(
    on_shards: OnShards,
    whole: Whole,
    divisions: Callable[[Sequence[PartitionSpec], Sizes], list[Division]],
    arrays: Arrays,
    others: Arrays,
    made: Arrays,
) -> Whole:
    """on_shards as a function that XLA partitions: XLA says how it has divided the arrays."""

    @custom_partitioning
    def run(arrays: Arrays, others: Arrays) -> Arrays:
        return jax.jit(whole)(arrays, others)

    def partition(mesh: Mesh, arguments: Any, results: Any) -> Any:
        shardings = [x.sharding for x in arguments[0]]
        own = shardings[0].mesh if shardings else mesh
        divided = divisions([x.spec for x in shardings], own.shape)
        placed = [NamedSharding(own, x.spec) for x in divided]
        copies = [NamedSharding(own, _spec()) for _ in others]

        def each(arrays: Arrays, others: Arrays) -> Arrays:
            return _without_callers(
                lambda arrays, others: on_shards(arrays, others, divided, own.shape), arrays, others
            )

        return own, each, placed, (placed, copies)

    def infer(mesh: Mesh, arguments: Any, results: Any) -> Any:
        return [x.sharding for x in arguments[0]]

    rule, kept = _rule(arrays, others, made)
    define: Any = run.def_partition
    # JAX 0.6 has no such argument. `partition` still says so, and XLA gathers there.
    known = "need_replication_factors" in inspect.signature(define).parameters
    whole_axes = {"need_replication_factors": kept} if known else {}
    define(partition, infer, sharding_rule=rule, **whole_axes)
    partitioned: Whole = run
    return partitioned


# -- where operations come from --------------------------------------------------------------------


def _without_callers(function: Whole, arrays: Arrays, others: Arrays) -> Arrays:
    """function(arrays, others), whose operations record where they were written but not who called.

    XLA puts what a partitioner makes into a program that numbers callers differently. Then callers
    may seem to call each other in a circle, which the compiler of jaxlib 0.10 follows forever.
    """
    given = jax.tree.leaves((arrays, others))
    flat = jax.make_jaxpr(function)(arrays, others)
    return list(_callers_left_out().bind(*given, jaxpr=flat))


@functools.cache
def _callers_left_out() -> Any:
    """A primitive that evaluates a jaxpr on arrays."""

    def lowered(context: Any, *given: Any, jaxpr: ClosedJaxpr) -> Any:
        lower = mlir.lower_fun(jaxpr_as_fun(jaxpr), multiple_results=True)
        before = getattr(jax.config, _CALLERS)
        jax.config.update(_CALLERS, False)  # type: ignore[no-untyped-call]
        try:
            return lower(context, *given)
        finally:
            jax.config.update(_CALLERS, before)  # type: ignore[no-untyped-call]

    same: Any = Primitive("callers_left_out")
    same.multiple_results = True
    same.def_abstract_eval(lambda *_, jaxpr: jaxpr.out_avals)
    mlir.register_lowering(same, lowered)
    return same


_CALLERS = "jax_include_full_tracebacks_in_locations"


# -- for custom_partitioning -----------------------------------------------------------------------


def _rule(arrays: Arrays, others: Arrays, made: Arrays) -> tuple[str, tuple[str, ...]]:
    """The sharding rule, which names a factor for each axis of arguments and results, and those
    factors that cannot be divided."""
    whole = []

    def undivided(name: str) -> str:
        whole.append(name)
        return name

    operands = [" ".join(f"of{i}axis{k}" for k in range(x.ndim)) for i, x in enumerate(arrays)]
    results = [
        " ".join(
            f"of{i}axis{k}" if n == m else undivided(f"made{i}axis{k}")
            for k, (n, m) in enumerate(zip(x.shape, y.shape, strict=True))
        )
        for i, (x, y) in enumerate(zip(arrays, made, strict=True))
    ]
    copies = [
        " ".join(undivided(f"other{i}axis{k}") for k in range(x.ndim)) for i, x in enumerate(others)
    ]
    return ", ".join(operands + copies) + " -> " + ", ".join(results), tuple(whole)


def _for_transformations(run: Whole, whole: Whole) -> Whole:
    """run, or `whole` where it is mapped or differentiated: a partitioned function can be neither,
    and a function on shards would be given the divisions of other arrays."""

    @jax.custom_batching.custom_vmap
    def mapped(arrays: Arrays, others: Arrays) -> Arrays:
        return run(arrays, others)

    @mapped.def_vmap
    def rule(size: int, is_batched: Any, arrays: Arrays, others: Arrays) -> Any:
        axes = jax.tree.map(lambda yes: 0 if yes else None, is_batched)
        made = jax.vmap(whole, in_axes=tuple(axes), axis_size=size)(arrays, others)
        return made, jax.tree.map(lambda _: True, made)

    @jax.custom_jvp
    def differentiated(arrays: Arrays, others: Arrays) -> Arrays:
        return mapped(arrays, others)

    @differentiated.defjvp
    def derivative(primals: Any, tangents: Any) -> Any:
        return jax.jvp(whole, primals, tangents)

    return differentiated
