"""States of rules: as trees for the user, as one row a leaf for the rules.

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

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core.dtypes import widen
from gradtx.core.leaves import Leaves, align, describe
from gradtx.core.leaves import at as located

Params = Any
Updates = Any
OptState = Any


@dataclass(frozen=True)
class _Shared:
    """Marks a field that is one scalar for the whole tree, kept by the plumbing."""

    first: int = 0


class _LikeParams:
    """Marks a field of a tree rule's state that is a tree like the params."""


class HoldsParams:
    """Marks a field that holds parameters."""


Count = Annotated[Any, _Shared()]
# One more than the number of updates so far: for states of Optax that begin to count there.
CountFromOne = Annotated[Any, _Shared(first=1)]
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
    return _marks(state_class, _Shared)


_counts: Callable[[Any], tuple[Any, ...]] = functools.cache(_find_counts)


def _shared_fields(state_class: Any) -> tuple[bool, ...]:
    return tuple(mark is not None for mark in _counts(state_class))


def _fields_like_params(state_class: Any) -> tuple[bool, ...]:
    return tuple(mark is not None for mark in _marks(state_class, _LikeParams))


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


def start() -> jax.Array:
    """The count before the first update."""
    return jnp.zeros((), np.int32)


def split_count(state: Any) -> tuple[jax.Array | None, Any]:
    """The count that a rule's state holds, if any, and the state that is the rule's own."""
    match state:
        case ScaleByScheduleState():
            return state.count, EmptyState()
        case ScheduledState():
            return state.count, state.inner_state
        case _ if is_named_tuple(state):
            pairs = zip(state, _counts(type(state)), strict=True)
            return next((_less(x, mark.first) for x, mark in pairs if mark), None), state
        case _:
            return None, state


def join_count(count: jax.Array | None, old: Any, own: Any) -> Any:
    """The state with this count and the rule's own new state, wrapped as `old` was."""
    match old:
        case ScaleByScheduleState():
            return ScaleByScheduleState(count=count)
        case ScheduledState():
            return ScheduledState(count=count, inner_state=own)
        case _:
            return with_count(own, count, old)


def with_count(state: Any, count: jax.Array | None, old: Any = None) -> Any:
    """The state with its `Count` fields set; `old` is the state before this step.

    Each field is in a buffer of its own, and follows from itself: states are donated.
    """
    if not is_named_tuple(state) or not any(shared_fields(type(state))):
        return state
    marks = _counts(type(state))
    before = [None] * len(marks) if old is None else list(old)
    first = next(i for i, mark in enumerate(marks) if mark)

    def at(i: int) -> Any:
        if count is None or i == first:
            return _more(count, marks[i].first)
        if old is None:
            return _more(jnp.copy(count), marks[i].first)
        return increased(before[i], count - _less(before[first], marks[first].first))

    return type(state)(*(at(i) if mark else state[i] for i, mark in enumerate(marks)))


def increased(count: Any, number: Any) -> jax.Array:
    """count + number, staying at the largest integer instead of wrapping round to a negative one.
    number: not negative, a Python number or an array of the dtype of count."""
    number = np.asarray(number, count.dtype) if isinstance(number, int) else number
    last = np.asarray(np.iinfo(count.dtype).max, count.dtype) - number
    return lax.add(lax.min(count, last), number)


def _more(count: Any, number: int) -> Any:
    return count if count is None or number == 0 else increased(count, number)


def _less(count: Any, number: int) -> Any:
    return count if number == 0 else count - number


def seen_by_rule(own: Any, updates: Updates, where: str) -> Any:
    """A tree rule's state without the leaves for which there is no update."""
    if not is_named_tuple(own) or not any(fields_like_params(type(own))):
        return own
    for name in fields_of_past_params(type(own)):
        if misfit := _misfit(name, getattr(own, name), updates, exact=True):
            raise ValueError(f"{where}: {misfit}")
    fields = zip(own._fields, own, fields_like_params(type(own)), strict=True)
    return type(own)(
        *(
            _seen(updates, x, f"{where}: the state's {name}") if like else x
            for name, x, like in fields
        )
    )


def misfit_of(own: Any, updates: Updates) -> str | None:
    """What to say of a tree rule's state if it is of parameters of other shapes than the updates.

    A leaf of the state may have axes before those of the parameter, as a memory has.
    """
    if not is_named_tuple(own):
        return None
    fields = zip(own._fields, own, fields_like_params(type(own)), strict=True)
    found = (_misfit(name, tree, updates) for name, tree, like in fields if like)
    return next(filter(None, found), None)


