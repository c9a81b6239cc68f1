"""The classes of states, and the annotations that say what a field of one is.

A rule's `init(param)` returns the state of one leaf, usually a NamedTuple. The state of a tree is
the same NamedTuple with a tree in each field, shaped like the parameters, so that an AdamW state
reads `state[0].mu["dense"]["kernel"]`. Fields annotated `Count` are one integer for the tree.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

Params = Any
Updates = Any
OptState = Any


@dataclass(frozen=True)
class CountMark:
    """Marks a field that is one scalar for the whole tree, kept by the plumbing."""

    first: int = 0


class _LikeParams:
    """Marks a field of a tree rule's state that is a tree like the params."""


class HoldsParams:
    """Marks a field that holds parameters."""


Count = Annotated[Any, CountMark()]
# One more than the number of updates so far: for states of Optax that begin to count there.
CountFromOne = Annotated[Any, CountMark(first=1)]
# In the state of a rule of trees: where there is no update, the rule does not see the leaf of such
# a field, and it stays as it is. The rule sees it in float32 or wider.
LikeParams = Annotated[Any, _LikeParams()]
# The same, of parameters as they were at some step. Differences from them are small beside them:
# they are never kept in fewer bits.
PastParams = Annotated[Any, _LikeParams(), HoldsParams()]


class EmptyState(NamedTuple):
    """The state of a rule that keeps none."""


class LeafState(NamedTuple):
    """The state of a rule whose state of one leaf is not a NamedTuple."""

    state: Updates


class ScaleByScheduleState(NamedTuple):
    """The step count of a rule that keeps no state of its own but needs the step."""

    count: Count


class ScheduledState(NamedTuple):
    """The step count of a rule that needs the step and whose own state has no `Count`."""

    count: Count
    inner_state: Any


def _marks(state_class: Any, kind: type) -> tuple[Any, ...]:
    """The mark of this kind on each field of a state class, None where there is none."""
    hints = typing.get_type_hints(state_class, include_extras=True)
    return tuple(
        next((m for m in getattr(hints[name], "__metadata__", ()) if isinstance(m, kind)), None)
        for name in state_class._fields
    )


def _find_counts(state_class: Any) -> tuple[Any, ...]:
    return _marks(state_class, CountMark)


def _shared_fields(state_class: Any) -> tuple[bool, ...]:
    return tuple(mark is not None for mark in count_marks(state_class))


def _fields_like_params(state_class: Any) -> tuple[bool, ...]:
    return tuple(mark is not None for mark in _marks(state_class, _LikeParams))


# The `CountMark` of each field of a state class, None where the field is no count.
count_marks: Callable[[Any], tuple[Any, ...]] = functools.cache(_find_counts)
# Which fields of a state class are counts, kept once a tree.
shared_fields: Callable[[Any], tuple[bool, ...]] = functools.cache(_shared_fields)
# Which fields of the state of a rule of trees are trees like the params.
fields_like_params: Callable[[Any], tuple[bool, ...]] = functools.cache(_fields_like_params)


def _find_past_params(state_class: Any) -> frozenset[str]:
    try:
        marks = _marks(state_class, HoldsParams)
    except NameError:
        return frozenset()  # another library's annotations, which may not be for evaluation
    pairs = zip(state_class._fields, marks, strict=True)
    return frozenset(name for name, mark in pairs if mark is not None)


# The names of the fields that hold parameters, in a state class of any origin.
fields_of_past_params: Callable[[Any], frozenset[str]] = functools.cache(_find_past_params)


def is_named_tuple(x: Any) -> bool:
    """Whether x is an instance of some NamedTuple."""
    return isinstance(x, tuple) and hasattr(type(x), "_fields")
