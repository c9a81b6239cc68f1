"""Inside Optax's wrappers, a transformation does what Optax's own namesake does there."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

from .registry import Example, for_every
from .running import STEPS, assert_close, first, grads, params

MASK = {"w": True, "b": False, "s": True}


def updates(tx: Any, gradients: Any = None, parameters: Any = None, **extra: Any) -> Any:
    """The updates of every step, operation by operation, at params that stay."""
    gradients = grads() if gradients is None else gradients
    parameters = params() if parameters is None else parameters
    with jax.disable_jit():
        state, made = tx.init(parameters), []
        for i in range(STEPS):
            gradient = jax.tree.map(lambda g, i=i: g[i], gradients)
            update, state = tx.update(gradient, state, parameters, **extra)
            made.append(update)
    return jax.tree.map(lambda *x: np.stack(x), *made)


def assert_near(got: Any, expected: Any, rtol: float = 1e-4) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for name in expected:
        assert_close(got[name], expected[name], rtol, name)


with_twin = for_every(where=lambda e: e.twin)


@with_twin
def test_agrees_with_its_namesake(example: Example) -> None:
    mine, theirs = (updates(make(), **example.extra) for make in (example.make, example.twin))
    assert_near(mine, theirs)


@with_twin
def test_the_state_has_the_key_paths_of_the_namesake(example: Example) -> None:
    """And its dtypes and shapes, so that a checkpoint of one loads into the other. Where Optax
    keeps an array without elements there is nothing."""
    mine, theirs = (jax.eval_shape(make().init, params()) for make in (example.make, example.twin))
    assert leaves_by_path(mine) == leaves_by_path(theirs)


def leaves_by_path(state: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): (x.shape, x.dtype) for path, x in leaves if x.size}


@with_twin
def test_a_state_of_the_namesake_can_be_continued(example: Example) -> None:
    """Leaf by leaf into the structure of our own, as a checkpoint is restored."""
    tx, twin = example.make(), example.twin()
    gradient = [jax.tree.map(lambda g, i=i: g[i], grads()) for i in range(2)]
    with jax.disable_jit():
        _, theirs = twin.update(gradient[0], twin.init(params()), params(), **example.extra)
        held = [x for x in jax.tree.leaves(theirs) if jnp.size(x)]
        mine = jax.tree.unflatten(jax.tree.structure(tx.init(params())), held)
        got, _ = tx.update(gradient[1], mine, params(), **example.extra)
        expected, _ = twin.update(gradient[1], theirs, params(), **example.extra)
    assert_near(got, expected)


@for_every()
def test_inside_chain(example: Example) -> None:
    """Which passes the extra arguments on."""
    wrapper = lambda tx: optax.chain(tx, optax.scale(0.5))  # noqa: E731
    alone = updates(example.make(), grads(of=example), **example.extra)
    got = updates(wrapper(example.make()), grads(of=example), **example.extra)
    assert_near(got, jax.tree.map(lambda u: 0.5 * u, alone), 1e-6)
    if example.twin:
        made = (updates(wrapper(x()), **example.extra) for x in (example.make, example.twin))
        assert_near(*made)


@for_every(where=lambda e: not (e.extra or e.whole_tree or e.couples or e.foreign))
def test_inside_masked(example: Example) -> None:
    if example.name == "masked" or getattr(example.make(), "mask", None) is not None:
        return  # a mask of its own would have to fit the tree with the holes
    got, alone = updates(optax.masked(example.make(), MASK)), updates(example.make())
    assert_near(got, {**alone, "b": grads()["b"]}, 1e-6)
    if example.twin:
        assert_near(got, updates(optax.masked(example.twin(), MASK)))


@for_every(where=lambda e: not (e.extra or e.per_example))
def test_inside_multi_steps(example: Example) -> None:
    """Optax runs the inner transformation on every micro-step and keeps what it made last."""
    if example.name in ("accumulate", "multi_steps"):
        return
    got = updates(optax.MultiSteps(example.make(), every_k_schedule=2))
    pairs = jax.tree.map(lambda g: jnp.repeat((g[0::2] + g[1::2]) / 2, 2, axis=0), grads())
    halves = jax.tree.map(lambda g: g[::2], pairs)
    with jax.disable_jit():
        tx, expected = example.make(), []
        state = tx.init(params())
        for i in range(STEPS // 2):
            mean = jax.tree.map(lambda g, i=i: g[i], halves)
            update, state = tx.update(mean, state, params())
            expected += [jax.tree.map(jnp.zeros_like, update), update]
    assert_near(got, jax.tree.map(lambda *x: np.stack(x), *expected))
    if example.twin:
        assert_near(got, updates(optax.MultiSteps(example.twin(), every_k_schedule=2)))


INJECTED = {
    "sgd": {"learning_rate": 0.1, "momentum": 0.9},
    "adam": {"learning_rate": 0.1, "b1": 0.8},
    "adamw": {"learning_rate": 0.1, "weight_decay": 0.01},
    "adagrad": {"learning_rate": 0.1},
    "rmsprop": {"learning_rate": 0.01, "centered": True},
    "clip_by_global_norm": {"max_norm": 1.0},
    "ema": {"decay": 0.9},
}


@pytest.mark.parametrize("name", INJECTED)
def test_inside_inject_hyperparams(name: str) -> None:
    """Under jit, with a rate that is changed in the state between two steps."""
    given = INJECTED[name]

    def run(library: Any) -> Any:
        tx = optax.inject_hyperparams(getattr(library, name))(**given)
        update = jax.jit(tx.update)
        state = tx.init(params())
        assert given.keys() - {"centered"} <= state.hyperparams.keys()
        one, state = update(first(grads()), state, params())
        if "learning_rate" in given:
            state.hyperparams["learning_rate"] = jnp.asarray(0.5)
        other, _ = update(first(grads()), state, params())
        return one, other

    for got, expected in zip(run(gradtx), run(optax), strict=True):
        assert_near(got, expected)


def test_inject_hyperparams_takes_schedules() -> None:
    schedule = gradtx.linear_schedule(0.1, 0.0, 3)
    injected = optax.inject_hyperparams(gradtx.sgd)(learning_rate=schedule)
    assert_near(updates(injected), updates(gradtx.sgd(schedule)))


def test_optax_schedules_are_schedules() -> None:
    theirs, mine = (lib.cosine_decay_schedule(0.1, 10) for lib in (optax, gradtx))
    assert_near(updates(gradtx.sgd(theirs)), updates(gradtx.sgd(mine)))
    assert_near(updates(optax.sgd(mine)), updates(optax.sgd(theirs)))


def test_apply_updates_is_interchangeable() -> None:
    mine = gradtx.apply_updates(params(), first(grads()))
    assert_near(mine, optax.apply_updates(params(), first(grads())), 1e-7)


def test_tree_map_params_finds_the_moments() -> None:
    """Optax's way to give a state the shardings of params."""
    for mine, theirs in ((gradtx.adamw(0.1), optax.adamw(0.1)), (gradtx.sgd(0.1, 0.9),) * 2):
        marked = [
            optax.tree_map_params(
                tx, lambda _: "moment", tx.init(params()), transform_non_params=lambda _: "other"
            )
            for tx in (mine, theirs)
        ]
        assert jax.tree.leaves(marked[0]) == jax.tree.leaves(marked[1])
        assert "moment" in jax.tree.leaves(marked[0])
