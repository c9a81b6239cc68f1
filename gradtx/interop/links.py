"""A state as `migrate` sees it: the states of its links, and in each the arrays by name.

An array has a field (`mu`), and the path of the parameter that it belongs to, `encoder/kernel`; a
count belongs to the whole link. A link is identified by the name of its class, which is the same in
every library, by the names under which chains and groups hold it and, if the transformation that
made the state is known, by that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import DictKey, GetAttrKey, keystr, tree_flatten_with_path

from gradtx.core.dtypes import is_inexact
from gradtx.core.leaves import KeyPath, children, shown
from gradtx.core.origin import StateError
from gradtx.core.problem import NegatedState
from gradtx.core.ruled import Ruled
from gradtx.core.state import (
    LeafState,
    OptState,
    Params,
    ScaleByScheduleState,
    ScheduledState,
    is_named_tuple,
)
from gradtx.core.transformation import GradientTransformation
from gradtx.precision.formats import is_stored

# Wrappers that do not run what is inside at every step, by the names of their classes: the field of
# the inner state, and the field in which they count its steps themselves.
_SKIPPING: dict[str, tuple[str, str | None]] = {
    "AccumulateState": ("inner_opt_state", "gradient_step"),
    "MultiStepsState": ("inner_opt_state", "gradient_step"),
    "ApplyIfFiniteState": ("inner_state", None),
    "FiniteGuardState": ("inner_state", None),
    "DynamicLossScaleState": ("inner_state", None),
    "ConditionallyMaskState": ("inner_state", None),
    "ConditionallyTransformState": ("inner_state", None),
    "SAMState": ("opt_state", None),
}
# The fields, besides `Count`s, in which a class counts the steps of the run.
_STEPS = {
    "ConditionallyMaskState": "step",
    "ConditionallyTransformState": "step",
    "InjectStatefulHyperparamsState": "count",
}
# What counts are called, and their values before the first update.
_COUNTS = {"count": 0, "t": 0, "step_count": 1}


@dataclass(frozen=True, eq=False)
class Slot:
    """An array of a state, or one that is stored in another format.

    path: its key path; place: that of its field, as it is printed. leaf: the path of its parameter,
    None for what belongs to the whole link. clock: whether it counts the steps of the run, rather
    than those of the moments beside it; first: the value of a count before the first update. at:
    where in the state it counts; domain: the wrappers around that place that skip steps.
    """

    path: KeyPath
    place: str
    field: str
    leaf: str | None
    value: Any
    clock: bool = False
    first: int | None = None
    at: KeyPath = ()
    domain: tuple[str, ...] = ()

    @property
    def is_mean(self) -> bool:
        """Whether it holds floating-point numbers."""
        return _is_float(self.value)

    def having(self, value: Any) -> Slot:
        """The same with another value."""
        return replace(self, value=value)


class Where(NamedTuple):
    """Where a node of a state is.

    names: the keys under which chains and groups hold it. within: the classes around it; domain:
    those of them that skip steps.
    """

    path: KeyPath = ()
    names: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    domain: tuple[str, ...] = ()

    def child(self, key: KeyPath) -> Where:
        """A part of a container."""
        label = key[0].key if isinstance(key[0], DictKey) else None
        names = (*self.names, label) if isinstance(label, str) else self.names
        return self._replace(path=self.path + key, names=names)

    def inside(self, path: KeyPath, kind: str) -> Where:
        """The state held by the field at `path` of a link's state of this kind."""
        skips, _ = _SKIPPING.get(kind, ("", None))
        domain = (*self.domain, kind) if path[-1].name == skips else self.domain
        return Where(path, self.names, (*self.within, kind), domain)


@dataclass(frozen=True, eq=False)
class LinkState:
    """The state of one link, without those of the links inside.

    kind: the name of its class; tx: what made it, if that is known.
    """

    where: Where
    kind: str
    slots: tuple[Slot, ...]
    tx: GradientTransformation | None = None

    @cached_property
    def leaves(self) -> tuple[Slot, ...]:
        """What belongs to parameters."""
        return tuple(x for x in self.slots if x.leaf is not None)

    @cached_property
    def whole(self) -> dict[str, Slot]:
        """What belongs to the link as a whole, by field."""
        return {x.field: x for x in self.slots if x.leaf is None}

    @property
    def is_negated(self) -> bool:
        """Whether it belongs to the negated objective, inside a `maximize`."""
        return NegatedState.__name__ in self.where.within

    @property
    def is_clock(self) -> bool:
        """Whether it only counts the steps of the run."""
        return all(x.clock for x in self.slots)

    @property
    def counts_its_own(self) -> bool:
        """Whether its rule itself reads the count, for example to correct a bias, not only a
        schedule."""
        if not isinstance(self.tx, Ruled):
            return False
        return "step" in self.tx.inputs.names | self.tx.precompute_inputs.names

    @property
    def definition(self) -> str | None:
        """The name of the definition that made it, if that is known."""
        return None if self.tx is None else self.tx.definition.name

    def __str__(self) -> str:
        of = f" of {self.tx}" if self.tx is not None else ""
        return f"{keystr(self.where.path) or 'the root'} ({self.kind or 'state'}{of})"


# The state of a rule that names no class: only its definition identifies it.
NAMELESS = ("", LeafState.__name__)


def links_in(state: OptState, params: Params, tx: GradientTransformation | None) -> list[LinkState]:
    """The states of all links in a state, the outer ones first. tx: what made it, if known."""
    by_path = {} if tx is None else transformations(tx, state)
    found = _Reader(params).read(state, Where())
    return [replace(link, tx=by_path.get(keystr(link.where.path))) for link in found]


