"""PyTorch's definitions are called `torch.NAME`, as they are reached from gradtx."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec

from gradtx.core.definition import Definition
from gradtx.core.recipe import Recipe
from gradtx.core.schedule import Schedule
from gradtx.core.transformation import GradientTransformation

NAMESPACE = "torch"
P = ParamSpec("P")


def recipe(function: Callable[P, Any]) -> Definition[P, GradientTransformation]:
    """A named composition, as `gradtx.recipe` makes it."""
    return Definition(function, Recipe, namespace=NAMESPACE)


def schedule(function: Callable[P, Any]) -> Definition[P, Schedule]:
    """A function of the step, as `gradtx.schedule` makes it."""
    return Definition(function, Schedule, namespace=NAMESPACE)
