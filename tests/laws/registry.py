"""Every public transformation and schedule, with examples on which the laws are tried.

A new public name joins by an entry in one of the modules of `examples`; one without an entry fails
`test_registry.py`. An entry says how to build it and what is particular about it. Options that
change the state or the formula deserve an example of their own.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

import gradtx
from gradtx import GradientTransformation
from gradtx import torch as gt
from gradtx.core.definition import Definition
from gradtx.core.hyperparameters import is_static_zero

from .examples import collect
from .examples.essential import EXAMPLES as ESSENTIAL
from .examples.example import Example, ScheduleExample

__all__ = ["EXAMPLES", "SCHEDULES", "Example", "ScheduleExample"]

EXAMPLES: tuple[Example, ...] = collect("EXAMPLES")
SCHEDULES: tuple[ScheduleExample, ...] = collect("SCHEDULES")


def for_every(
    *, where: Callable[[Example], Any] = lambda example: True, slow: bool = False
) -> pytest.MarkDecorator:
    """Parametrise a test over the transformations for which `where` holds.

    A part is drawn, more of the first examples of the essential names than of the other examples
    and of other transformations; of a slow law half as many.
    """
    return pytest.mark.parametrize(
        "example",
        [
            pytest.param(e, id=str(e), marks=pytest.mark.one_in(parts(e) * (2 if slow else 1)))
            for e in EXAMPLES
            if where(e) and not e.narrow_params
        ],
    )


def parts(example: Example) -> int:
    """On one of how many like this one a law is tried."""
    return (12 if id(example) in _ESSENTIAL else 36) * (1 if is_first(example) else 8)


def is_first(example: Example) -> bool:
    """Whether the example is the first of its name: for laws that are slow to try."""
    return _FIRST[example.name] is example


_ESSENTIAL = set(map(id, ESSENTIAL))
_FIRST = {example.name: example for example in reversed(EXAMPLES)}


def for_every_schedule() -> pytest.MarkDecorator:
    """Parametrise a test over the schedules."""
    return pytest.mark.parametrize("example", SCHEDULES, ids=str)


# -- what is public ------------------------------------------------------------------------------


def public(kind: type) -> Iterator[str]:
    """The public names that make transformations, or schedules."""
    for prefix, module in (("", gradtx), ("torch.", gt), ("sharding.", gradtx.sharding)):
        yield from (prefix + name for name in module.__all__ if _makes(module, name, kind))


def _makes(module: ModuleType, name: str, kind: type) -> bool:
    thing = getattr(module, name)
    if isinstance(thing, Definition):
        return issubclass(thing.value_class, kind)
    if isinstance(thing, type):
        # The class itself is a way to make one: of a pair of functions.
        return thing is kind is GradientTransformation
    if inspect.isfunction(thing) and name != "with_extra_args_support":  # which makes none itself
        returned = inspect.signature(thing, eval_str=True).return_annotation
        return isinstance(returned, type) and issubclass(returned, kind)
    return False


def definitions(kind: type) -> list[tuple[str, Definition[Any, Any]]]:
    """The public definitions, whose arguments are checked one by one."""
    found = []
    for name in public(kind):
        prefix, _, last = name.rpartition(".")
        thing = getattr(getattr(gradtx, prefix) if prefix else gradtx, last)
        if isinstance(thing, Definition):
            found.append((name, thing))
    return found


# -- numeric hyperparameters ---------------------------------------------------------------------


@dataclass(frozen=True)
class Number:
    """One number among the arguments of a value."""

    label: str
    value: Any
    argument: str
    index: int | None

    def in_(self, tx: Any, x: Any) -> Any:
        """The same construction with `x` in place of this number."""
        if self.index is None:
            return tx.replace(**{self.argument: x})
        given = list(getattr(tx, self.argument))
        given[self.index] = x
        return tx.replace(**{self.argument: tuple(given)})


def numbers(tx: Any) -> list[Number]:
    """The numeric hyperparameters that were given as plain numbers."""
    found = []
    for name, value in tx.arguments.items():
        if not tx.definition.is_number(name):
            continue
        items = enumerate(value) if isinstance(value, tuple) else [(None, value)]
        for i, x in items:
            if isinstance(x, int | float) and not is_static_zero(x):
                found.append(Number(name if i is None else f"{name}[{i}]", x, name, i))
    return found
