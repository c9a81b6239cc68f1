"""The three decorators that turn a function of hyperparameters into a definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from gradtx.core.definition import Definition
from gradtx.core.hyperparameters import Number, Numbers
from gradtx.core.per_leaf import LeafTransformation
from gradtx.core.per_tree import TreeTransformation
from gradtx.core.recipe import Recipe
from gradtx.core.ruled import Ruled
from gradtx.core.transformation import GradientTransformation

P = ParamSpec("P")
T = TypeVar("T", bound=Ruled)


def per_leaf(function: Callable[P, Any]) -> Definition[P, GradientTransformation]:
    """Define a transformation by the maths of one array.

    The function takes hyperparameters (annotated `Decay`, `NonNegative`, ...: numbers, arrays or
    schedules) and static options, and returns a `Rule`, or only an update function when there is
    no state. See `Rule` for what init and update may ask for by name.

    Raises at decoration: TypeError if the rule asks for a name that nobody provides, or if a
    hyperparameter has the name of an attribute of transformations, such as `init`.
    """
    return _probed(Definition(function, LeafTransformation))


def per_tree(function: Callable[P, Any]) -> Definition[P, GradientTransformation]:
    """Define a transformation by the maths of a whole tree, like `per_leaf` otherwise."""
    return _probed(Definition(function, TreeTransformation))


def recipe(function: Callable[P, Any]) -> Definition[P, GradientTransformation]:
    """Define a named composition: a function that returns a chain and has no maths of its own."""
    definition = Definition(function, Recipe)
    definition.check_names()
    return definition  # type: ignore[return-value]


def _probed(definition: Definition[P, T]) -> Definition[P, GradientTransformation]:
    """Build one value with defaults and example numbers, so that wrong names fail at once."""
    definition.check_names()
    arguments: dict[str, Any] = {}
    for name, parameter in definition.signature.parameters.items():
        kind = definition.parameters[name]
        if parameter.default is not parameter.empty:
            arguments[name] = parameter.default
        elif isinstance(kind, Number) and not isinstance(kind, Numbers):
            arguments[name] = kind.example
        else:
            return definition  # type: ignore[return-value]
    definition.value_class._of(definition, definition._convert(arguments))._check()
    return definition  # type: ignore[return-value]
