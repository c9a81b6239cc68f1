"""The classes of states, and the annotations that say what the fields of a state are.

A rule's `init(param)` returns the state of one leaf, usually a NamedTuple. The state of a tree is
the same NamedTuple with a tree in each field, structured like the parameters, so that an AdamW
state reads `state[0].mu["dense"]["kernel"]`. A field annotated `Count` is one integer per tree.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, TypeVar

# Pytrees, whose structure Python's types cannot express.
Params = Any  # of arrays
Updates = Any  # of arrays, structured like the params
OptState = Any  # of NamedTuples
# A NamedTuple class, of this library or of another.
StateClass = type[Any]


@dataclass(frozen=True)
class CountMark:
    """Marks a field that is an int32 scalar for the whole tree, kept by the plumbing.

    first: its value before the first update.
    """

    first: int = 0


class _LikeParams:
    """Marks a field of a tree rule's state that is a tree structured like the params."""


class _AdaptedNumber:
    """Marks a field that is a number adapted by the rule."""


class HoldsParams:
    """Marks a field that holds parameters."""


class HoldsFactors:
    """Marks a field of matrices that are decomposed or multiplied with: factors, bases, roots."""


class NarrowedByName:
    """Marks a field that storage wrappers keep in fewer bits only where a pattern names it."""


# The number of updates so far.
Count = Annotated[Any, CountMark()]
# One more than that, for those states of Optax that start counting at 1.
CountFromOne = Annotated[Any, CountMark(first=1)]
# In the state of a rule of trees: a tree structured like the params. The rule sees its leaves in
# float32 or wider, and only where there is an update; the others stay as they are.
LikeParams = Annotated[Any, _LikeParams()]
# The same, for parameters of an earlier step. Storage wrappers never keep these in fewer bits: the
# differences from them that matter are small compared to the parameters.
PastParams = Annotated[Any, _LikeParams(), HoldsParams()]
# The same as LikeParams, for a moment that is multiplied by roots of factors. Storage wrappers keep
# it in fewer bits only if told to: in directions that no gradient has had, the roots amplify
# rounding errors up to a thousand times.
RootedMoment = Annotated[Any, _LikeParams(), NarrowedByName()]

# A number for the whole tree that the rule adapts from step to step, and with which the next step
# begins: `hyperparams` shows it.
Adapted = Annotated[Any, _AdaptedNumber()]


# In the state of a rule of trees: a tree of matrices for each leaf. Storage wrappers keep these in
# fewer bits only if told to: an error of a percent turns a basis away from its directions.
Factors = Annotated[Any, HoldsFactors(), NarrowedByName()]


class EmptyState(NamedTuple):
    """The state of a rule that keeps no state."""


class LeafState(NamedTuple):
    """The state of a rule of one array whose `init` returns something other than a NamedTuple.

    state: what it returns for each leaf, in the structure of the params.
    """

    state: Updates


class ScaleByScheduleState(NamedTuple):
    """The step count of a rule that keeps no state of its own but needs the step."""

    count: Count


class ScheduledState(NamedTuple):
    """The step count of a rule that needs the step and whose own state has no `Count`."""

    count: Count
    inner_state: OptState


Mark = TypeVar("Mark")


def _marks(state_class: StateClass, kind: type[Mark]) -> tuple[Mark | None, ...]:
    """The mark of this kind on each field of a state class, None where there is none."""
    hints = _hints(state_class)
    return tuple(
        next((m for m in getattr(hints.get(name), "__metadata__", ()) if isinstance(m, kind)), None)
        for name in state_class._fields
    )


def _hints(state_class: StateClass) -> dict[str, Any]:
    """The annotations of a state class, without those that cannot be evaluated: their names exist
    for type checkers only, as in some of Optax's."""
    try:
        return typing.get_type_hints(state_class, include_extras=True)
    except NameError:
        known: dict[str, Any] = {}
        for name, written in state_class.__annotations__.items():
            one = {"__annotations__": {name: written}, "__module__": state_class.__module__}
            alone: Any = type(state_class.__name__, (), one)
            with suppress(NameError):
                known |= typing.get_type_hints(alone, include_extras=True)
        return known


def _find_counts(state_class: StateClass) -> tuple[CountMark | None, ...]:
    return _marks(state_class, CountMark)


def _shared_fields(state_class: StateClass) -> tuple[bool, ...]:
    return tuple(mark is not None for mark in count_marks(state_class))


def _fields_like_params(state_class: StateClass) -> tuple[bool, ...]:
    return tuple(mark is not None for mark in _marks(state_class, _LikeParams))


def _fields_by_leaf(state_class: StateClass) -> tuple[bool, ...]:
    factors = _marks(state_class, HoldsFactors)
    pairs = zip(fields_like_params(state_class), factors, strict=True)
    return tuple(like or mark is not None for like, mark in pairs)


def _find_adapted(state_class: StateClass) -> tuple[str, ...]:
    marks = _marks(state_class, _AdaptedNumber)
    return tuple(n for n, mark in zip(state_class._fields, marks, strict=True) if mark is not None)


def _marked(state_class: StateClass, kind: type[Any]) -> frozenset[str]:
    pairs = zip(state_class._fields, _marks(state_class, kind), strict=True)
    return frozenset(name for name, mark in pairs if mark is not None)


def _find_past_params(state_class: StateClass) -> frozenset[str]:
    return _marked(state_class, HoldsParams)


def _find_factors(state_class: StateClass) -> frozenset[str]:
    return _marked(state_class, HoldsFactors)


def _find_narrowed_by_name(state_class: StateClass) -> frozenset[str]:
    return _marked(state_class, NarrowedByName)


# Typed with `Any`, since mypy does not know that a class is hashable.
# The `CountMark` of each field of a state class, None where the field is not a count.
count_marks: Callable[[Any], tuple[CountMark | None, ...]] = functools.cache(_find_counts)
# For each field of a state class, whether it is a count, shared by all leaves.
shared_fields: Callable[[Any], tuple[bool, ...]] = functools.cache(_shared_fields)
# For each field of a tree rule's state class, whether it is a tree structured like the params.
fields_like_params: Callable[[Any], tuple[bool, ...]] = functools.cache(_fields_like_params)
# The same, or a tree with matrices in the place of each leaf.
fields_by_leaf: Callable[[Any], tuple[bool, ...]] = functools.cache(_fields_by_leaf)
# The names of the fields that are numbers adapted by the rule.
adapted_fields: Callable[[Any], tuple[str, ...]] = functools.cache(_find_adapted)
# The names of the fields that hold parameters, in any library's state class.
fields_of_past_params: Callable[[Any], frozenset[str]] = functools.cache(_find_past_params)
# The names of those that hold factors.
fields_of_factors: Callable[[Any], frozenset[str]] = functools.cache(_find_factors)
# The names of those that storage wrappers keep in fewer bits only where a pattern names them.
fields_narrowed_by_name: Callable[[Any], frozenset[str]] = functools.cache(_find_narrowed_by_name)


def is_named_tuple(x: object) -> bool:
    """Whether x is an instance of some NamedTuple class."""
    return isinstance(x, tuple) and hasattr(type(x), "_fields")
