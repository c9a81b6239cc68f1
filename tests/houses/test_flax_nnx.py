"""Flax NNX: `nnx.Optimizer`, with extra arguments, and split and merged."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx

from .guests import OWN, STEPS, X, Y, assert_near, assert_same, every_twin, moved, polyak

nnx = pytest.importorskip("flax.nnx")


LOST = pytest.mark.xfail(
    strict=True, reason="nnx.Optimizer hands a named tuple back as a mapping: formats are lost"
)
every_own = pytest.mark.parametrize(
    "tx",
    [pytest.param(tx, marks=[LOST] if name == "int8" else [], id=name) for name, tx in OWN.items()],
)


class MLP(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.hidden, self.out = nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.out(nnx.relu(self.hidden(x)))


def loss(model: Any) -> Any:
    return jnp.mean((model(X) - Y) ** 2)


@nnx.jit
def step(model: Any, optimizer: Any) -> None:
    optimizer.update(model, nnx.grad(loss)(model))


@nnx.jit
def step_with_value(model: Any, optimizer: Any) -> None:
    value, grads = nnx.value_and_grad(loss)(model)
    graph, _ = nnx.split(model)

    def value_fn(params: Any) -> Any:
        return loss(nnx.merge(graph, params))

    optimizer.update(model, grads, value=value, grad=grads, value_fn=value_fn)


def fresh(tx: Any) -> Any:
    model = MLP()
    return model, nnx.Optimizer(model, tx, wrt=nnx.Param)


def run(model: Any, optimizer: Any, steps: int = STEPS, step: Any = step) -> Any:
    for _ in range(steps):
        step(model, optimizer)
    return nnx.to_pure_dict(nnx.state(model))


def by_hand(tx: Any) -> Any:
    """Over the model's params as a dict."""
    graph, params = nnx.split(MLP())
    state, params = tx.init(nnx.to_pure_dict(params)), nnx.to_pure_dict(params)

    def of(tree: Any) -> Any:
        whole = nnx.state(MLP())
        nnx.replace_by_pure_dict(whole, tree)
        return loss(nnx.merge(graph, whole))

    update = jax.jit(lambda state, params: tx.update(jax.grad(of)(params), state, params))
    for _ in range(STEPS):
        updates, state = update(state, params)
        params = optax.apply_updates(params, updates)
    return params


@every_twin
def test_trains_as_with_optax(twin: Any) -> None:
    got, expected = (run(*fresh(twin(lib))) for lib in (gradtx, optax))
    assert moved(nnx.to_pure_dict(nnx.state(MLP())), got)
    assert_near(got, expected)


@every_own
def test_trains_as_by_hand(tx: Any) -> None:
    assert_near(run(*fresh(tx)), by_hand(tx))


def test_the_value_arrives() -> None:
    got, expected = (run(*fresh(polyak(lib)), step=step_with_value) for lib in (gradtx, optax))
    assert_near(got, expected)
    inside = run(*fresh(optax.chain(polyak(gradtx), optax.identity())), step=step_with_value)
    assert_near(inside, expected)


def test_a_line_search_arrives() -> None:
    before, (model, optimizer) = float(loss(MLP())), fresh(gradtx.lbfgs())
    run(model, optimizer, step=step_with_value)
    searched = loss(model)
    assert searched < before
    theirs, optimizer = fresh(optax.lbfgs())
    run(theirs, optimizer, step=step_with_value)
    assert abs(searched - loss(theirs)) < 0.05 * before


def test_state_in_bfloat16() -> None:
    tx = gradtx.store(gradtx.adamw(0.05), "bfloat16", min_size=1)
    # Its dither depends on the path in the state, which is another there.
    assert_near(run(*fresh(tx)), by_hand(gradtx.adamw(0.05)), 5e-2)


@every_own
def test_split_and_merged_in_mid_run(tx: Any) -> None:
    model, optimizer = fresh(tx)
    run(model, optimizer, 3)
    graph, state = nnx.split((model, optimizer))
    saved = jax.tree.map(jnp.copy, nnx.to_pure_dict(state))
    empty = nnx.state(fresh(tx))
    nnx.replace_by_pure_dict(empty, saved)
    again = nnx.merge(graph, empty)
    assert_same(run(*again, 3), run(*fresh(tx), 6))
