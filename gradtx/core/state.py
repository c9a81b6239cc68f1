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

from gradtx.core.leaves import Leaves, align

Params = Any
Updates = Any
OptState = Any


class _Shared:
    """Marks a field that is one scalar for the whole tree, kept by the plumbing."""


Count = Annotated[Any, _Shared()]


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


def _shared_fields(state_class: Any) -> tuple[bool, ...]:
    hints = typing.get_type_hints(state_class, include_extras=True)
    return tuple(
        any(isinstance(m, _Shared) for m in getattr(hints[name], "__metadata__", ()))
        for name in state_class._fields
    )


# Which fields of a state class are counts, kept once a tree.
shared_fields: Callable[[Any], tuple[bool, ...]] = functools.cache(_shared_fields)


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
            shared = shared_fields(type(state))
            return next((x for x, s in zip(state, shared, strict=True) if s), None), state
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
            return with_count(own, count)


def with_count(state: Any, count: jax.Array | None) -> Any:
    """The state with its `Count` fields set."""
    if not is_named_tuple(state) or not any(shared_fields(type(state))):
        return state
    shared = shared_fields(type(state))
    return type(state)(*(count if s else x for x, s in zip(state, shared, strict=True)))


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


def show_state(state: Any) -> str:
    """The kind of a state, for an error: ScaleByAdamState(count, mu, nu)"""
    fields = ", ".join(getattr(state, "_fields", ()))
    return f"{type(state).__name__}({fields})"
