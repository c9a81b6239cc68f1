"""Running a transformation: a composite is a line of links, run from the first to the last.

Chains, recipes and masks only say how their states lie along the line. Here the line is cut where
a link needs the whole tree; what lies between two cuts runs leaf by leaf, as one body a leaf.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.tree_util import GetAttrKey, keystr

from gradtx.core.leafwise import LeafTransformation, run_leafwise
from gradtx.core.leaves import at
from gradtx.core.origin import in_classes_of, told_by
from gradtx.core.schedule import Schedule, ScheduleError
from gradtx.core.state import OptState, Params, Updates
from gradtx.core.transformation import GradientTransformation, Link
from gradtx.core.work import Work


def init(tx: GradientTransformation, params: Params) -> OptState:
    """The state before the first update."""
    links = tx._links() if params is None else ()
    if any(link.masks or link.transformation.begins_with_params for link in links):
        raise ValueError(
            f"{tx.definition.name}: init needs the parameters, a tree of arrays (which may be "
            "empty, as {} is), got None"
        )
    with _schedules_named(tx):
        return tx._init(params)


def update(
    tx: GradientTransformation,
    updates: Updates,
    state: OptState,
    params: Params | None,
    extra: dict[str, Any],
    *,
    rounded: bool = True,
) -> tuple[Updates, OptState]:
    """One step. `rounded=False` leaves the updates in float32 or wider, for a combinator."""
    with _schedules_named(tx):
        return _update(tx, updates, state, params, extra, rounded)


def _update(
    tx: GradientTransformation,
    updates: Updates,
    state: OptState,
    params: Params | None,
    extra: dict[str, Any],
    rounded: bool,
) -> tuple[Updates, OptState]:
    links, name = tx._links(), tx.definition.name
    with told_by(name, state):
        held = tx._split(state, "")
    for link in links:
        link.check_given(params is not None, extra)
    work = Work(name, updates, params)
    work.check_shapes(_given_per_example(links, work))
    selections = [work.selected(link.masks) for link in links]
    work.check_floating(selections)
    if _leaves_unrounded(links, selections, work):
        rounded = False
    new_states: list[OptState] = []
    for first, last in _cuts(links):
        group, old = links[first:last], [own for own, _ in held[first:last]]
        if isinstance(group[0].transformation, LeafTransformation):
            leaving = rounded and last == len(links)
            new_states += run_leafwise(group, old, work, extra, leaving)
        else:
            with told_by(name, state, held[first]):
                new_states.append(group[0].transformation._run(old[0], work, group[0], extra))
    return work.result(rounded=rounded), in_classes_of(state, tx._join(iter(new_states)))


@contextmanager
def _schedules_named(tx: GradientTransformation) -> Iterator[None]:
    """The error of a schedule under the name of the hyperparameter that the user gave it to."""
    try:
        yield
    except ScheduleError as error:
        place = _place(tx, error.schedule)
        if place is None:
            raise
        raise TypeError(f"{place}: {error}") from error.__cause__


def _place(tx: GradientTransformation, schedule: Schedule) -> str | None:
    """Whose argument a schedule is: "adamw: learning_rate"."""

    def found(x: Any) -> bool:
        return isinstance(x, Schedule) and x == schedule

    for name, value in tx.arguments.items():
        for path, x in jax.tree.leaves_with_path(
            value, is_leaf=lambda x: found(x) or isinstance(x, GradientTransformation)
        ):
            if found(x):
                keys = itertools.takewhile(lambda key: not isinstance(key, GetAttrKey), path)
                return f"{tx.definition.name}: {name}{keystr(tuple(keys))}"
            inner = _place(x, schedule) if isinstance(x, GradientTransformation) else None
            if inner is not None:
                return inner
    return None


def _given_per_example(links: tuple[Link, ...], work: Work) -> list[bool]:
    """For each leaf, whether its gradients are those of single examples, along a first axis. The
    link that takes them must be the first on its leaves."""
    examples = [False] * len(work.values)
    if not any(link.transformation.per_example for link in links):
        return examples
    before: list[Any] = [None] * len(work.values)
    for link in links:
        tx = link.transformation
        for i, (path, chosen) in enumerate(
            zip(work.leaves.paths, work.selected(link.masks), strict=True)
        ):
            if chosen and tx.per_example and before[i] is not None:
                raise ValueError(
                    f"{work.name}: {at(path)}: {tx} comes after {before[i]}; it takes the "
                    "gradients of single examples and must come first"
                )
            if chosen and not tx.keeps_examples:
                before[i], examples[i] = tx, examples[i] or tx.per_example
    return examples


def _leaves_unrounded(links: tuple[Link, ...], selections: list[list[bool]], work: Work) -> bool:
    """Whether a link says on what the parameters land; it must be the last on its leaves."""
    if not any(link.transformation.unrounded for link in links):
        return False
    by: list[Any] = [None] * len(work.values)
    for link, selected in zip(links, selections, strict=True):
        tx = link.transformation
        for i, (path, chosen) in enumerate(zip(work.leaves.paths, selected, strict=True)):
            if chosen and by[i] is not None:
                raise ValueError(
                    f"{work.name}: {at(path)}: {tx} comes after {by[i]}, which rounds the "
                    "parameter and must come last"
                )
            if chosen and tx.unrounded:
                by[i] = tx
    return any(by)


def _cuts(links: tuple[Link, ...]) -> list[tuple[int, int]]:
    """Runs [first, last) of links: one that sees the whole tree alone, neighbours on leaves
    together. A rule that sees the tree begins a run; a batched one is a run by itself."""
    cuts: list[tuple[int, int]] = []
    for i, link in enumerate(links):
        tx = link.transformation
        joins = cuts and _is_plain(tx) and _goes_on(links[cuts[-1][0]].transformation)
        if joins:
            cuts[-1] = (cuts[-1][0], i + 1)
        else:
            cuts.append((i, i + 1))
    return cuts


def _goes_on(tx: Any) -> bool:
    return isinstance(tx, LeafTransformation) and not tx.rule.batched


def _is_plain(tx: Any) -> bool:
    return _goes_on(tx) and not tx.sees_the_tree
