"""One call of an expensive function for many leaves of equal shape."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core.opaque import opaque
from gradtx.core.partitioned import Arrays, Division, Sizes, mesh_of, run_on_shards
from gradtx.core.spread import DECOMPOSITION, Plan, Work

# The elements of a batch, unless one operand alone has more. Batches save kernels where operands
# are small. Large ones keep a device busy one by one, and a batch of them is a copy that lives as
# long as the whole function runs, with what the function makes of it.
LARGEST = 2**24

# Of an array (n, ...) and of arguments that are no batches: n results.
Function = Callable[..., jax.Array]


def in_batches(
    function: Function,
    operands: Sequence[jax.Array | None],
    *given: Any,
    work: Work = DECOMPOSITION,
) -> list[jax.Array | None]:
    """function(operand, *given) for each operand, in one call for those whose shapes agree after
    the first axis, or in a few if together they have more than `LARGEST` elements.

    function: maps an array (n, ...) to one of n results, treating each of the n alike, such as a
    product of matrices, a decomposition or an iteration. operands: arrays (n, ...) with any n, to
    be concatenated; None and empty arrays are returned as they are. given: trees; a function must
    not use traced arrays but these. work: what the function does, which decides how matrices that
    are divided among devices are computed on.
    """
    present = [i for i, x in enumerate(operands) if x is not None and x.size]
    arrays = [x for i in present if (x := operands[i]) is not None]
    leaves, structure = jax.tree.flatten(given)
    traced = [i for i, x in enumerate(leaves) if isinstance(x, jax.Array)]

    def with_given(function: Function, others: Sequence[jax.Array]) -> Function:
        every = dict(enumerate(leaves)) | dict(zip(traced, others, strict=True))
        again = jax.tree.unflatten(structure, every.values())
        return lambda batch, **named: function(batch, *again, **named)

    def whole(arrays: Arrays, others: Arrays) -> Arrays:
        return _on_one_device(with_given(function, others), arrays)

    def on_shards(
        arrays: Arrays, others: Arrays, divisions: Sequence[Division], sizes: Sizes
    ) -> Arrays:
        return _on_a_mesh(with_given(function, others), arrays, divisions, sizes, work)

    others = [leaves[i] for i in traced]
    mesh = mesh_of(arrays)
    if mesh is None:
        results = whole(arrays, others)
    else:
        results = run_on_shards(on_shards, whole, arrays, others, mesh)
    made = list(operands)
    for i, x in zip(present, results, strict=True):
        made[i] = x
    return made


def _on_one_device(function: Function, operands: Sequence[jax.Array]) -> Arrays:
    made = list(operands)
    equal: dict[tuple[tuple[int, ...], np.dtype], list[int]] = {}
    for i, x in enumerate(operands):
        equal.setdefault((x.shape[1:], np.dtype(x.dtype)), []).append(i)
    for members in [batch for own in equal.values() for batch in _divided(own, operands)]:
        stacked = [operands[i] for i in members]
        done = function(jnp.concatenate(stacked))
        for i, part in zip(members, parts(done, [len(x) for x in stacked]), strict=True):
            made[i] = part
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


# -- on the devices of a mesh ----------------------------------------------------------------------


def _on_a_mesh(
    function: Function,
    shards: Sequence[jax.Array],
    divisions: Sequence[Division],
    sizes: Sizes,
    work: Work,
) -> Arrays:
    """What a device makes of its shards of the operands: of those that are divided alike in
    batches, which lie as the best plan says for the time of the computation."""
    made: list[Arrays] = [[] for _ in shards]
    equal: dict[tuple[Division, tuple[int, ...], np.dtype], list[int]] = {}
    for i, (x, division) in enumerate(zip(shards, divisions, strict=True)):
        equal.setdefault((division, x.shape[1:], np.dtype(x.dtype)), []).append(i)
    for (division, shape, _), members in equal.items():
        lengths = [len(shards[i]) for i in members]
        plan = Plan.best(division, sizes, sum(lengths), division.whole(shape, sizes), work)
        own = functools.partial(function, over=plan.over) if plan.over else function
        for batch in _pieces(lengths, LARGEST // math.prod(shape), plan.takers):
            stacked = jnp.concatenate([shards[members[k]][i:j] for k, i, j in batch])
            missing = -len(stacked) % plan.takers
            x = plan.there(jnp.pad(stacked, ((0, missing), (0, 0), (0, 0))) if missing else stacked)
            few = jnp.array_split(x, min(len(x), -(-x.size // LARGEST)))
            done = plan.back(jnp.concatenate([own(part) for part in few]))[: len(stacked)]
            for (k, *_), part in zip(batch, parts(done, [j - i for _, i, j in batch]), strict=True):
                made[members[k]].append(part)
    return [jnp.concatenate(own) for own in made]


def _pieces(lengths: Sequence[int], most: int, multiple: int) -> list[list[tuple[int, int, int]]]:
    """Arrays of these lengths in batches of about equal lengths, multiples of a number and if
    possible at most `most`: for each piece which array it is of, its start and its end."""
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
