"""One call of an expensive function for many leaves of equal shape, and how it takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap

from gradtx.core.opaque import opaque

# The elements of a batch, unless one operand alone has more. Batches save kernels where operands
# are small. Large ones keep a device busy one by one, and a batch of them is a copy that lives as
# long as the whole function runs, with what the function makes of it.
LARGEST = 2**24


def in_batches(
    function: Callable[[jax.Array], jax.Array], operands: Sequence[jax.Array | None]
) -> list[jax.Array | None]:
    """function(operand) for each operand, in one call for those whose shapes agree after the first
    axis, or in a few if together they have more than `LARGEST` elements.

    function: maps an array (n, ...) to one of n results, treating each of the n alike, such as a
    product of matrices, a decomposition or an iteration. operands: arrays (n, ...) with any n, to
    be concatenated; None and empty arrays are returned as they are.
    """
    made = list(operands)
    equal: dict[tuple[tuple[int, ...], np.dtype], list[int]] = {}
    for i, x in enumerate(operands):
        if x is not None and x.size:
            equal.setdefault((x.shape[1:], np.dtype(x.dtype)), []).append(i)
    for members in [batch for own in equal.values() for batch in _divided(own, operands)]:
        stacked = [x for i in members if (x := operands[i]) is not None]
        done = function(jnp.concatenate(stacked))
        for i, part in zip(members, parts(done, [len(x) for x in stacked]), strict=True):
            made[i] = part
    return made


def one_by_one(function: Callable[[jax.Array], jax.Array], batch: jax.Array) -> jax.Array:
    """function(batch), which calls LAPACK, on CPU with one element of the batch at a time.

    jaxlib divides a batch among the threads of XLA, and has one of these threads wait for them: as
    many such calls at once as there are threads wait forever. It does not divide a single matrix.
    """

    def in_turn(x: jax.Array) -> jax.Array:
        made: jax.Array = lax.map(lambda matrix: function(matrix[None])[0], x)
        return made

    if len(batch) < 2:
        return function(batch)
    made: jax.Array = lax.platform_dependent(batch, cpu=in_turn, default=function)
    return made


def undifferentiated(function: Callable[[jax.Array], jax.Array], batch: jax.Array) -> jax.Array:
    """`one_by_one` also under `jax.vmap`, where batches of batches are a longer one. Derivatives
    treat the result as a constant."""

    @custom_vmap
    def run(x: jax.Array) -> jax.Array:
        return one_by_one(function, x)

    @run.def_vmap
    def run_longer(size: int, is_batched: list[bool], x: jax.Array) -> tuple[jax.Array, bool]:
        made = run(x.reshape(-1, *x.shape[2:]))
        return made.reshape(size, -1, *made.shape[1:]), True

    made: jax.Array = run(lax.stop_gradient(batch))
    return made


def _divided(members: list[int], operands: Sequence[jax.Array | None]) -> list[np.ndarray]:
    """The members of one shape in as few batches as `LARGEST` allows, of about equal lengths."""
    size = sum(x.size for i in members if (x := operands[i]) is not None)
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
