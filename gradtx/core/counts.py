"""Counts of updates. The plumbing keeps them: a rule reads `step.count` and never writes a count.

A count is kept in the fields of the rule's own state that are annotated `Count`. If there are none,
a `ScheduledState` holds the count and that state; for a rule without a state, the count is
in a `ScaleByScheduleState`.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core.state import (
    EmptyState,
    OptState,
    ScaleByScheduleState,
    ScheduledState,
    count_marks,
    is_named_tuple,
)


def start() -> jax.Array:
    """The count before the first update: 0, an int32 scalar."""
    return jnp.zeros((), np.int32)


@functools.partial(jax.jit, inline=True)
def increment(count: jax.Array) -> jax.Array:
    """count + 1, saturating at the largest integer. Jitted so that, eagerly, it is one dispatch."""
    return increased(count, 1)


def increased(count: jax.Array, number: int | jax.Array) -> jax.Array:
    """count + number, saturating at the largest integer instead of wrapping to a negative one.

    number: non-negative; a Python int, or an array of count's dtype.
    """
    addend = np.asarray(number, count.dtype) if isinstance(number, int) else number
    last = np.asarray(np.iinfo(count.dtype).max, count.dtype) - addend
    return lax.add(lax.min(count, last), addend)


def split_count(state: OptState) -> tuple[jax.Array | None, OptState]:
    """The count that a rule's state holds, if any, and the rule's own state."""
    if isinstance(state, ScaleByScheduleState):
        return state.count, EmptyState()
    if isinstance(state, ScheduledState):
        return state.count, state.inner_state
    if is_named_tuple(state):
        for x, mark in zip(state, count_marks(type(state)), strict=True):
            if mark is not None:
                return _less(x, mark.first), state
    return None, state


def join_count(count: jax.Array | None, old: OptState, own: OptState) -> OptState:
    """The new state, from the count and the rule's own new state, wrapped as `old` was."""
    if isinstance(old, ScaleByScheduleState):
        return ScaleByScheduleState(count=count)
    if isinstance(old, ScheduledState):
        return ScheduledState(count=count, inner_state=own)
    return with_count(own, count, old)


def with_count(own: OptState, count: jax.Array | None, old: OptState = None) -> OptState:
    """A rule's own state with its `Count` fields set; `old` is its state before this step.

    Each field has its own buffer and is computed from its own old value, since a donated state must
    not hold one buffer twice and is updated in place.
    """
    marks = count_marks(type(own)) if is_named_tuple(own) else ()
    counts = [(i, mark.first) for i, mark in enumerate(marks) if mark is not None]
    if not counts:
        return own
    fields, (leading, leading_first) = list(own), counts[0]
    for i, first in counts:
        if i == leading or count is None:
            fields[i] = _from(count, first)
        elif old is None:
            fields[i] = _from(jnp.copy(count), first)
        else:
            steps = count - _less(old[leading], leading_first)
            fields[i] = increased(jnp.asarray(old[i], steps.dtype), steps)
    return type(own)(*fields)


def _less(count: jax.Array, first: int) -> jax.Array:
    return count if first == 0 else count - first


def _from(count: jax.Array | None, first: int) -> jax.Array | None:
    return count if count is None or first == 0 else increased(count, first)


def first_state(own: OptState, *, counted: bool) -> OptState:
    """The state before the first update, from the rule's own: wrapped with a count if a count must
    be kept (`counted`) and the rule's own state has no field for it."""
    own = with_count(own, start())
    if not counted or split_count(own)[0] is not None:
        return own
    return ScaleByScheduleState(start()) if own == EmptyState() else ScheduledState(start(), own)


def without_count(own: OptState) -> OptState:
    """A rule's own state as the rule sees it: its `Count` fields are None."""
    if not is_named_tuple(own):
        return own
    pairs = zip(own, count_marks(type(own)), strict=True)
    return type(own)(*[x if mark is None else None for x, mark in pairs])


def check_uncounted(where: str, new: OptState, count: jax.Array | None) -> None:
    """Refuse a count that a rule wrote, unless it is `step.count`: it would be overwritten."""
    if not is_named_tuple(new):
        return
    for name, x, mark in zip(new._fields, new, count_marks(type(new)), strict=True):
        if mark is not None and x is not None and x is not count:
            raise TypeError(
                f"{where}: the state's {name} is annotated Count, and counts are kept for the "
                f"rule: write None in init and state._replace(...) in update, without {name}; "
                "step.count is the number of this update"
            )
