"""Counts of updates. The plumbing keeps them: a rule reads `step.count` and writes none.

A count lies in a field of the rule's own state that is annotated `Count`, or, where that has none,
beside it in a `ScheduledState`; the count of a rule without a state is a `ScaleByScheduleState`.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core.state import (
    EmptyState,
    ScaleByScheduleState,
    ScheduledState,
    count_marks,
    is_named_tuple,
)


def start() -> jax.Array:
    """The count before the first update."""
    return jnp.zeros((), np.int32)


@functools.partial(jax.jit, inline=True)
def increment(count: jax.Array) -> jax.Array:
    """count + 1, staying at the largest integer. Jitted so that outside of jit it is one call."""
    return increased(count, 1)


def increased(count: Any, number: Any) -> jax.Array:
    """count + number, staying at the largest integer instead of wrapping round to a negative one.
    number: not negative, a Python number or an array of the dtype of count."""
    number = np.asarray(number, count.dtype) if isinstance(number, int) else number
    last = np.asarray(np.iinfo(count.dtype).max, count.dtype) - number
    return lax.add(lax.min(count, last), number)


def split_count(state: Any) -> tuple[jax.Array | None, Any]:
    """The count that a rule's state holds, if any, and the state that is the rule's own."""
    if isinstance(state, ScaleByScheduleState):
        return state.count, EmptyState()
    if isinstance(state, ScheduledState):
        return state.count, state.inner_state
    if is_named_tuple(state):
        for x, mark in zip(state, count_marks(type(state)), strict=True):
            if mark is not None:
                return _less(x, mark.first), state
    return None, state


def join_count(count: jax.Array | None, old: Any, own: Any) -> Any:
    """The state with this count and the rule's own new state, wrapped as `old` was."""
    if isinstance(old, ScaleByScheduleState):
        return ScaleByScheduleState(count=count)
    if isinstance(old, ScheduledState):
        return ScheduledState(count=count, inner_state=own)
    return with_count(own, count, old)


def with_count(own: Any, count: jax.Array | None, old: Any = None) -> Any:
    """A rule's own state with its `Count` fields set; `old` is the one before this step.

    Each field is in a buffer of its own, and follows from itself: states are donated.
    """
    marks = count_marks(type(own)) if is_named_tuple(own) else ()
    first = next((i for i, mark in enumerate(marks) if mark is not None), None)
    if first is None:
        return own
    fields = list(own)
    for i, mark in enumerate(marks):
        if mark is None:
            continue
        if i == first or count is None:
            fields[i] = _from(count, mark.first)
        elif old is None:
            fields[i] = _from(jnp.copy(count), mark.first)
        else:
            fields[i] = increased(old[i], count - _less(old[first], marks[first].first))
    return type(own)(*fields)


def _less(count: Any, first: int) -> Any:
    return count if first == 0 else count - first


def _from(count: Any, first: int) -> Any:
    return count if count is None or first == 0 else increased(count, first)


def first_state(own: Any, *, counted: bool) -> Any:
    """A state before the first update: the rule's own, with a count beside it where it needs one
    and has none."""
    own = with_count(own, start())
    if not counted or split_count(own)[0] is not None:
        return own
    return ScaleByScheduleState(start()) if own == EmptyState() else ScheduledState(start(), own)


def check_uncounted(where: str, new: Any, given: Any, count: Any) -> None:
    """Refuse a count that a rule wrote: it would be overwritten.

    given: the state that the rule was given, None in an init; count: that of the step.
    """
    if not is_named_tuple(new):
        return
    before = given if type(given) is type(new) else (None,) * len(new)
    for name, x, old, mark in zip(new._fields, new, before, count_marks(type(new)), strict=True):
        if mark is not None and x is not None and x is not old and x is not count:
            raise TypeError(
                f"{where}: the state's {name} is annotated Count, and counts are kept for the "
                f"rule: write None in init and state._replace(...) in update, without {name}"
            )
