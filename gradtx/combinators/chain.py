"""Transformations one after the other."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from gradtx.core.definition import Definition
from gradtx.core.origin import Held, restored_hint, wrong
from gradtx.core.state import OptState, Params, is_named_tuple
from gradtx.core.transformation import GradientTransformation, Link, as_transformation
from gradtx.core.value import show

__all__ = ["chain", "named_chain"]


class Chain(GradientTransformation):
    """The parts in a row; the state is the tuple of theirs."""

    @property
    def parts(self) -> tuple[GradientTransformation, ...]:
        """The transformations in their order."""
        return self.arguments["args"]

    def replace(self, **changes: Any) -> Self:
        """The chain with hyperparameters of its parts changed, each in the one part that has it.

        Raises: TypeError where no part has the argument or several have it.
        """
        parts = list(self.parts)
        for name, value in changes.items():
            owners = [i for i, part in enumerate(parts) if part._has(name)]
            if len(owners) != 1:
                which = "no part has" if not owners else f"{len(owners)} parts have"
                raise TypeError(
                    f"{self.definition.name}: {which} an argument {name!r}; replace it in the part "
                    f"itself. The parts: {', '.join(part.definition.name for part in parts)}"
                )
            parts[owners[0]] = parts[owners[0]].replace(**{name: value})
        return self._with_parts(tuple(parts))

    def _with_parts(self, parts: tuple[GradientTransformation, ...]) -> Self:
        return self._of(self.definition, {**self.arguments, "args": parts})

    def _has(self, name: str) -> bool:
        return any(part._has(name) for part in self.parts)

    @functools.cached_property
    def _links(self) -> tuple[Link, ...]:
        return tuple([link for part in self.parts for link in part._links])

    @functools.cached_property
    def _composites(self) -> list[GradientTransformation]:
        return [part._composite for part in self.parts]

    def _split(self, state: OptState, path: str) -> list[Held]:
        states = zip(self._states(state, path), self._keys, strict=True)
        return [
            held
            for part, (own, key) in zip(self._composites, states, strict=True)
            for held in part._split(own, f"{path}[{key!r}]")
        ]

    def _join(self, states: Iterator[OptState]) -> OptState:
        return tuple([part._join(states) for part in self._composites])

    def _init(self, params: Params) -> OptState:
        return tuple([part._init(params) for part in self.parts])

    @property
    def _keys(self) -> Iterable[Any]:
        """By which the states of the parts are found in the state."""
        return range(len(self.parts))

    def _states(self, state: OptState, path: str) -> tuple[OptState, ...]:
        plain = isinstance(state, tuple | list) and not is_named_tuple(state)
        if not plain or len(state) != len(self.parts):
            parts = ", ".join(part.definition.name for part in self.parts)
            kept = f"the tuple of {len(self.parts)} that {self.definition.name}({parts}) keeps"
            raise wrong(state, kept, path, restored_hint(state, self._keys))
        return tuple(state)

    def __repr__(self) -> str:
        return f"{self.definition.name}({', '.join(map(show, self.parts))})"


class NamedChain(Chain):
    """Named parts in a row; the state is the dict of theirs."""

    @property
    def parts(self) -> tuple[GradientTransformation, ...]:
        """The transformations in their order."""
        return self.arguments["parts"]

    def _with_parts(self, parts: tuple[GradientTransformation, ...]) -> Self:
        return self._of(self.definition, {**self.arguments, "parts": parts})

    def _join(self, states: Iterator[OptState]) -> OptState:
        return dict(zip(self.names, super()._join(states), strict=True))

    def _init(self, params: Params) -> OptState:
        return dict(zip(self.names, super()._init(params), strict=True))

    @property
    def _keys(self) -> Iterable[Any]:
        return self.names

    def _states(self, state: OptState, path: str) -> tuple[OptState, ...]:
        if not isinstance(state, Mapping) or state.keys() != set(self.names):
            raise wrong(state, f"the dict of {', '.join(self.names)} of named_chain", path)
        return tuple(state[name] for name in self.names)

    def __repr__(self) -> str:
        pairs = zip(self.names, self.parts, strict=True)
        return f"named_chain({', '.join(f'({name!r}, {part!r})' for name, part in pairs)})"


def _chain(*args: GradientTransformation) -> Any:
    return args


def _named_chain(names: tuple[str, ...], parts: tuple[GradientTransformation, ...]) -> Any:
    return names, parts


_chain.__name__, _named_chain.__name__ = "chain", "named_chain"
_CHAIN = Definition(_chain, Chain, stored_as="_CHAIN")
_NAMED_CHAIN = Definition(_named_chain, NamedChain, stored_as="_NAMED_CHAIN")


def chain(*args: Any) -> GradientTransformation:
    """Apply transformations in the order given: the updates of each are the input of the next.

    Between them nothing is rounded. Neighbouring rules on single leaves run as one body a leaf.
    Optax's transformations may be among them. The state is the tuple of the parts' states.

    Raises: TypeError, with the position, for an argument that is no transformation.
    """
    return _CHAIN(
        *(as_transformation(tx, f"chain: argument {i}") for i, tx in enumerate(args, start=1))
    )


def named_chain(*args: tuple[str, Any]) -> GradientTransformation:
    """Like `chain`, of `(name, transformation)` pairs; the state is a dict by name.

    Raises: ValueError for a name that stands twice, TypeError for what is no such pair.
    """
    for i, pair in enumerate(args, start=1):
        if not (isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str)):
            raise TypeError(
                f"named_chain: argument {i} must be a pair (name, transformation), got {show(pair)}"
            )
    names = tuple(name for name, _ in args)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"named_chain: the name {twice[0]!r} stands twice")
    parts = tuple(as_transformation(tx, f"named_chain: {name}") for name, tx in args)
    return _NAMED_CHAIN(names, parts)
