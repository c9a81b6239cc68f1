"""How parameters are divided, as types or users say: XLA for TPU does not say it itself.

Types with explicit axes say it, and so does what a user tells `gradtx.sharding`. A rule that
computes on matrices asks about its leaves, by path, while it is traced. The answer only decides how
numbers travel: they travel further if the arrays lie otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, PartitionSpec

from gradtx.core.leaves import Leaves

# By path, the shape of a parameter and its spec.
Table = Mapping[str, tuple[tuple[int, ...], PartitionSpec]]
_TOLD: ContextVar[Table | None] = ContextVar("told", default=None)


@contextmanager
def telling(leaves: Leaves, specs: Sequence[PartitionSpec | None]) -> Iterator[None]:
    """Tell what is traced inside how leaves of these paths and shapes are divided; None says
    nothing about a leaf."""
    known = zip(leaves.paths, leaves.values, specs, strict=True)
    token = _TOLD.set({path: (np.shape(x), spec) for path, x, spec in known if spec is not None})
    try:
        yield
    finally:
        _TOLD.reset(token)


@contextmanager
def telling_types(tree: Any) -> Iterator[None]:
    """Tell what is traced inside what the types of a tree say, where all mesh axes are explicit."""
    leaves = Leaves.of(tree)
    with telling(leaves, list(map(_spec_of_type, leaves.values))):
        yield


def told(leaves: Leaves) -> list[PartitionSpec | None]:
    """How each leaf is divided; None where nobody said it."""
    known = _TOLD.get()
    if not known:
        return [None] * len(leaves.values)
    found = (known.get(path, (None, None)) for path in leaves.paths)
    return [
        spec if x is not None and np.shape(x) == shape else None
        for x, (shape, spec) in zip(leaves.values, found, strict=True)
    ]


def _spec_of_type(x: Any) -> PartitionSpec | None:
    if not isinstance(x, jax.Array):
        return None
    sharding = jax.typeof(x).sharding
    return sharding.spec if {*sharding.mesh.axis_types} == {AxisType.Explicit} else None
