"""One update: the links of a transformation's line, run from the first to the last.

Chains, recipes and masks only decide how the state is split among the links. Neighbouring links
that work leaf by leaf form a stage, which runs as one jitted body per leaf; a link that needs the
whole tree is a stage of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
from jax.tree_util import GetAttrKey, keystr

from gradtx.core.flat_updates import FlatUpdates, Selection
from gradtx.core.meshes.explicit import explicit_mesh, on_auto_axes
from gradtx.core.meshes.placing import on_the_mesh
from gradtx.core.meshes.told import telling_types
from gradtx.core.origin import StateError, in_classes_of, located_in
from gradtx.core.place import Place, check_places
from gradtx.core.problem import Extra
from gradtx.core.schedule import Schedule, ScheduleError
from gradtx.core.state import OptState, Params, Updates

if TYPE_CHECKING:
    from gradtx.core.transformation import GradientTransformation, Link


@dataclass(frozen=True)
class Line:
    """The links of a transformation, and the stages, as ranges [first, end) of links, in which they
    run.

    composite: splits the state among the links. placed: whether the place of some link has to be
    checked. requiring: the links that need params or extra arguments.
    """

    composite: GradientTransformation
    links: tuple[Link, ...]
    stages: tuple[tuple[int, int], ...]
    placed: bool
    requiring: tuple[Link, ...]

    @classmethod
    def of(cls, composite: GradientTransformation, links: tuple[Link, ...]) -> Line:
        """Cut the links into stages: a link starts a new one unless it joins the link before it."""
        firsts = [
            i
            for i, link in enumerate(links)
            if i == 0 or not link.transformation._joins(links[i - 1].transformation)
        ]
        stages = tuple(itertools.pairwise([*firsts, len(links)]))
        placed = any(link.transformation.place is not Place.ANYWHERE for link in links)
        requiring = tuple(link for link in links if link.transformation._requires)
        return cls(composite, links, stages, placed, requiring)


@dataclass(frozen=True)
class Stage:
    """Neighbouring links that run together, each with its state and the leaves that it acts on.

    extra: the caller's extra arguments. leaving: whether the updates leave the line after this
    stage, so that it rounds them to their final dtypes. applying: whether it may also add them to
    the params, and return these as `Applied`.
    """

    links: tuple[Link, ...]
    states: Sequence[OptState]
    selections: Sequence[Selection]
    extra: Extra
    leaving: bool
    applying: bool


def init(tx: GradientTransformation, params: Params) -> OptState:
    """The state before the first update."""
    line = tx._line
    if params is None and any(
        link.masks or link.transformation.begins_with_params for link in line.links
    ):
        raise ValueError(
            f"{tx.definition.name}: init needs the parameters, a tree of arrays (which may be "
            "empty, as {} is), got None"
        )
    try:
        return on_the_mesh(tx._init(params), params)
    except ScheduleError as error:
        raise _named(tx, error) from error.__cause__


def update(
    tx: GradientTransformation,
    updates: Updates,
    state: OptState,
    params: Params | None,
    extra: Extra,
    *,
    rounded: bool = True,
) -> tuple[Updates, OptState]:
    """One update. A wrapper passes `rounded=False`: the updates then stay in float32 or wider."""

    def run(tx: GradientTransformation, *given: Any) -> tuple[Updates, OptState]:
        flat, new = _run(tx, *given, rounded=rounded)
        return flat.result(), new

    if explicit_mesh((updates, state)) is None:
        return run(tx, updates, state, params, extra)
    alike = jax.tree.structure(updates) == jax.tree.structure(params)  # type: ignore[operator]
    like = (params if alike else updates, state)
    with telling_types(like[0]):
        return on_auto_axes(run, (tx, updates, state, params, extra), like)


def step(
    tx: GradientTransformation,
    updates: Updates,
    state: OptState,
    params: Params,
    extra: Extra,
) -> tuple[Params, OptState]:
    """One update, added to the params."""

    def run(tx: GradientTransformation, *given: Any) -> tuple[Params, OptState]:
        _, _, params, _ = given
        flat, new = _run(tx, *given, applying=True)
        return flat.applied_to(params), new

    if explicit_mesh((updates, state)) is None:
        return run(tx, updates, state, params, extra)
    with telling_types(params):
        return on_auto_axes(run, (tx, updates, state, params, extra), (params, state))


def _run(
    tx: GradientTransformation,
    updates: Updates,
    state: OptState,
    params: Params | None,
    extra: Extra,
    *,
    rounded: bool = True,
    applying: bool = False,
) -> tuple[FlatUpdates, OptState]:
    """The updates at the end of the line, and the new state."""
    try:
        return _run_line(tx, updates, state, params, extra, rounded, applying)
    except ScheduleError as error:
        raise _named(tx, error) from error.__cause__


def _run_line(
    tx: GradientTransformation,
    updates: Updates,
    state: OptState,
    params: Params | None,
    extra: Extra,
    rounded: bool,
    applying: bool,
) -> tuple[FlatUpdates, OptState]:
    line, name, at_work = tx._line, tx.definition.name, -1
    try:
        held = line.composite._split(state, "")
        for link in line.requiring:
            written = link.owner or link.transformation
            link.transformation.check_given(written, params is not None, extra)
        flat = FlatUpdates.of(name, updates, params)
        every, none = [True] * len(flat.values), [False] * len(flat.values)
        selections = [
            flat.selections.of(link.masks) if link.masks else every for link in line.links
        ]
        per_example, last = none, False
        if line.placed:
            per_example, last = check_places(name, flat.leaves.paths, line.links, selections)
        flat.check_shapes(per_example)
        flat.check_floating(selections)
        rounded = rounded and not last
        new_states: list[OptState] = []
        for first, end in line.stages:
            at_work = first
            stage = Stage(
                links=line.links[first:end],
                states=[own for own, _ in held[first:end]],
                selections=selections[first:end],
                extra=extra,
                leaving=rounded and end == len(line.links),
                applying=applying and end == len(line.links),
            )
            flat, made = line.links[first].transformation._run(stage, flat)
            new_states += made
    except StateError as error:
        whose = None if at_work < 0 else held[at_work + error.link]
        raise located_in(state, error, name, whose) from error.__cause__
    new = line.composite._join(iter(new_states))
    if jax.tree.structure(new) != jax.tree.structure(state):  # type: ignore[operator]
        new = in_classes_of(state, new)
    return flat.leaving(rounded=rounded), new


def _named(tx: GradientTransformation, error: ScheduleError) -> TypeError:
    """The schedule's error, prefixed with the hyperparameter that the user passed it as."""
    place = _argument_of(tx, error.schedule)
    return error if place is None else TypeError(f"{place}: {error}")


def _argument_of(tx: GradientTransformation, schedule: Schedule) -> str | None:
    """Which argument the schedule was passed as, such as "adamw: learning_rate"."""

    def found(x: Any) -> bool:
        return isinstance(x, Schedule) and x == schedule

    def is_transformation(x: Any) -> bool:
        return hasattr(type(x), "_links")

    for name, value in tx.arguments.items():
        for path, x in jax.tree.leaves_with_path(
            value, is_leaf=lambda x: found(x) or is_transformation(x)
        ):
            if found(x):
                keys = itertools.takewhile(lambda key: not isinstance(key, GetAttrKey), path)
                return f"{tx.definition.name}: {name}{keystr(tuple(keys))}"
            inner = _argument_of(x, schedule) if is_transformation(x) else None
            if inner is not None:
                return inner
    return None
