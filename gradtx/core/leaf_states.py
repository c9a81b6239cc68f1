"""The state of a tree, transposed into one row per leaf, as a rule of one array sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.tree_util import PyTreeDef

from gradtx.core.leaves import Leaves, align
from gradtx.core.state import LeafState, OptState, StateClass, is_named_tuple, shared_fields

# The fields of one leaf's state, without the counts.
Row = tuple[Any, ...]


@dataclass(frozen=True)
class LeafStates:
    """A rule's own state by leaf: `rows[i]` is the row of leaf i."""

    state_class: StateClass
    rows: Sequence[Row]

    @classmethod
    def read(cls, state: OptState, leaves: Leaves, where: str) -> LeafStates:
        """Transpose a state of trees; `where` names the transformation in errors."""
        columns = [
            align(leaves, field, f"{where}: the state's {name}")
            for name, field, shared in zip(
                state._fields, state, shared_fields(type(state)), strict=True
            )
            if not shared
        ]
        rows = list(zip(*columns, strict=True)) if columns else [()] * len(leaves.values)
        return cls(type(state), rows)

    @classmethod
    def made(cls, states: Sequence[Any]) -> LeafStates:
        """Collect what the rule's `init` returned for each leaf."""
        named = [s if is_named_tuple(s) else LeafState(s) for s in states]
        return cls(
            type(named[0]),
            [tuple(s) if isinstance(s, LeafState) else row_of(type(s), s) for s in named],
        )

    def write(self, treedef: PyTreeDef) -> OptState:
        """Transpose back into trees. The counts are None, for `with_count` to set."""
        columns = iter(zip(*self.rows, strict=True)) if self.rows else iter(())
        fields = [
            None if shared else jax.tree.unflatten(treedef, next(columns, ()))
            for shared in shared_fields(self.state_class)
        ]
        return self.state_class(*fields)


def leaf_state(state_class: StateClass, row: Row) -> Any:
    """The state of one leaf as its rule sees it: what `init` returned, without the counts."""
    if state_class is LeafState:
        return row[0]
    fields = iter(row)
    return state_class(*[None if s else next(fields) for s in shared_fields(state_class)])


def row_of(state_class: StateClass, state: Any) -> Row:
    """The inverse of `leaf_state`: the fields of the leaf, without the counts."""
    if state_class is LeafState:
        return (state,)
    return tuple([x for x, s in zip(state, shared_fields(state_class), strict=True) if not s])