def transformations(
    tx: GradientTransformation, state: OptState, path: str = ""
) -> dict[str, GradientTransformation]:
    """The transformation of each link, by the path of its state; inside a wrapper, as far as it is
    clear which part of the state it keeps. Raises: StateError for the state of another
    transformation."""
    found: dict[str, GradientTransformation] = {}
    for link, held in zip(tx._links, tx._composite._split(state, ""), strict=True):
        own, where = held.state, path + held.path
        found[where] = link.transformation
        if isinstance(own, ScheduledState):
            own, where = own.inner_state, f"{where}.inner_state"
        inner = _inside(link.transformation)
        fields = own._fields if is_named_tuple(own) else ()
        holding = [name for name in fields if _holds_state(getattr(own, name))]
        if len(inner) == len(holding) == 1:
            name = holding[0]
            try:
                found |= transformations(inner[0], getattr(own, name), f"{where}.{name}")
            except StateError:
                continue  # a wrapper that keeps the inner state in a form of its own
    return found


def _inside(tx: GradientTransformation) -> list[GradientTransformation]:
    return tx._inside if isinstance(tx, Ruled) else list(tx.parts)


def _holds_state(x: Any, classes: frozenset[type] = frozenset()) -> bool:
    """Whether a link's state is in x: a named tuple that is neither a container of parameters (of
    one of `classes`) nor an array in another format, and not empty."""

    def is_state(y: object) -> bool:
        return _is_state(y, classes)

    return any(map(is_state, jax.tree.leaves(x, is_leaf=is_state)))


def _is_state(x: object, classes: frozenset[type]) -> bool:
    named = is_named_tuple(x) and not is_stored(x) and type(x) not in classes
    return named and bool(type(x)._fields)  # type: ignore[attr-defined]


class _Reader:
    """Reads states for given params, in which named tuples may occur too."""

    def __init__(self, params: Params):
        self.classes: frozenset[type] = frozenset(_classes_of(params))
        self.bare = np.shape(params) if jax.tree_util.all_leaves([params]) else None

    def read(self, node: OptState, where: Where) -> Iterator[LinkState]:
        """The links in a node."""
        if _is_state(node, self.classes):
            yield from self._link(node, where)
        elif _holds_state(node, self.classes):
            parts, _ = children(node)
            if any(type(x).__name__ == NegatedState.__name__ for x in parts.values()):
                where = where._replace(within=(*where.within, NegatedState.__name__))
            for key, x in parts.items():
                yield from self.read(x, where.child(key))
        elif jax.tree.leaves(node):
            yield _made("", where, list(self._slots(node, where.path, "")))

    def _link(self, node: Any, where: Where) -> Iterator[LinkState]:
        """A link's own state, and then those inside."""
        slots: list[Slot] = []
        start = where.path
        if type(node).__name__ == ScheduledState.__name__:
            # The count that `ScheduledState` keeps beside a state is a slot of its own.
            path = (*where.path, GetAttrKey("count"))
            slots.append(Slot(path, keystr(path), "count", None, node.count, clock=True))
            node, start = node.inner_state, (*where.path, GetAttrKey("inner_state"))
            if not _is_state(node, self.classes):
                yield _made("", where, [*slots, *self._slots(node, start, "")])
                return
        # Optax has several classes for a state that is only a count.
        counts = node._fields == ScaleByScheduleState._fields
        kind = (ScaleByScheduleState if counts else type(node)).__name__
        inner = []
        for name, x in zip(node._fields, node, strict=True):
            path = (*start, GetAttrKey(name))
            if _holds_state(x, self.classes):
                inner.append((x, where.inside(path, kind)))
            else:
                slots += self._slots(x, path, name)
        yield _made(kind, where, slots)
        for x, below in inner:
            yield from self.read(x, below)

    def _slots(self, x: Any, path: KeyPath, name: str) -> Iterator[Slot]:
        """The arrays of a field."""
        for below, value in tree_flatten_with_path(x, is_leaf=is_stored)[0]:
            leaf = shown(below) if below else None
            if leaf is None and self.bare == np.shape(value) and _is_float(value):
                leaf = ""  # the params are this one array
            yield Slot(path + below, keystr(path), name, leaf, value)


def _made(kind: str, where: Where, slots: list[Slot]) -> LinkState:
    """The state of a link, with what is known about its counts."""
    field, counted = _SKIPPING.get(kind, ("", None))
    inside = where.inside((*where.path, GetAttrKey(field)), kind)
    # A count beside moments counts their updates; one that is alone, the steps of the run.
    alone = not any(x.leaf is not None or _is_float(x.value) for x in slots)

    def known(x: Slot) -> Slot:
        at = inside if x.field == counted else where
        whole = x.leaf is None and _is_integer(x.value)
        of_run = x.field in (counted, _STEPS.get(kind)) or (alone and x.field == "count")
        clock = x.clock or (whole and of_run)
        first = _COUNTS.get(x.field, 0 if clock else None) if whole else None
        return replace(x, clock=clock, first=first, at=at.path, domain=at.domain)

    return LinkState(where, kind, tuple(map(known, slots)))


def _classes_of(params: Params) -> Iterator[type]:
    """The classes of the named tuples among the containers of the params."""
    if is_named_tuple(params):
        yield type(params)
    for key, x in children(params)[0].items():
        if key:
            yield from _classes_of(x)


def _is_float(x: Any) -> bool:
    return is_stored(x) or (hasattr(x, "dtype") and is_inexact(x)) or isinstance(x, float)


def _is_integer(x: Any) -> bool:
    whole = hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.integer)
    return np.shape(x) == () and (whole or type(x) is int) if not is_stored(x) else False
