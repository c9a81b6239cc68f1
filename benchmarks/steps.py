"""The steps whose programs are counted: the recipes, and the ways to train that Optax lacks."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jax.typing import DTypeLike

import gradtx
from benchmarks.compiler import Training
from benchmarks.parameters import PARAMETER_SETS
from benchmarks.recipes import LIBRARIES, RECIPES, Optimizer, Recipe, step_of
from benchmarks.ways import WAYS, Way
from gradtx import Params


@dataclass(frozen=True)
class CountedStep:
    """An optimizer, by library, with the dtype of the parameters.

    floor: the bytes per parameter that a step cannot avoid. program: the same of its program.
    """

    title: str
    build: Callable[[ModuleType], Optimizer]
    floor: float
    program: float
    dtype: DTypeLike = np.float32
    libraries: tuple[str, ...] = tuple(LIBRARIES)

    def training(self, library: str, params: Params) -> Training:
        """A step on parameters that are only shapes."""
        lib = LIBRARIES[library]
        params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, self.dtype), params)
        tx = self.build(lib)
        return Training(step_of(lib, tx), params, jax.eval_shape(tx.init, params), params)


def _of_recipe(recipe: Recipe) -> CountedStep:
    return CountedStep(recipe.title, recipe.build, recipe.floor, recipe.program or recipe.floor)


def _of_way(title: str, way: Way) -> CountedStep:
    def build(_: ModuleType) -> Optimizer:
        return way.build(1e-3)

    floors = (way.floor, way.program or way.floor)
    return CountedStep(title, build, *floors, dtype=way.dtype, libraries=("gradtx",))


def _name(title: str) -> str:
    return re.sub(r"[^a-z0-9+]+", "_", title.lower())


STEPS = {name: _of_recipe(recipe) for name, recipe in RECIPES.items()} | {
    _name(title): _of_way(title, way)
    for title, way in WAYS.items()
    if way.library is gradtx and title != "float32"
}


def on_set(library: str, step: str, parameters: str) -> Training:
    """A step on a set of parameters, all by their names."""
    shapes: Any = PARAMETER_SETS[parameters].shapes(quick=False)
    params = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, np.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )
    return STEPS[step].training(library, params)
