"""Scalars that XLA cannot constant-fold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import lax


def opaque(numbers: Sequence[Any], beside: jax.Array | None) -> list[Any]:
    """The numbers as scalars whose values XLA does not write into the loops that read them.

    XLA compiles loops with the same text only once. A constant in the text that is particular to a
    leaf, such as its offset in a batch, its random key or its group's learning rate, would make it
    compile one loop per leaf.

    beside: an array that the numbers are used with. Unless it is traced, they are returned as they
    are.
    """
    if not isinstance(beside, jax.core.Tracer):
        return list(numbers)
    # The barrier outlasts XLA's constant folding. The other elements keep XLA from recognising the
    # array as a broadcast scalar or an iota.
    arrays = [np.asarray([number, 0, 1, 0], np.asarray(number).dtype) for number in numbers]
    kept = lax.optimization_barrier(arrays)  # type: ignore[no-untyped-call]
    return [lax.squeeze(lax.slice(array, (0,), (1,)), (0,)) for array in kept]
