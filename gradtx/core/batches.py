"""Arrays of equal shape as one batch, and its parts again."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax import lax

from gradtx.core.hidden import hidden


def parts(batch: jax.Array, lengths: Sequence[int]) -> list[jax.Array]:
    """The batch cut along its first axis into parts of these lengths."""
    if len(lengths) == 1:
        return [batch]
    offsets = hidden(list(np.cumsum([0, *lengths[:-1]], dtype=np.int32)), batch)
    zeros = [np.int32(0)] * (batch.ndim - 1)
    return [
        lax.dynamic_slice(
            batch, [offset, *zeros], (length, *batch.shape[1:]), allow_negative_indices=False
        )
        for offset, length in zip(offsets, lengths, strict=True)
    ]
