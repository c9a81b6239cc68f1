"""PyTorch's definitions are called `torch.NAME`, as they are reached from gradtx."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec

from gradtx.core.definition import Definition
from gradtx.core.recipe import Recipe
from gradtx.core.schedule import Schedule
from gradtx.core.transformation import GradientTransformation

P = ParamSpec("P")


def qualified(name: str) -> str:
    """The name by which gradtx reaches it."""
    return f"torch.{name}"


def recipe(function: Callable[P, Any]) -> Definition[P, GradientTransformation]:
    """A named composition, as `gradtx.recipe` makes it."""
    return Definition(function, Recipe, name=qualified(function.__name__))


def schedule(function: Callable[P, Any]) -> Definition[P, Schedule]:
    """A function of the step, as `gradtx.schedule` makes it."""
    return Definition(function, Schedule, name=qualified(function.__name__))
