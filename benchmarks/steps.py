"""The steps whose programs are counted: the recipes, and the ways to train that Optax lacks."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType

import jax
import numpy as np
from jax.typing import DTypeLike

import gradtx
from benchmarks.compiler import Training
from benchmarks.parameters import PARAMETER_SETS, Shapes, abstract
from benchmarks.recipes import LIBRARIES, RECIPES, Optimizer, Recipe, Step, step_of
from benchmarks.ways import WAYS, Way
from gradtx import OptState, Params, Updates


@dataclass(frozen=True)
class CountedStep:
    """An optimizer, by library, with the dtype of the parameters.

    floor: the bytes per parameter that a step cannot avoid. program: the same of its program.
    in_one_call: by `gradtx.step`, and not by update and apply_updates.
    """

    title: str
    build: Callable[[ModuleType], Optimizer]
    floor: float
    program: float
    dtype: DTypeLike = np.float32
    libraries: tuple[str, ...] = tuple(LIBRARIES)
    in_one_call: bool = False

    def training(self, library: str, shapes: Shapes) -> Training:
        """A step on parameters of these shapes."""
        lib, params = LIBRARIES[library], abstract(shapes, self.dtype)
        tx = self.build(lib)
        step = _in_one_call(tx) if self.in_one_call else step_of(lib, tx)
        return Training(step, params, jax.eval_shape(tx.init, params), params)

    def by_step(self, spared: float) -> CountedStep:
        """The same in one call, whose program is spared some bytes."""
        return replace(
            self,
            title=f"{self.title}, by gradtx.step",
            program=self.program - spared,
            libraries=("gradtx",),
            in_one_call=True,
        )


def _in_one_call(tx: Optimizer) -> Step:
    def step(params: Params, state: OptState, grads: Updates) -> tuple[Params, OptState]:
        return gradtx.step(tx, grads, state, params)

    return step


def _of_recipe(recipe: Recipe) -> CountedStep:
    return CountedStep(recipe.title, recipe.build, recipe.floor, recipe.program or recipe.floor)


def _of_way(title: str, way: Way) -> CountedStep:
    def build(_: ModuleType) -> Optimizer:
        return way.build(1e-3)

    floors = (way.floor, way.program or way.floor)
    return CountedStep(title, build, *floors, dtype=way.dtype, libraries=("gradtx",))


def _name(title: str) -> str:
    return re.sub(r"[^a-z0-9+]+", "_", title.lower())


_BY_UPDATE = {name: _of_recipe(recipe) for name, recipe in RECIPES.items()} | {
    _name(title): _of_way(title, way)
    for title, way in WAYS.items()
    if way.library is gradtx and title != "float32"
}
# Where one call may move less: an idle micro-batch leaves the parameters alone, and does not add
# zeros to them (12 bytes); a kernel that reads stored moments may write the parameters.
_BY_STEP = {
    f"{name}_by_step": step.by_step(12 if name == "accumulate_8" else 0)
    for name, step in _BY_UPDATE.items()
    if name == "accumulate_8" or name.endswith(("float8", "int8", "int4"))
}
STEPS = _BY_UPDATE | _BY_STEP


def on_set(library: str, step: str, parameters: str) -> Training:
    """A step on a set of parameters, all by their names."""
    return STEPS[step].training(library, PARAMETER_SETS[parameters].shapes(quick=False))
