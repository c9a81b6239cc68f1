"""The state of a tree, transposed: one state a leaf, as the rule of one array knows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from gradtx.core.leaves import Leaves, align
from gradtx.core.state import LeafState, is_named_tuple, shared_fields

# The fields of one leaf's state, counts left out.
Row = tuple[Any, ...]


@dataclass(frozen=True)
class LeafStates:
    """A rule's own state, one row a leaf: `rows[i]` holds the fields of leaf i, without counts."""

    state_class: Any
    rows: Sequence[Row]

    @classmethod
    def read(cls, state: Any, leaves: Leaves, where: str) -> LeafStates:
        """From a state of trees; `where` names the transformation in the error."""
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
    def made(cls, states: list[Any]) -> LeafStates:
        """From what the rule's `init` returned for each leaf."""
        named = [s if is_named_tuple(s) else LeafState(s) for s in states]
        return cls(
            type(named[0]),
            [tuple(s) if isinstance(s, LeafState) else row_of(type(s), s) for s in named],
        )

    def write(self, treedef: Any) -> Any:
        """Back to trees. The counts are left as None, for `with_count` to set."""
        columns = iter(zip(*self.rows, strict=True)) if self.rows else iter(())
        fields = [
            None if shared else jax.tree.unflatten(treedef, next(columns, ()))
            for shared in shared_fields(self.state_class)
        ]
        return self.state_class(*fields)


def leaf_state(state_class: type, row: Row, count: jax.Array | None) -> Any:
    """The state of one leaf as its rule knows it."""
    if state_class is LeafState:
        return row[0]
    fields = iter(row)
    return state_class(*[count if s else next(fields) for s in shared_fields(state_class)])


def row_of(state_class: type, state: Any) -> Row:
    """The inverse of `leaf_state`: the fields that belong to the leaf."""
    if state_class is LeafState:
        return (state,)
    return tuple([x for x, s in zip(state, shared_fields(state_class), strict=True) if not s])
