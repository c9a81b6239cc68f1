"""One call of an expensive function for many leaves of equal shape, and how they are batched."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap
from jax.sharding import AbstractMesh, Mesh, PartitionSpec
from jax.tree_util import PyTreeDef

from gradtx.core.meshes.matrix_plans import DECOMPOSITION, Hints, Plan, Work, expected
from gradtx.core.meshes.partitioned import (
    Arrays,
    Division,
    Sizes,
    mesh_of,
    run_on_shards,
)
from gradtx.core.opaque import opaque

# The most elements in a batch, unless one operand alone has more. Batches save kernel launches for
# small operands. Large ones keep a device busy one by one, and a batch of them is a copy that lives
# as long as the whole function runs, along with what the function computes from it.
LARGEST = 2**24

# Maps an array (n, ...), and arguments that are not batched, to n results.
Function = Callable[..., jax.Array]
Alike = TypeVar("Alike", bound=Hashable)


def in_batches(
    function: Function,
    operands: Sequence[jax.Array | None],
    *given: Any,
    work: Work = DECOMPOSITION,
    kinds: Sequence[Hashable] | None = None,
    specs: Sequence[PartitionSpec | None] | None = None,
) -> list[jax.Array | None]:
    """function(operand, *given) for each operand, in one call for those whose shapes agree after
    the first axis, or in a few if together they have more than `LARGEST` elements.

    function: maps an array (n, ...) to one of n results and treats each of the n alike, as a matrix
    product, a decomposition or an iteration does. operands: arrays (n, ...) with any n, to be
    concatenated; None and empty arrays are returned as they are. given: trees; the function must
    not use any other traced arrays. work: what the function does with each matrix, which decides
    how it is run on matrices that are divided among devices. specs: how each operand is divided,
    where that was declared (`told`). kinds: where it was not, operands of one kind are assumed to
    be divided alike.
    """
    present = [i for i, x in enumerate(operands) if x is not None and x.size]
    arrays = [x for i in present if (x := operands[i]) is not None]
    call, others = _Call.of(function, given, work)
    mesh = mesh_of(arrays)
    if mesh is None:
        results = call.whole(arrays, others)
    else:
        own = [None if kinds is None else kinds[i] for i in present]
        told = [None if specs is None else specs[i] for i in present]
        unseen = functools.partial(call.unseen, kinds=own, mesh=mesh)
        results = run_on_shards(call.on_shards, call.whole, unseen, arrays, others, mesh, told)
    made = list(operands)
    for i, x in zip(present, results, strict=True):
        made[i] = x
    return made


class _Call(NamedTuple):
    """A function of a batch and of given trees, whose arrays are passed separately: `others`."""

    function: Function
    rest: list[Any]
    structure: PyTreeDef
    work: Work

    @classmethod
    def of(cls, function: Function, given: Any, work: Work) -> tuple[_Call, Arrays]:
        """The call and its `others`."""
        leaves, structure = jax.tree.flatten(given)
        rest = [_MISSING if isinstance(x, jax.Array) else x for x in leaves]
        return cls(function, rest, structure, work), [x for x in leaves if isinstance(x, jax.Array)]

    def with_others(self, others: Arrays) -> Function:
        """The function of a batch alone."""
        left = iter(others)
        leaves = [next(left) if x is _MISSING else x for x in self.rest]
        given = jax.tree.unflatten(self.structure, leaves)
        return lambda batch, **named: self.function(batch, *given, **named)

    def whole(self, operands: Arrays, others: Arrays) -> Arrays:
        """The results for all operands, on one device or as XLA divides the work."""
        made, function = list(operands), self.with_others(others)
        for _, members in _equal(operands, [None] * len(operands)):
            for batch in _divided(members, operands):
                stacked = [operands[i] for i in batch]
                done = function(jnp.concatenate(stacked))
                for i, part in zip(batch, parts(done, [len(x) for x in stacked]), strict=True):
                    made[i] = part
        return made

    def on_shards(
        self, shards: Arrays, others: Arrays, divisions: Sequence[Division], sizes: Sizes
    ) -> Arrays:
        """The results for a device's shards of the operands: those divided alike form batches, laid
        out by the best plan while they are computed on."""
        made, function = list(shards), self.with_others(others)
        for division, members in _equal(shards, divisions):
            own = [shards[i] for i in members]
            _, *shape = division.whole(own[0].shape, sizes)
            plan = Plan.best(division, sizes, sum(map(len, own)), shape, self.work)
            named = functools.partial(function, over=plan.over) if plan.over else function

            def computed(x: jax.Array, plan: Plan = plan, function: Function = named) -> jax.Array:
                x = plan.there(x)
                few = jnp.array_split(x, min(len(x), -(-x.size // LARGEST)))
                return plan.back(jnp.concatenate(list(map(function, few))))

            most = LARGEST // math.prod(own[0].shape[1:])
            for i, x in zip(members, _in_pieces(computed, own, most, plan.takers), strict=True):
                made[i] = x
        return made

    def unseen(
        self,
        operands: Arrays,
        others: Arrays,
        kinds: Sequence[Hashable],
        mesh: AbstractMesh | Mesh,
    ) -> Arrays:
        """The results for operands whose division is not known: those of one kind form batches,
        laid out by constraints as would be best if they were divided as expected."""
        made, function = list(operands), self.with_others(others)
        ((width, _),) = Counter(n for x in operands for n in x.shape[1:]).most_common(1)
        for _, members in _equal(operands, kinds):
            own = [operands[i] for i in members]
            division = expected(own[0].shape, width, mesh.shape)
            _, *shape = own[0].shape
            plan = Plan.best(division, mesh.shape, sum(map(len, own)), shape, self.work)
            hints = Hints.like(plan, mesh)

            def computed(x: jax.Array, hints: Hints = hints) -> jax.Array:
                return hints.back(function(hints.there(x)))

            most = LARGEST * mesh.size // math.prod(shape)
            for i, x in zip(members, _in_pieces(computed, own, most, plan.takers), strict=True):
                made[i] = x
        return made


# Stands in for an array.
_MISSING = object()


# With more rows than this a GPU decomposes matrices one after another: for n matrices of up to
# 128 n rows jaxlib uses cuBLAS's batched QR, made for small ones. The limit is not measured.
_ROWS = 256


def one_by_one(function: Callable[[jax.Array], jax.Array], batch: jax.Array) -> jax.Array:
    """function(batch) for a function that calls LAPACK or the like: one element of the batch at a
    time on a CPU, and on a GPU if its matrices have more than `_ROWS` rows.

    On a CPU jaxlib divides a batch among XLA's threads, one of which waits for the others: as many
    such calls at once as there are threads deadlock. It does not divide a single matrix.
    """

    def in_turn(x: jax.Array) -> jax.Array:
        made: jax.Array = lax.map(lambda matrix: function(matrix[None])[0], x)
        return made

    if len(batch) < 2:
        return function(batch)
    gpu = in_turn if batch.shape[1] > _ROWS else function
    made: jax.Array = lax.platform_dependent(
        batch, cpu=in_turn, cuda=gpu, rocm=gpu, default=function
    )
    return made


def undifferentiated(function: Callable[[jax.Array], jax.Array], batch: jax.Array) -> jax.Array:
    """`one_by_one` that also works under `jax.vmap`, where a batch of batches becomes one longer
    batch. Derivatives treat the result as a constant."""

    @custom_vmap
    def run(x: jax.Array) -> jax.Array:
        return one_by_one(function, x)

    @run.def_vmap
    def run_longer(size: int, is_batched: list[bool], x: jax.Array) -> tuple[jax.Array, bool]:
        made = run(x.reshape(-1, *x.shape[2:]))
        return made.reshape(size, -1, *made.shape[1:]), True

    made: jax.Array = run(lax.stop_gradient(batch))
    return made


def _divided(members: list[int], operands: Sequence[jax.Array]) -> list[np.ndarray]:
    """The members of one shape in as few batches as `LARGEST` allows, of about equal lengths."""
    size = sum(operands[i].size for i in members)
    return np.array_split(members, min(len(members), -(-size // LARGEST)))


def parts(batch: jax.Array, lengths: Sequence[int]) -> list[jax.Array]:
    """The batch cut along its first axis into parts of these lengths."""
    if len(lengths) == 1:
        return [batch]
    offsets = opaque(list(np.cumsum([0, *lengths[:-1]], dtype=np.int32)), batch)
    zeros = [np.int32(0)] * (batch.ndim - 1)
    return [
        lax.dynamic_slice(
            batch, [offset, *zeros], (length, *batch.shape[1:]), allow_negative_indices=False
        )
        for offset, length in zip(offsets, lengths, strict=True)
    ]


def _equal(operands: Sequence[jax.Array], kinds: Sequence[Alike]) -> list[tuple[Alike, list[int]]]:
    """The operands grouped by kind, shape and dtype: the kind and the indices of each group."""
    equal: dict[tuple[Alike, tuple[int, ...], np.dtype], list[int]] = {}
    for i, (x, kind) in enumerate(zip(operands, kinds, strict=True)):
        equal.setdefault((kind, x.shape[1:], np.dtype(x.dtype)), []).append(i)
    return [(kind, members) for (kind, *_), members in equal.items()]


def _in_pieces(
    function: Function, operands: Sequence[jax.Array], most: int, multiple: int
) -> Arrays:
    """function(operand) for operands of equal shape, in batches of at most `most` matrices if
    possible, padded with zeros to a multiple of `multiple`."""
    made: list[Arrays] = [[] for _ in operands]
    for batch in _pieces([len(x) for x in operands], most, multiple):
        stacked = jnp.concatenate([operands[k][i:j] for k, i, j in batch])
        if missing := -len(stacked) % multiple:
            stacked = jnp.pad(stacked, ((0, missing), (0, 0), (0, 0)))
        done = function(stacked)[: len(stacked) - missing]
        for (k, *_), part in zip(batch, parts(done, [j - i for _, i, j in batch]), strict=True):
            made[k].append(part)
    return [jnp.concatenate(own) for own in made]


def _pieces(lengths: Sequence[int], most: int, multiple: int) -> list[list[tuple[int, int, int]]]:
    """Arrays of these lengths cut into batches of about equal lengths, multiples of `multiple` and
    if possible at most `most`: for each piece the index of its array, its start and its end."""
    total, most = sum(lengths), max(most // multiple, 1) * multiple
    each = -(-total // -(-total // most))
    each += -each % multiple
    batches: list[list[tuple[int, int, int]]] = [[] for _ in range(0, total, each)]
    place = 0
    for k, length in enumerate(lengths):
        start = 0
        while start < length:
            end = min(length, start + each - place % each)
            batches[place // each].append((k, start, end))
            place, start = place + end - start, end
    return batches
