"""What a transformation consists of as its author wrote it, each part with its state and numbers.

Chains, masks and partitions are walked through. A recipe is one part, since its numbers were
written under its name; the parts that it builds come after it, marked as the recipe's. A wrapper is
a part, and what is inside it comes after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax

from gradtx.combinators.chain import Chain, NamedChain
from gradtx.combinators.inject import Injected
from gradtx.combinators.masked import Masked
from gradtx.combinators.partition import Partition
from gradtx.core.counts import split_count
from gradtx.core.definition import as_schedule
from gradtx.core.hyperparameters import Instance
from gradtx.core.leaves import unboxed
from gradtx.core.mask import Mask
from gradtx.core.origin import Held, StateError, located_in
from gradtx.core.recipe import Recipe
from gradtx.core.ruled import Ruled
from gradtx.core.schedule import Schedule, at
from gradtx.core.state import OptState, adapted_fields, is_named_tuple
from gradtx.core.transformation import GradientTransformation, as_transformation


@dataclass(frozen=True)
class Place:
    """Where a part stands.

    labels: of the groups, names and arguments that lead to it. masks: those that it is under, from
    the innermost. inside: the wrappers that it is inside of. recipe: the name of the outermost
    recipe that made it, "" for what the user made. given: the transformations that were given to
    recipes as arguments: the user made these.
    """

    labels: tuple[str, ...] = ()
    masks: tuple[Mask, ...] = ()
    inside: tuple[GradientTransformation, ...] = ()
    recipe: str = ""
    given: tuple[GradientTransformation, ...] = ()

    def under(self, label: str, *masks: Mask) -> Place:
        """Below a label, and under further masks."""
        labels = (*self.labels, label) if label else self.labels
        return replace(self, labels=labels, masks=(*masks, *self.masks))


@dataclass(frozen=True)
class Part:
    """A recipe, or a transformation that runs by itself.

    name: unique among the parts. own: the rule's own state, None for a recipe. numbers: its
    hyperparameters at the next step, trees of numbers by argument.
    """

    name: str
    place: Place
    transformation: GradientTransformation
    own: OptState
    numbers: dict[str, Any]


def parts_of(who: str, tx: GradientTransformation, state: OptState) -> list[Part]:
    """The parts in the order in which they run, each before what is inside of it.

    Raises: TypeError if tx is a bare pair of functions; ValueError for a state that is not tx's.
    """
    tx, state = as_transformation(tx, f"{who}: tx"), unboxed(state)
    if tx._is_pair:
        raise TypeError(f"{who}: {tx} is a pair of functions, whose numbers cannot be read")
    try:
        return list(_named(_begin(tx, state, Place())))
    except StateError as error:
        raise located_in(state, error, f"{who}: {tx.definition.name}") from error.__cause__


def _named(parts: Iterable[Part]) -> Iterator[Part]:
    """The parts with unique names: those of equal name get the labels that lead to them, if these
    differ, and a number if they are still equal."""
    found = list(parts)
    labels: dict[str, set[tuple[str, ...]]] = {}
    for part in found:
        labels.setdefault(part.name, set()).add(part.place.labels)
    names = [
        ".".join((*part.place.labels, part.name)) if len(labels[part.name]) > 1 else part.name
        for part in found
    ]
    several, seen = Counter(names), Counter[str]()
    for part, name in zip(found, names, strict=True):
        number = f"[{seen[name]}]" if several[name] > 1 else ""
        seen[name] += 1
        yield replace(part, name=f"{name}{number}")


def _begin(tx: GradientTransformation, state: OptState, place: Place) -> Iterator[Part]:
    return _walk(tx, iter(tx._composite._split(state, "")), place)


def _walk(tx: GradientTransformation, states: Iterator[Held], place: Place) -> Iterator[Part]:
    """The parts of a transformation; states: those of its links, in their order."""
    if any(tx is mine for mine in place.given):
        place = replace(place, recipe="")
    match tx:
        case Recipe():
            yield from _recipe(tx, states, place)
        case NamedChain():
            for name, part in zip(tx.names, tx.parts, strict=True):
                yield from _walk(part, states, place.under(name))
        case Chain():
            for part in tx.parts:
                yield from _walk(part, states, place)
        case Masked():
            yield from _walk(tx.inner, states, place.under("", tx._mask))
        case Partition():
            for label, part in tx.transforms.items():
                yield from _walk(part, states, place.under(str(label), tx._group(label)))
        case _:
            yield from _link(tx, next(states).state, place)


def _link(tx: GradientTransformation, state: OptState, place: Place) -> Iterator[Part]:
    """A transformation that runs by itself, and what is inside of it."""
    own = split_count(state)[1] if isinstance(tx, Ruled) else state
    numbers = _numbers(tx, state)
    inside = tx._inside_at(state)
    if isinstance(tx, Injected) and inside[0].transformation._is_pair:
        numbers = tx._next(state)  # the only place where they can be read
    name = tx.definition.name
    shown = f"{place.recipe}.{name}" if place.recipe else name
    yield Part(shown, place, tx, own, numbers)
    for label, inner, its_state in inside:
        below = replace(place.under(label), inside=(*place.inside, tx))
        yield from _begin(inner, its_state, below)


def _numbers(tx: GradientTransformation, state: OptState) -> dict[str, Any]:
    """The numbers of one transformation at the next step."""
    if not isinstance(tx, Ruled):
        names = () if isinstance(tx, Injected) else tx.definition.dynamic
        return {n: tx.arguments[n] for n in names if tx.definition.is_number(n)}
    own, count, _ = tx.read_count(state)
    numbers = dict(tx.numbers_at(count))
    # The length of a cycle is a schedule of the inner steps, which the wrapper counts.
    for name in _cycles(tx):
        numbers[name] = at(tx.arguments[name], getattr(own, "gradient_step", None))
    if is_named_tuple(own):
        numbers |= {name: getattr(own, name) for name in adapted_fields(type(own))}
    return numbers


def _cycles(tx: GradientTransformation) -> list[str]:
    """The arguments that are a schedule or a whole number but not a hyperparameter."""
    kinds = tx.definition.parameters.items()
    return [n for n, kind in kinds if isinstance(kind, Instance) and kind.value_class is Schedule]


# -- recipes ---------------------------------------------------------------------------------------


class _Witness:
    """A schedule that remembers the first number that was taken from it.

    A recipe's schedules are read by its links, each at the count of its own state. So the recipe is
    made again with witnesses in their place: what these remember is what the links use.
    """

    def __init__(self, schedule: Schedule):
        self.schedule = schedule
        self.number: Any = None

    def __call__(self, step: Any) -> Any:
        """The number at this step."""
        number = self.schedule(step)
        self.number = number if self.number is None else self.number
        return number


def _recipe(tx: Recipe, states: Iterator[Held], place: Place) -> Iterator[Part]:
    """The recipe, with the numbers that its links were seen to use, and then the links."""
    witnesses: dict[str, Any] = {}
    for name in tx.definition.dynamic:
        if tx.definition.is_number(name) or name in _cycles(tx):
            witnesses[name] = jax.tree.map(_witness, tx.arguments[name], is_leaf=_is_schedule)
    watched = any(isinstance(x, _Witness) for x in jax.tree.leaves(witnesses))
    schedules = jax.tree.map(as_schedule, witnesses)
    body = tx.definition.call({**tx.arguments, **schedules}) if watched else tx.body
    name = tx.definition.name
    inside = replace(
        place, recipe=place.recipe or name, given=(*place.given, *_given_to(tx.arguments))
    )
    made = list(_walk(body, states, inside))
    numbers = {n: jax.tree.map(_remembered, x) for n, x in witnesses.items()}
    shown = f"{place.recipe}.{name}" if place.recipe else name
    yield Part(shown, place, tx, None, numbers)
    yield from made


def _witness(x: Any) -> Any:
    return _Witness(x) if isinstance(x, Schedule) else x


def _remembered(x: Any) -> Any:
    return x.number if isinstance(x, _Witness) else x


def _is_schedule(x: object) -> bool:
    return isinstance(x, Schedule)


def _given_to(arguments: Any) -> Sequence[GradientTransformation]:
    def is_one(x: object) -> bool:
        return isinstance(x, GradientTransformation)

    return [x for x in jax.tree.leaves(dict(arguments), is_leaf=is_one) if is_one(x)]