def _misfit(name: str, tree: Any, updates: Updates, *, exact: bool = False) -> str | None:
    if tree is None:
        return None
    leaves = Leaves.of(updates)
    parts = align(leaves, tree, f"the state's {name}")
    for path, u, x in zip(leaves.paths, leaves.values, parts, strict=True):
        if u is None or x is None:
            continue
        shape = np.shape(x) if exact else np.shape(x)[np.ndim(x) - np.ndim(u) :]
        if shape != np.shape(u):
            return (
                f"{located(path)}: updates {describe(u)} do not fit the state's {name}, "
                f"{describe(x)}; was the state made by init on params of these shapes?"
            )
    return None


def _seen(updates: Updates, tree: Any, what: str) -> Any:
    shown = given(updates, tree, what)

    def widened(u: Any, x: Any) -> Any:
        return None if x is None else widen(x, u.dtype)

    return None if tree is None else jax.tree.map(widened, updates, shown)


def with_unseen(own: Any, new: Any, updates: Updates) -> Any:
    """The new state with the old leaves for which there is no update."""
    if type(own) is not type(new) or not is_named_tuple(own):
        return new
    fields = zip(own, new, fields_like_params(type(own)), strict=True)
    return type(own)(*(kept(updates, x, y) if like else y for x, y, like in fields))


def given(updates: Updates, tree: Any, what: str = "the tree") -> Any:
    """A tree like the params with None where there is no update. None as a whole stays None."""
    if tree is None:
        return None
    leaves = Leaves.of(updates)
    aligned = align(leaves, tree, what)
    return leaves.tree(
        None if u is None else x for u, x in zip(leaves.values, aligned, strict=True)
    )


def kept(updates: Updates, old: Any, new: Any) -> Any:
    """The new tree, but the old leaf where there is no update."""
    if old is None:
        return new
    leaves = Leaves.of(updates)
    pairs = zip(align(leaves, old, "the old tree"), align(leaves, new, "the new tree"), strict=True)
    return leaves.tree(
        x if u is None else y for u, (x, y) in zip(leaves.values, pairs, strict=True)
    )


def new_state(own: Any, *, counted: bool) -> Any:
    """A first state: the rule's own, with a count beside it where it needs one and has none."""
    own = with_count(own, start())
    if not counted or split_count(own)[0] is not None:
        return own
    return ScaleByScheduleState(start()) if own == EmptyState() else ScheduledState(start(), own)


@dataclass(frozen=True)
class Rows:
    """A rule's own state, transposed: `rows[i]` holds the fields of leaf i, counts left out."""

    state_class: Any
    rows: list[tuple[Any, ...]]

    @classmethod
    def read(cls, state: Any, leaves: Leaves, where: str) -> Rows:
        """From a state of trees; `where` names the transformation in the error."""
        shared = shared_fields(type(state))
        columns = [
            align(leaves, field, f"{where}: the state's {name}")
            for name, field, s in zip(state._fields, state, shared, strict=True)
            if not s
        ]
        rows = list(zip(*columns, strict=True)) if columns else [()] * len(leaves.values)
        return cls(type(state), rows)

    @classmethod
    def of_leaf_states(cls, states: list[Any]) -> Rows:
        """From what the rule's `init` returned for each leaf."""
        named = [s if is_named_tuple(s) else LeafState(s) for s in states]
        shared = shared_fields(type(named[0]))
        rows = [tuple(x for x, s in zip(state, shared, strict=True) if not s) for state in named]
        return cls(type(named[0]), rows)

    def write(self, treedef: Any) -> Any:
        """Back to trees. The counts are left as None, for `with_count` to set."""
        columns = iter(zip(*self.rows, strict=True)) if self.rows else iter(())
        shared = shared_fields(self.state_class)
        return self.state_class(
            *(None if s else jax.tree.unflatten(treedef, next(columns, ())) for s in shared)
        )


def leaf_state(state_class: type, row: tuple[Any, ...], count: jax.Array | None) -> Any:
    """The state of one leaf as its rule knows it."""
    if state_class is LeafState:
        return row[0]
    fields = iter(row)
    return state_class(*(count if s else next(fields) for s in shared_fields(state_class)))


def leaf_row(state_class: type, state: Any) -> tuple[Any, ...]:
    """The inverse of `leaf_state`: the fields that belong to the leaf."""
    if state_class is LeafState:
        return (state,)
    shared = shared_fields(state_class)
    return tuple(x for x, s in zip(state, shared, strict=True) if not s)
