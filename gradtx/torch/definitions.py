"""Decorators that name definitions `torch.NAME`, by which gradtx reaches them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec

from gradtx.core.definition import Definition
from gradtx.core.recipe import Recipe
from gradtx.core.schedule import Schedule
from gradtx.core.transformation import GradientTransformation

P = ParamSpec("P")


def qualified(name: str) -> str:
    """The name of a definition as it is reached from gradtx."""
    return f"torch.{name}"


def recipe(function: Callable[P, Any]) -> Definition[P, GradientTransformation]:
    """Define a named composition, like `gradtx.recipe`."""
    return Definition(function, Recipe, name=qualified(function.__name__))


def schedule(function: Callable[P, Any]) -> Definition[P, Schedule]:
    """Define schedules, like `gradtx.schedule`."""
    return Definition(function, Schedule, name=qualified(function.__name__))
