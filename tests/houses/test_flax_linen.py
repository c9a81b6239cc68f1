"""Flax Linen: `TrainState`, and its serialization in mid-run."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx

from .guests import STEPS, X, Y, assert_near, assert_same, by_hand, every_own, every_twin, moved

nn = pytest.importorskip("flax.linen")
serialization = pytest.importorskip("flax.serialization")
train_state = pytest.importorskip("flax.training.train_state")

MODEL = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(2)])


def fresh(tx: Any, dtype: Any = jnp.float32) -> Any:
    params = MODEL.init(jax.random.key(0), X)["params"]
    params = jax.tree.map(lambda p: p.astype(dtype), params)
    return train_state.TrainState.create(apply_fn=MODEL.apply, params=params, tx=tx)


def loss(params: Any) -> Any:
    return jnp.mean((MODEL.apply({"params": params}, X) - Y) ** 2)


@partial(jax.jit, donate_argnums=0)
def step(train: Any) -> Any:
    return train.apply_gradients(grads=jax.grad(loss)(train.params))


def run(train: Any, steps: int = STEPS) -> Any:
    for _ in range(steps):
        train = step(train)
    return train


@every_twin
def test_trains_as_with_optax(twin: Any) -> None:
    got, expected = (run(fresh(twin(lib))) for lib in (gradtx, optax))
    assert moved(fresh(twin(gradtx)).params, got.params)
    assert_near(got.params, expected.params)
    assert int(got.step) == STEPS


@every_own
def test_trains_as_by_hand(tx: Any) -> None:
    got = run(fresh(tx)).params
    assert moved(fresh(tx).params, got)
    assert_near(got, by_hand(tx, loss, fresh(tx).params))


def test_params_in_bfloat16() -> None:
    tx = gradtx.chain(gradtx.adamw(0.05), gradtx.kahan())
    got = run(fresh(tx, jnp.bfloat16)).params
    assert_near(got, by_hand(tx, loss, fresh(tx, jnp.bfloat16).params), 2**-7)
    assert {x.dtype for x in jax.tree.leaves(got)} == {jnp.dtype(jnp.bfloat16)}


def test_an_equal_optimizer_does_not_compile_again() -> None:
    """`tx` is static there, and compared."""
    run(fresh(gradtx.adamw(0.01)), 1)
    before = step._cache_size()
    run(fresh(gradtx.adamw(0.01)), 1)
    assert step._cache_size() == before


def dumped(train: Any, tx: Any) -> Any:
    """Restored from bytes into a fresh one."""
    return serialization.from_bytes(fresh(tx), serialization.to_bytes(train))


@every_own
def test_serialized_in_mid_run(tx: Any) -> None:
    half = run(fresh(tx), 3)
    again = dumped(half, tx)
    assert_same(again.opt_state, half.opt_state)
    assert_same(run(again, 3).params, run(fresh(tx), 6).params)


@pytest.mark.parametrize("format", ["bfloat16", "bfloat16+8", "float8", "int4"])
def test_serialized_formats(format: Any) -> None:
    tx = gradtx.store(gradtx.adamw(0.05), format, min_size=1)
    half = run(fresh(tx), 3)
    again = dumped(half, tx)
    assert_same(again.opt_state, half.opt_state)
    assert_same(run(again, 3).params, run(fresh(tx), 6).params)
