"""Decorators that name definitions `torch.NAME`, as they are reached from gradtx."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar

from gradtx.core.definition import Definition
from gradtx.core.documentation import Documentation
from gradtx.core.per_leaf import LeafTransformation
from gradtx.core.per_tree import TreeTransformation
from gradtx.core.recipe import Recipe
from gradtx.core.schedule import Schedule
from gradtx.core.transformation import GradientTransformation

P = ParamSpec("P")
S = TypeVar("S", bound=Schedule)

# An entry of `optimizer.state_dict()["state"][number]` is either a field of gradtx's state, given
# by its name, or computed from the step and the arguments that a function asks for.
Entry = str | Callable[..., float]


class OptimizerDefinition(Definition[P, GradientTransformation]):  # noqa: D101
    # One of PyTorch's optimizers.
    __doc__ = Documentation()

    # Where gradtx's state holds what PyTorch keeps.
    entries: Mapping[str, Entry]
    # What PyTorch's groups hold for it besides its arguments.
    fixed: Mapping[str, bool] = MappingProxyType({})


def definition_of(optimizer: GradientTransformation) -> OptimizerDefinition[...]:
    """The definition of one of PyTorch's optimizers."""
    definition = optimizer.definition
    assert isinstance(definition, OptimizerDefinition)
    return definition


def qualified(name: str) -> str:
    """The name of a definition as it is reached from gradtx."""
    return f"torch.{name}"


def recipe(**entries: Entry) -> Callable[[Callable[P, Any]], OptimizerDefinition[P]]:
    """Define one of PyTorch's optimizers, like `gradtx.recipe`.

    entries: for PyTorch's name of each part of the state, gradtx's. Parts that exist only with some
    arguments are looked for where gradtx's state has the field.
    """

    def decorate(function: Callable[P, Any]) -> OptimizerDefinition[P]:
        definition = OptimizerDefinition(function, Recipe, name=qualified(function.__name__))
        definition.entries = entries
        return definition

    return decorate


def schedule(function: Callable[P, Any]) -> Definition[P, Schedule]:
    """Define schedules, like `gradtx.schedule`."""
    return schedule_of(Schedule)(function)


def schedule_of(value_class: type[S]) -> Callable[[Callable[P, Any]], Definition[P, S]]:
    """The same, for a subclass of `Schedule`."""

    def decorate(function: Callable[P, Any]) -> Definition[P, S]:
        return Definition(function, value_class, name=qualified(function.__name__))

    return decorate


def per_leaf(function: Callable[P, Any]) -> Definition[P, GradientTransformation]:
    """Define a rule of one array, like `gradtx.per_leaf`."""
    return Definition(function, LeafTransformation, name=qualified(function.__name__))


def per_tree(function: Callable[P, Any]) -> Definition[P, GradientTransformation]:
    """Define a rule of a tree, like `gradtx.per_tree`."""
    return Definition(function, TreeTransformation, name=qualified(function.__name__))
