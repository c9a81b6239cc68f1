"""Run transformations in sequence."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Self

from gradtx.combinators.of_parts import OfParts
from gradtx.core.definition import makes
from gradtx.core.hyperparameters import Instance
from gradtx.core.origin import Held, restored_hint, wrong
from gradtx.core.printing import code, show
from gradtx.core.state import OptState, Params, is_named_tuple
from gradtx.core.transformation import (
    GradientTransformation,
    Link,
    TransformationLike,
)
from gradtx.core.value import Labelled

__all__ = ["chain", "named_chain"]


class Chain(OfParts):
    """The parts in sequence; the state is the tuple of their states."""

    @property
    def parts(self) -> tuple[GradientTransformation, ...]:
        """The transformations in their order."""
        return self.arguments["args"]

    def replace(self, **changes: Any) -> Self:
        """The chain with some hyperparameters changed, each in the one part that has it.

        Raises: TypeError if no part, or more than one, has the argument.
        """
        hint = f". The parts: {', '.join(part.definition.name for part in self.parts)}"
        return self._with_parts(self._parts_with(changes, self._by_key, hint))

    def _with_parts(self, parts: Mapping[Any, GradientTransformation]) -> Self:
        return self._of(self.definition, {"args": tuple(parts.values())})

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
        """The keys under which the state holds the states of the parts."""
        return range(len(self.parts))

    def _states(self, state: OptState, path: str) -> tuple[OptState, ...]:
        plain = isinstance(state, tuple | list) and not is_named_tuple(state)
        if not plain or len(state) != len(self.parts):
            parts = ", ".join(part.definition.name for part in self.parts)
            kept = f"the tuple of {len(self.parts)} that {self.definition.name}({parts}) keeps"
            raise wrong(state, kept, path, restored_hint(state, self._keys))
        return tuple(state)

    def _text(self) -> str:
        return f"{self.definition.name}({', '.join(map(code, self.parts))})"


class NamedChain(Chain):
    """Named parts in sequence; the state is the dict of their states."""

    _for_users = (*Chain._for_users, "names")

    @property
    def parts(self) -> tuple[GradientTransformation, ...]:
        """The transformations in their order."""
        return tuple(self.arguments["args"].values())

    def _with_parts(self, parts: Mapping[Any, GradientTransformation]) -> Self:
        return self._of(self.definition, {"args": Labelled(parts, parts.values())})

    def _join(self, states: Iterator[OptState]) -> OptState:
        return dict(zip(self.names, super()._join(states), strict=True))

    def _init(self, params: Params) -> OptState:
        return dict(zip(self.names, super()._init(params), strict=True))

    @property
    def _by_key(self) -> Mapping[Any, GradientTransformation]:
        return dict(self.arguments["args"])

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parts in their order."""
        return tuple(self.arguments["args"])

    @property
    def _keys(self) -> Iterable[Any]:
        return self.names

    def _states(self, state: OptState, path: str) -> tuple[OptState, ...]:
        if not isinstance(state, Mapping) or state.keys() != set(self.names):
            raise wrong(state, f"the dict of {', '.join(self.names)} of named_chain", path)
        return tuple(state[name] for name in self.names)

    def _text(self) -> str:
        pairs = zip(self.names, self.parts, strict=True)
        return f"named_chain({', '.join(f'({name!r}, {code(part)})' for name, part in pairs)})"


@makes(Chain)
def chain(*args: TransformationLike) -> tuple[GradientTransformation, ...]:
    """Apply transformations in the order given, each to the updates of the one before.

        u = last(... second(first(g)))

    Nothing is rounded between them, and neighbouring rules of single leaves run as one body per
    leaf. A hyperparameter that only one part has is read and replaced as the chain's own,
    `tx.learning_rate` and `tx.replace(learning_rate=3e-4)`.

    Args:
        args: the transformations, gradtx's or Optax's. The first sees the gradient; what the last
            returns is added to the parameters, so one of them has to turn the gradient downhill,
            such as `scale_by_learning_rate`, or a whole optimizer.

    State: the tuple of the parts' states.

    Raises: TypeError, with the position, for an argument that is not a transformation.

    Example:
        >>> tx = gradtx.chain(gradtx.clip(1.0), gradtx.scale(-0.1))
        >>> grads = jnp.array([50.0, -0.5])
        >>> updates, state = tx.update(grads, tx.init(grads))
        >>> updates
        Array([-0.1 ,  0.05], dtype=float32)
        >>> tx.replace(max_delta=5.0)
        chain(clip(max_delta=5.0), scale(step_size=-0.1))

    See also: `named_chain`, `partition`.
    """
    return args


class _NamedParts(Instance):
    """Pairs (name, transformation), stored by name."""

    def convert_all(self, who: str, values: tuple[Any, ...]) -> Labelled:
        for i, pair in enumerate(values, start=1):
            if not (isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str)):
                raise TypeError(
                    f"{who}: argument {i} must be a pair (name, transformation), got {show(pair)}"
                )
        names = [name for name, _ in values]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{who}: the name {twice[0]!r} is given twice")
        return Labelled(names, (self.convert(f"{who}: {name}", tx) for name, tx in values))


NamedPart = Annotated[tuple[str, TransformationLike], _NamedParts(GradientTransformation)]


@makes(NamedChain)
def named_chain(*args: NamedPart) -> tuple[tuple[str, GradientTransformation], ...]:
    """Apply named transformations in the order given, with a state that is a dict by name.

        u = last(... second(first(g)))

    It is `chain` but for the names, with which `state["clip"]` stays valid when parts are added or
    moved.

    Args:
        args: pairs `(name, transformation)`, the transformations gradtx's or Optax's.

    State: the dict of the parts' states, by name.

    Raises: ValueError for a name given twice, TypeError for anything but such a pair.

    Example:
        >>> tx = gradtx.named_chain(("clip", gradtx.clip(1.0)), ("momentum", gradtx.trace(0.9)))
        >>> updates, state = tx.update(jnp.array([50.0]), tx.init(jnp.zeros(1)))
        >>> state["momentum"]
        TraceState(trace=Array([1.], dtype=float32))

    See also: `chain`.
    """
    return args
