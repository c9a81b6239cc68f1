"""Constructions read from text, by the public names."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping
from types import MappingProxyType, ModuleType
from typing import Any, TypeVar, overload

from gradtx import combinators, optimizers, precision, schedules, torch, transforms
from gradtx.core.definition import Definition
from gradtx.core.mask import matching
from gradtx.core.printing import show
from gradtx.core.reading import Names, ParseError, read
from gradtx.core.schedule import Schedule
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import Value
from gradtx.interop import names as optax_names

__all__ = ["ParseError", "parse"]

V = TypeVar("V", bound=Value)

_KINDS: Mapping[type[Value], str] = {
    GradientTransformation: "a transformation",
    Schedule: "a schedule",
}


@overload
def parse(text: str) -> Any: ...


@overload
def parse(text: str, kind: type[V]) -> V: ...


def parse(text: str, kind: type[Value] = Value) -> Any:
    """Read a transformation or a schedule from a text, as code or as `repr` prints it.

    No code is evaluated, so the text may come from a command line or a configuration. It may hold
    calls of gradtx's public definitions, also as `gradtx.adam` and `torch.adam`; numbers (`inf` and
    `nan` too), strings, True, False, None; tuples, lists and dicts; `matching(...)` and `~`; dtypes
    as they are printed, `bfloat16`; and arithmetic on schedules. Functions and arrays cannot be
    read: those belong into a program.

    Args:
        text: the construction, such as "chain(clip(1.0), adam(1e-3))".
        kind: `GradientTransformation` or `Schedule`, if it must be that.

    Raises: `ParseError`, a ValueError, which shows the place of what cannot be read, is unknown or
    is refused by what it is given to; TypeError for anything but text.

    Example:
        >>> tx = gradtx.parse("chain(clip(1.0), sgd(cosine_decay_schedule(0.1, 100)))")
        >>> tx.parts[0]
        clip(max_delta=1.0)
        >>> gradtx.parse(repr(tx)) == tx
        True
    """
    value = read(text, public_names())
    if isinstance(value, kind):
        return value
    wanted = _KINDS.get(kind, "a transformation or a schedule")
    made = next((what for each, what in _KINDS.items() if isinstance(value, each)), None)
    text = text.strip()
    raise ParseError(f"this is {made or show(value)}, not {wanted}", text, 0, len(text))


@functools.cache
def public_names() -> Names:
    """Whatever a text may call, by name: definitions, and functions that return their values."""
    modules = (combinators, optimizers, precision, schedules, transforms, optax_names)
    ours = {name: f for module in modules for name, f in _made(module, module.__all__)}
    # The parts of PyTorch's optimizers too: they print under these names.
    theirs = {f"torch.{name}": f for name, f in _made(torch, vars(torch))}
    return MappingProxyType({**ours, **theirs, "matching": matching})


def _made(module: ModuleType, names: Any) -> Iterator[tuple[str, Any]]:
    """The definitions, and the functions that say that they return a value."""
    for name in names:
        thing = getattr(module, name)
        if isinstance(thing, Definition):
            yield name, thing
        elif inspect.isfunction(thing):
            returned = inspect.signature(thing, eval_str=True).return_annotation
            if isinstance(returned, type) and issubclass(returned, Value):
                yield name, thing
