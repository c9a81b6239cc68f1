"""MultiSteps is a transformation as all others: a value that others see through."""

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

PARAMS = {"w": jnp.array([1.0, -2.0, 3.0])}
GRADS = [{"w": jnp.array([1.0, 2.0, 3.0]) * k} for k in (1.0, 3.0, -1.0, 5.0)]


def run(tx: Any, params: Any = PARAMS) -> list[Any]:
    """The updates of each micro-batch."""
    state, made = tx.init(params), []
    for g in GRADS:
        updates, state = tx.update(g, state, params)
        made.append(updates["w"])
    return made


def test_it_is_a_transformation() -> None:
    tx = gradtx.MultiSteps(gradtx.sgd(0.5), 2)
    assert isinstance(tx, gradtx.MultiSteps)
    assert isinstance(tx, gradtx.GradientTransformation)
    assert tx.gradient_transformation() is tx
    assert tx.inner_opt == gradtx.sgd(0.5)
    assert tx == gradtx.multi_steps(gradtx.sgd(0.5), 2)
    # Means of 1 and 3, and of -1 and 5: both twice the direction, at a rate of a half.
    for got, factor in zip(run(tx), (0.0, -1.0, 0.0, -1.0), strict=True):
        np.testing.assert_allclose(got, factor * np.array([1.0, 2.0, 3.0]), rtol=1e-6)


def test_it_is_a_value() -> None:
    tx = gradtx.MultiSteps(gradtx.sgd(0.5), 2)
    assert hash(tx) == hash(gradtx.MultiSteps(gradtx.sgd(0.5), 2))
    assert tx != gradtx.MultiSteps(gradtx.sgd(0.5), 3)
    assert pickle.loads(pickle.dumps(tx)) == tx
    assert tx.replace(opt=gradtx.sgd(1.0)) == gradtx.MultiSteps(gradtx.sgd(1.0), 2)
    assert str(tx) in str(gradtx.chain(gradtx.clip(1.0), tx))
    assert eval(str(tx), vars(gradtx) | {"float32": np.float32}) == tx
    init, update = tx
    assert (init, update) == (tx.init, tx.update)


def test_it_is_an_argument_of_a_jitted_function() -> None:
    traces = []

    @jax.jit
    def step(tx: Any, state: Any) -> Any:
        traces.append(1)
        return tx.update(GRADS[0], state, PARAMS)[0]["w"]

    for rate in (0.5, 0.25):
        tx = gradtx.MultiSteps(gradtx.sgd(jnp.asarray(rate)), 1)
        np.testing.assert_allclose(step(tx, tx.init(PARAMS)), -rate * GRADS[0]["w"], rtol=1e-6)
    assert len(traces) == 1


def test_it_is_mapped_over_its_numbers() -> None:
    tx = gradtx.MultiSteps(gradtx.sgd(jnp.array([0.5, 1.0, 2.0])), 2)
    axes = jax.tree.map(lambda x: 0 if np.ndim(x) else None, tx)
    made = jax.vmap(lambda tx: jnp.stack(run(tx)), (axes,))(tx)
    expected = np.array([0.5, 1.0, 2.0])[:, None] * np.array([-2.0, -4.0, -6.0])
    np.testing.assert_allclose(made[:, 1], expected, rtol=1e-6)
    np.testing.assert_array_equal(made[:, 0], 0)


@pytest.mark.parametrize("outside", ["chain", "masked", "apply_if_finite", "partition"])
def test_what_it_holds_is_seen_from_outside(outside: str) -> None:
    """A rounding inside of it knows in which dtype the parameters are stored."""
    params = {"w": PARAMS["w"].astype(jnp.bfloat16)}
    inner = gradtx.MultiSteps(gradtx.chain(gradtx.adamw(1e-3), gradtx.kahan()), 2)
    tx = {
        "chain": lambda: gradtx.chain(gradtx.clip_by_global_norm(1.0), inner),
        "masked": lambda: gradtx.masked(inner, True),
        "apply_if_finite": lambda: gradtx.apply_if_finite(inner, 3),
        "partition": lambda: gradtx.partition({".*": inner}),
    }[outside]()
    assert any(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(tx.init(params)))
    assert gradtx.Place.LAST in tx.place
    updates, _ = tx.update(params, tx.init(params), params)
    assert updates["w"].dtype == jnp.float32


def test_has_updated() -> None:
    tx = gradtx.MultiSteps(gradtx.sgd(0.5), 2)
    state, told = tx.init(PARAMS), []
    for g in GRADS:
        _, state = tx.update(g, state, PARAMS)
        told.append(bool(tx.has_updated(state)))
    assert told == [False, True, False, True]
