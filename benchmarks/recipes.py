"""What is measured: one line a recipe, the same for both libraries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

import gradtx

LIBRARIES: dict[str, Any] = {"gradtx": gradtx, "optax": optax}

PLAIN_SETS = ("mlp", "small", "vector", "resnet50", "gpt2", "matrices", "llama1b")
SOME_SETS = ("mlp", "gpt2", "llama1b")


@dataclass(frozen=True)
class Recipe:
    """An optimizer in both libraries.

    build: given the library, its transformation. floor: the bytes a parameter that a step cannot
    do without, in float32; each array once: it reads p and g, writes p, and reads and writes its
    state. cycle: over how many steps it repeats. eager: whether it is measured outside of jit.
    sets: on which parameter sets.
    """

    title: str
    build: Callable[[Any], Any]
    floor: float
    cycle: int = 1
    eager: bool = True
    sets: tuple[str, ...] = PLAIN_SETS


def _clip_adamw_cosine(lib: Any) -> Any:
    rate = lib.warmup_cosine_decay_schedule(1e-4, 1e-3, warmup_steps=100, decay_steps=10_000)
    return lib.chain(lib.clip_by_global_norm(1.0), lib.adamw(rate))


def _matrices_only(params: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim > 1, params)


def _accumulate(lib: Any, inner: Any, every: int) -> Any:
    if lib is optax:
        return optax.MultiSteps(inner, every).gradient_transformation()
    return lib.accumulate(inner, every)


def _lamb(lib: Any) -> Any:
    return lib.lamb(1e-3, weight_decay=1e-2)


def _grouped(lib: Any, groups: int) -> Any:
    """Groups with a rate each, by the number of the leaf's layer."""

    def labels(params: Any) -> Any:
        paths = jax.tree_util.tree_flatten_with_path(params)[0]
        outer = sorted({path[:-2] for path, _ in paths}, key=str)
        group = {path: outer.index(path[:-2]) * groups // len(outer) for path, _ in paths}
        return jax.tree_util.tree_map_with_path(lambda path, _: f"{group[path]:02}", params)

    rates = {f"{i:02}": 1e-3 * 0.9 ** (groups - i) for i in range(groups)}
    return lib.partition({label: lib.adamw(rate) for label, rate in rates.items()}, labels)


def _averaged(lib: Any, inner: Any, rate: float) -> Any:
    """An optimizer that keeps a running mean of the parameters beside its state."""

    def init(params: Any) -> Any:
        return inner.init(params), jax.tree.map(jnp.copy, params)

    def update(updates: Any, state: Any, params: Any) -> Any:
        inner_state, average = state
        updates, inner_state = inner.update(updates, inner_state, params)
        new = lib.apply_updates(params, updates)
        return updates, (inner_state, lib.incremental_update(new, average, rate))

    return lib.GradientTransformation(init, update)


def _muon(lib: Any) -> Any:
    return lib.muon(1e-3) if lib is gradtx else lib.contrib.muon(1e-3)


# Clipping has to see all of g before it can use any of it: g is read twice. Accumulation: the
# first of 8 steps reads g and writes it to the accumulator (8), six read both and write (12), the
# last reads g, the accumulator, p, m, v and writes p, m, v (32): 112 in 8 steps. Whether g is
# finite has to be known before any of it is used, too.
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
        "AdamW every 8", lambda lib: _accumulate(lib, lib.adamw(1e-3), 8), 14, cycle=8, eager=False
    ),
    "lamb": Recipe("LAMB", _lamb, 28, eager=False, sets=SOME_SETS),
    "lion": Recipe("Lion", lambda lib: lib.lion(1e-4), 20, eager=False, sets=SOME_SETS),
    "adafactor": Recipe(
        "Adafactor", lambda lib: lib.adafactor(1e-3), 12, eager=False, sets=SOME_SETS
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


def step_of(lib: Any, tx: Any) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """A training step without the model: (params, state, grads) -> (params, state).

    Arguments and results in one order: JAX gives a donated buffer to the first result of its
    shape, and in another order the program would have to copy what it could update in place.
    """

    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        updates, state = tx.update(grads, state, params)
        return lib.apply_updates(params, updates), state

    return step
