"""Counts of steps, for links that had none: the count of a neighbour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.tree_util import keystr

from gradtx.core.dtypes import is_random_key
from gradtx.interop.links import Slot


class Counted(NamedTuple):
    """The slot of a count, or of another value of a whole link, and its value."""

    slot: Slot
    value: jax.Array

    @property
    def steps(self) -> jax.Array:
        """The number of updates before."""
        return self.value - self.slot.first if self.slot.first else self.value


def neighbours(clock: Slot, kept: Sequence[Counted], old: Sequence[Counted]) -> list[Counted]:
    """The counts, all equal, that a new clock takes over; empty if there are none.

    Two counts go together if they are inside the same wrappers that skip steps. First come the old
    state's clocks, if they agree; then the nearest of the counts that were kept, since one that
    belongs to moments may have begun later than the run; then any count of the old state.

    Raises: ValueError if they have counted differently.
    """
    together = [x for x in old if x.slot.domain == clock.domain] or list(old)
    clocks = [x for x in together if x.slot.clock]
    if clocks and agree(clocks):
        return clocks
    for depth in reversed(range(len(clock.at) + 1)):
        near = [x for x in kept if x.slot.at[:depth] == clock.at[:depth]]
        if near := [x for x in near if x.slot.domain == clock.domain]:
            return _equal(clock, near)
    return _equal(clock, together)


def _equal(clock: Slot, counts: list[Counted]) -> list[Counted]:
    """The clocks among the counts or, if there are none, all of them."""
    counts = [x for x in counts if x.slot.clock] or counts
    check_equal(clock, counts)
    return counts


def agree(values: Sequence[Counted]) -> bool:
    """Whether values are equal, as far as they are known."""
    known = [x.steps for x in values if not isinstance(x.value, jax.core.Tracer)]
    if len(known) < 2 or is_random_key(known[0]):
        return True
    return all(np.array_equal(x, known[0]) for x in known)


def check_equal(new: Slot, counts: Sequence[Counted]) -> None:
    """Refuse counts, or other values of whole links, that differ."""
    if not agree(counts):
        shown = ", ".join(f"{keystr(x.slot.path)} {x.steps}" for x in counts)
        raise ValueError(
            f"migrate: {keystr(new.path)} would take over values that differ: {shown}. Make them "
            "equal before, with gradtx.tree.set, or start one of the groups afresh (reset=)"
        )
