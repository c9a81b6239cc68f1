"""Counts of steps, for links that had none: the count of a neighbour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.tree_util import keystr

from gradtx.core.leaves import KeyPath
from gradtx.interop.links import Slot


class Counted(NamedTuple):
    """A count in a state, and its value."""

    slot: Slot
    value: jax.Array

    @property
    def steps(self) -> jax.Array:
        """The number of updates before."""
        return self.value - self.slot.first if self.slot.first else self.value


def neighbour(clock: Slot, kept: Sequence[Counted], old: Sequence[Counted]) -> Counted | None:
    """The count that a new clock takes over, None if there is none.

    That is the nearest in the new state of those that were kept and count the same steps: are
    inside the same wrappers that skip steps. If there is none, it is one of the old state's.

    Raises: ValueError if they have counted differently.
    """
    for depth in reversed(range(len(clock.at) + 1)):
        near = [x for x in kept if _is_below(clock.at[:depth], x.slot.at)]
        if same := [x for x in near if x.slot.domain == clock.domain]:
            return _the_one(clock, same)
    same = [x for x in old if x.slot.domain == clock.domain]
    return _the_one(clock, same or list(old))


def _is_below(path: KeyPath, other: KeyPath) -> bool:
    return other[: len(path)] == path


def _the_one(clock: Slot, counts: list[Counted]) -> Counted | None:
    """One of counts that are equal; clocks first, since other counts may have begun later."""
    counts = [x for x in counts if x.slot.clock] or counts
    check_equal(clock, counts)
    return counts[0] if counts else None


def check_equal(new: Slot, counts: Sequence[Counted]) -> None:
    """Refuse counts that differ, as far as they are known."""
    known = [x for x in counts if not isinstance(x.steps, jax.core.Tracer)]
    if len({np.asarray(x.steps).tolist() for x in known}) > 1:
        shown = ", ".join(f"{keystr(x.slot.path)} {x.steps}" for x in known)
        raise ValueError(
            f"migrate: {keystr(new.path)} would take over counts that differ: {shown}. Make them "
            "equal before, with gradtx.tree.set, or start one of the groups afresh (reset=)"
        )
