"""Equinox: models filtered, the optimizer an argument like the model, and saved in mid-run."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx

from .guests import STEPS, X, Y, assert_near, assert_same, by_hand, every_own, every_twin, moved
from .guests import polyak as polyak_of

eqx = pytest.importorskip("equinox")


def fresh() -> Any:
    return eqx.nn.MLP(4, 2, width_size=8, depth=1, key=jax.random.key(0))


def arrays(model: Any) -> Any:
    return eqx.filter(model, eqx.is_inexact_array)


def loss(model: Any) -> Any:
    return jnp.mean((jax.vmap(model)(X) - Y) ** 2)


@eqx.filter_jit(donate="all-except-first")
def step(tx: Any, model: Any, state: Any) -> Any:
    value, grads = eqx.filter_value_and_grad(loss)(model)
    updates, state = optax.with_extra_args_support(tx).update(
        grads, state, arrays(model), value=value
    )
    return eqx.apply_updates(model, updates), state


def run(tx: Any, model: Any = None, state: Any = None, steps: int = STEPS) -> Any:
    model = fresh() if model is None else model
    state = tx.init(arrays(model)) if state is None else state
    for _ in range(steps):
        model, state = step(tx, model, state)
    return model, state


@every_twin
def test_trains_as_with_optax(twin: Any) -> None:
    got, expected = (arrays(run(twin(lib))[0]) for lib in (gradtx, optax))
    assert moved(arrays(fresh()), got)
    assert_near(got, expected)


def test_the_value_arrives() -> None:
    got, expected = (arrays(run(polyak_of(lib))[0]) for lib in (gradtx, optax))
    assert_near(got, expected)


@every_own
def test_trains_as_by_hand(tx: Any) -> None:
    params, static = eqx.partition(fresh(), eqx.is_inexact_array)
    expected = by_hand(tx, lambda params: loss(eqx.combine(params, static)), params)
    assert_near(arrays(run(tx)[0]), expected)


def test_a_learning_rate_that_is_an_array_does_not_compile_again() -> None:
    traces = []

    @eqx.filter_jit
    def counted(tx: Any, model: Any, state: Any) -> Any:
        traces.append(1)
        updates, state = tx.update(eqx.filter_grad(loss)(model), state, arrays(model))
        return eqx.apply_updates(model, updates), state

    tx, model = gradtx.adamw(jnp.float32(0.01), mask="weight"), fresh()
    model, state = counted(tx, model, tx.init(arrays(model)))
    counted(tx.replace(learning_rate=jnp.float32(0.02)), model, state)
    assert len(traces) == 1


@every_own
def test_saved_in_mid_run(tx: Any, tmp_path: Any) -> None:
    half = run(tx, steps=3)
    eqx.tree_serialise_leaves(tmp_path / "run.eqx", half)
    like = eqx.filter_eval_shape(lambda: (fresh(), tx.init(arrays(fresh()))))
    again = eqx.tree_deserialise_leaves(tmp_path / "run.eqx", like)
    assert_same(again[1], half[1])
    assert_same(arrays(run(tx, *again, steps=3)[0]), arrays(run(tx)[0]))


def test_it_prints_as_a_value_inside_a_module() -> None:
    class Trainer(eqx.Module):
        tx: Any

    assert "tx=sgd(learning_rate=0.1" in eqx.tree_pformat(Trainer(gradtx.sgd(0.1)))
    assert eqx.tree_equal(Trainer(gradtx.sgd(0.1)), Trainer(gradtx.sgd(0.1)))
