"""What is measured: one line per recipe, the same for both libraries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import optax

import gradtx
from gradtx import OptState, Params, Updates

LIBRARIES: dict[str, ModuleType] = {"gradtx": gradtx, "optax": optax}

Optimizer = Any  # a transformation of either library

PLAIN_SETS = ("mlp", "small", "vector", "resnet50", "gpt2", "matrices", "llama1b")
SOME_SETS = ("mlp", "gpt2", "llama1b")


@dataclass(frozen=True)
class Recipe:
    """An optimizer in both libraries.

    build: from a library to its transformation. floor: the bytes per float32 parameter that a step
    cannot avoid, touching each array once: it reads p and g, writes p, and reads and writes its
    state. program: the same of its compiled program, where that is more. cycle: the steps after
    which it repeats. eager: whether it is also measured outside of jit. sets: the parameter sets
    on which it is measured. beside: gradtx's own recipe that it is compared with, where Optax does
    not have it.
    """

    title: str
    build: Callable[[ModuleType], Optimizer]
    floor: float
    program: float | None = None
    cycle: int = 1
    eager: bool = True
    sets: tuple[str, ...] = PLAIN_SETS
    beside: Recipe | None = None

    @property
    def against(self) -> str:
        """The name of what gradtx is compared with."""
        return "Optax" if self.beside is None else f"gradtx, {self.beside.title}"

    def contenders(self) -> tuple[tuple[ModuleType, Optimizer], tuple[ModuleType, Optimizer]]:
        """gradtx and the reference: each with its library."""
        ours = gradtx, self.build(gradtx)
        if self.beside is not None:
            return ours, (gradtx, self.beside.build(gradtx))
        return ours, (optax, self.build(optax))

    def floors(self) -> tuple[float, float]:
        """The floors of both."""
        return self.floor, self.floor if self.beside is None else self.beside.floor


def _clip_adamw_cosine(lib: ModuleType) -> Optimizer:
    rate = lib.warmup_cosine_decay_schedule(1e-4, 1e-3, warmup_steps=100, decay_steps=10_000)
    return lib.chain(lib.clip_by_global_norm(1.0), lib.adamw(rate))


def _matrices_only(params: Params) -> Params:
    return jax.tree.map(lambda p: p.ndim > 1, params)


def _accumulate(lib: ModuleType, inner: Optimizer, every: int) -> Optimizer:
    if lib is optax:
        return optax.MultiSteps(inner, every).gradient_transformation()
    return lib.accumulate(inner, every)


def _lamb(lib: ModuleType) -> Optimizer:
    return lib.lamb(1e-3, weight_decay=1e-2)


def _grouped(lib: ModuleType, groups: int) -> Optimizer:
    """Groups of neighbouring layers, each with its own learning rate."""

    def labels(params: Params) -> Params:
        paths = jax.tree_util.tree_flatten_with_path(params)[0]
        outer = sorted({path[:-2] for path, _ in paths}, key=str)
        group = {path: outer.index(path[:-2]) * groups // len(outer) for path, _ in paths}
        return jax.tree_util.tree_map_with_path(lambda path, _: f"{group[path]:02}", params)

    rates = {f"{i:02}": 1e-3 * 0.9 ** (groups - i) for i in range(groups)}
    return lib.partition({label: lib.adamw(rate) for label, rate in rates.items()}, labels)


def _averaged(lib: ModuleType, inner: Optimizer, rate: float) -> Optimizer:
    """An optimizer that keeps a running mean of the parameters beside its state."""

    def init(params: Params) -> OptState:
        return inner.init(params), jax.tree.map(jnp.copy, params)

    def update(updates: Updates, state: OptState, params: Params) -> tuple[Updates, OptState]:
        inner_state, average = state
        updates, inner_state = inner.update(updates, inner_state, params)
        new = lib.apply_updates(params, updates)
        return updates, (inner_state, lib.incremental_update(new, average, rate))

    return lib.GradientTransformation(init, update)


def _muon(lib: ModuleType) -> Optimizer:
    return lib.muon(1e-3) if lib is gradtx else lib.contrib.muon(1e-3)


# Clipping has to see all of g before it can use any of it, and so reads g twice, as does a check
# that g is finite. Accumulation over 8 steps: the first reads g and writes it to the accumulator (8
# bytes), six read both and write (12 each), and the last reads g, the accumulator, p, m and v and
# writes p, m and v (32): 112 bytes in 8 steps. Its program has both branches: beside AdamW's 28, g
# and the accumulator are read, and the accumulator is written, in each of them (24). The norm of an
# update (LAMB, Adafactor) can be had with the moments written (24, and 20); then p and they are
# read again and p is written (16, and 12).
RECIPES: dict[str, Recipe] = {
    "sgd": Recipe("SGD", lambda lib: lib.sgd(1e-3), 12),
    "momentum": Recipe("momentum", lambda lib: lib.sgd(1e-3, momentum=0.9), 20),
    "rmsprop": Recipe("RMSProp", lambda lib: lib.rmsprop(1e-3), 20),
    "adam": Recipe("Adam", lambda lib: lib.adam(1e-3), 28),
    "adamw": Recipe("AdamW", lambda lib: lib.adamw(1e-3), 28),
    "amsgrad": Recipe("AMSGrad", lambda lib: lib.amsgrad(1e-3), 36),
    "clip_adamw_cosine": Recipe("clip + AdamW + warm-up cosine", _clip_adamw_cosine, 32),
    "adamw_mask": Recipe("AdamW, decay mask", lambda lib: lib.adamw(1e-3, mask=_matrices_only), 28),
    "accumulate_8": Recipe(
        "AdamW every 8",
        lambda lib: _accumulate(lib, lib.adamw(1e-3), 8),
        14,
        52,
        cycle=8,
        eager=False,
    ),
    "lamb": Recipe("LAMB", _lamb, 28, 40, eager=False, sets=SOME_SETS),
    "lion": Recipe("Lion", lambda lib: lib.lion(1e-4), 20, eager=False, sets=SOME_SETS),
    "adafactor": Recipe(
        "Adafactor", lambda lib: lib.adafactor(1e-3), 12, 32, eager=False, sets=SOME_SETS
    ),
    "partition_2": Recipe(
        "AdamW, 2 groups", lambda lib: _grouped(lib, 2), 28, eager=False, sets=SOME_SETS
    ),
    "partition_12": Recipe(
        "AdamW, 12 groups", lambda lib: _grouped(lib, 12), 28, eager=False, sets=SOME_SETS
    ),
    "if_finite": Recipe(
        "apply if finite, AdamW",
        lambda lib: lib.apply_if_finite(lib.adamw(1e-3), 5),
        32,
        eager=False,
        sets=SOME_SETS,
    ),
    "averaged": Recipe(
        "AdamW, average of parameters",
        lambda lib: _averaged(lib, lib.adamw(1e-3), 1e-3),
        36,
        eager=False,
        sets=SOME_SETS,
    ),
    "muon": Recipe("Muon", _muon, 20, eager=False, sets=("blocks",)),
}


Step = Callable[[Params, OptState, Updates], tuple[Params, OptState]]


def step_of(lib: ModuleType, tx: Optimizer) -> Step:
    """A training step without the model: (params, state, grads) -> (params, state).

    Arguments and results are in the same order, because JAX gives a donated buffer to the first
    result of its shape: in another order the program would copy what it could update in place.
    """

    def step(params: Params, state: OptState, grads: Updates) -> tuple[Params, OptState]:
        updates, state = tx.update(grads, state, params)
        return lib.apply_updates(params, updates), state

    return step
