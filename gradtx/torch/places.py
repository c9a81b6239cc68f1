"""Where the states of PyTorch's optimizers are: in a chain, in the groups of a partition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import numpy as np

from gradtx.combinators.chain import Chain, NamedChain
from gradtx.combinators.masked import MaskedState
from gradtx.combinators.partition import Partition, PartitionState
from gradtx.core.state import CountMark, OptState, Params, count_marks, is_named_tuple
from gradtx.core.transformation import GradientTransformation
from gradtx.torch.definitions import OptimizerDefinition
from gradtx.torch.parameters import Parameter

# What is done to the state of one of PyTorch's optimizers, given the parameters that it moves.
Visit: TypeAlias = Callable[[GradientTransformation, OptState, list[Parameter]], OptState]
# What is done to any other state, which holds counts at most.
Beside: TypeAlias = Callable[[OptState], OptState]


def visited(
    tx: GradientTransformation,
    state: OptState,
    members: list[Parameter],
    params: Params,
    visit: Visit,
    beside: Beside,
    where: str,
) -> OptState:
    """The state of tx, with `visit` applied to the states of PyTorch's optimizers in it, and
    `beside` to the others."""

    def within(part: GradientTransformation, own: OptState, mine: list[Parameter]) -> OptState:
        return visited(part, own, mine, params, visit, beside, where)

    if isinstance(tx.definition, OptimizerDefinition):
        return visit(tx, state, members)
    if isinstance(tx, Partition):
        label, groups = tx.assignment(params), {}
        for key, part in tx.transforms.items():
            mine = [member for member in members if label[member.path] == key]
            groups[key] = MaskedState(within(part, state.inner_states[key].inner_state, mine))
        return PartitionState(groups)
    if isinstance(tx, Chain):
        states = zip(tx.parts, tx._states(state, ""), strict=True)
        new = [within(part, own, members) for part, own in states]
        return dict(zip(tx.names, new, strict=True)) if isinstance(tx, NamedChain) else tuple(new)
    if not jax.tree.leaves(state):
        return state
    if not is_named_tuple(state) or not all(count_marks(type(state))):
        raise TypeError(
            f"{where}: PyTorch's state_dict has no counterpart of the state of {tx}. Do this with "
            "the optimizer alone, one of gradtx.torch, and put its state in place"
        )
    return beside(state)


def moved_by(
    tx: GradientTransformation,
    state: OptState,
    members: list[Parameter],
    params: Params,
    where: str,
) -> list[Parameter]:
    """The parameters that one of PyTorch's optimizers moves, in the order of the leaves."""
    moved: list[str] = []

    def note(optimizer: GradientTransformation, own: OptState, mine: list[Parameter]) -> OptState:
        moved.extend(member.path for member in mine)
        return own

    visited(tx, state, members, params, note, lambda own: own, where)
    if not moved:
        raise TypeError(f"{where}: there is none of gradtx.torch's optimizers in {tx}")
    twice = next((path for path in moved if moved.count(path) > 1), None)
    if twice is not None:
        raise TypeError(f"{where}: two of gradtx.torch's optimizers in {tx} move {twice}")
    return [member for member in members if member.path in moved]


def map_fields(function: Callable[[str, Any, CountMark | None], Any], state: OptState) -> OptState:
    """The state of one optimizer with each field replaced by function(name, field, mark), where
    mark is None unless the field is a count."""
    if not is_named_tuple(state):
        return tuple(map_fields(function, own) for own in state)
    fields = zip(state._fields, state, count_marks(type(state)), strict=True)
    return type(state)(
        *(
            map_fields(function, x) if name == "inner_state" else function(name, x, mark)
            for name, x, mark in fields
        )
    )


def fields_of(state: OptState) -> dict[str, Any]:
    """The fields of an optimizer's state that are not counts, by name."""
    found: dict[str, Any] = {}

    def note(name: str, x: Any, mark: CountMark | None) -> None:
        if mark is None:
            found[name] = x

    map_fields(note, state)
    return found


def with_counts(state: OptState, step: int) -> OptState:
    """The state with its counts set to this number of updates."""
    return map_fields(
        lambda name, x, mark: x if mark is None else np.int32(step + mark.first), state
    )


def count_in(state: OptState) -> int | None:
    """The number of updates according to a state's counts, None if it has none."""
    counts: list[int] = []

    def note(name: str, x: Any, mark: CountMark | None) -> None:
        if mark is not None:
            counts.append(int(x) - mark.first)

    map_fields(note, state)
    return counts[0] if counts else None
