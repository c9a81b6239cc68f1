"""Arrays of equal shape as one batch, and its parts again."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax import lax


def parts(batch: jax.Array, lengths: Sequence[int]) -> list[jax.Array]:
    """The batch cut along its first axis into parts of these lengths.

    XLA compiles loops of one text once. A slice at an offset that it knows is in the text of the
    loop that reads it, so that each part's would be compiled for itself; that of an offset in an
    array is the same for all. The barrier is there until XLA no longer folds constants; the other
    numbers of the array are there lest it be taken for one number or a sequence.
    """
    if len(lengths) == 1:
        return [batch]
    offsets = np.cumsum([0, *lengths[:-1]])
    arrays = [np.asarray([offset, -1, -1], np.int32) for offset in offsets]
    hidden = lax.optimization_barrier(arrays)  # type: ignore[no-untyped-call]
    zeros = [np.int32(0)] * (batch.ndim - 1)
    return [
        lax.dynamic_slice(
            batch,
            [lax.squeeze(lax.slice(offset, (0,), (1,)), (0,)), *zeros],
            (length, *batch.shape[1:]),
            allow_negative_indices=False,
        )
        for offset, length in zip(hidden, lengths, strict=True)
    ]
