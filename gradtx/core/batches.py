"""An expensive function of arrays of equal shape as one call, across leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core.opaque import opaque


def in_batches(
    function: Callable[[jax.Array], jax.Array], operands: Sequence[jax.Array | None]
) -> list[jax.Array | None]:
    """function(operand) of each, by one call for all whose shapes differ in the first axis alone.

    function: of an array (n, ...), where it does the same to each of the n; such as a product of
    matrices, a decomposition or an iteration. operands: of such arrays, which are what is stacked;
    None, and an operand without elements, stays.
    """
    made = list(operands)
    batches: dict[tuple[tuple[int, ...], np.dtype], list[int]] = {}
    for i, x in enumerate(operands):
        if x is not None and x.size:
            batches.setdefault((x.shape[1:], np.dtype(x.dtype)), []).append(i)
    for members in batches.values():
        stacked = [x for i in members if (x := operands[i]) is not None]
        done = function(jnp.concatenate(stacked))
        for i, part in zip(members, parts(done, [len(x) for x in stacked]), strict=True):
            made[i] = part
    return made


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
