"""Numbers that XLA does not know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import lax


def opaque(numbers: Sequence[Any], beside: Any) -> list[Any]:
    """The numbers as scalars whose values XLA does not write into the loops that read them.

    It compiles loops of one text once. With a number of its own in it, such as its place in a
    batch, its key or its group's rate, each leaf's loop would be compiled for itself. The barrier
    is there until XLA no longer folds constants; what stands beside the number keeps the array from
    being taken for a scalar or a sequence.

    beside: an array that they are used with. If that is not traced nothing is hidden.
    """
    if not isinstance(beside, jax.core.Tracer):
        return list(numbers)
    arrays = [np.asarray([number, 0, 1, 0], np.asarray(number).dtype) for number in numbers]
    kept = lax.optimization_barrier(arrays)  # type: ignore[no-untyped-call]
    return [lax.squeeze(lax.slice(array, (0,), (1,)), (0,)) for array in kept]
