"""`gradtx.step` where it is not simply an update that is applied, and what it refuses."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

PARAMS: Any = {"w": jnp.linspace(-1.0, 1.0, 12).reshape(3, 4), "b": None}
GRADS: Any = {"w": jnp.linspace(1.0, 0.5, 12).reshape(3, 4), "b": None}


def equal(got: Any, expected: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, got, expected)


@pytest.mark.parametrize("library", [gradtx, optax])
def test_lookahead_steps_both_sets(library: Any) -> None:
    params = library.LookaheadParams.init_synced({"w": PARAMS["w"]})
    grads, tx = {"w": GRADS["w"]}, library.lookahead(library.sgd(0.1), 2, 0.5)
    state = tx.init(params)
    updates, new_state = tx.update(grads, state, params)
    got, got_state = gradtx.step(tx, grads, state, params)
    equal(got, gradtx.apply_updates(params, updates))
    equal(got_state, new_state)


def test_an_idle_micro_batch_hands_the_params_on() -> None:
    tx = gradtx.accumulate(gradtx.adamw(0.1), 2)
    state = tx.init(PARAMS)
    params, state = gradtx.step(tx, GRADS, state, PARAMS)
    equal(params, PARAMS)
    params, _ = gradtx.step(tx, GRADS, state, params)
    whole = gradtx.adamw(0.1)
    expected, _ = gradtx.step(whole, GRADS, whole.init(PARAMS), PARAMS)
    np.testing.assert_allclose(params["w"], expected["w"], rtol=1e-6, atol=1e-7)


def test_it_is_differentiable() -> None:
    def loss(rate: Any, step: Any) -> Any:
        tx = gradtx.accumulate(gradtx.adam(rate), 1)
        return jnp.sum(step(tx, GRADS, tx.init(PARAMS), PARAMS)["w"] ** 2)

    def by_update(tx: Any, grads: Any, state: Any, params: Any) -> Any:
        return gradtx.apply_updates(params, tx.update(grads, state, params)[0])

    got = jax.grad(loss)(0.1, lambda *a: gradtx.step(*a)[0])
    np.testing.assert_allclose(got, jax.grad(loss)(0.1, by_update), rtol=1e-6)


def test_errors_name_the_step() -> None:
    tx = gradtx.adamw(0.1)
    state = tx.init(PARAMS)
    with pytest.raises(TypeError, match="step: params must be given"):
        gradtx.step(tx, GRADS, state, None)
    with pytest.raises(TypeError, match=r"step: tx must be a gradient transformation, got 0\.1"):
        gradtx.step(0.1, GRADS, state, PARAMS)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"at w: .*do not fit the parameter"):
        gradtx.step(tx, {"w": jnp.ones(3), "b": None}, state, PARAMS)


@pytest.mark.parametrize("library", [gradtx, optax])
def test_what_nothing_takes_is_ignored_by_step_and_update_alike(library: Any) -> None:
    """So that one call serves every optimizer, as Optax demands of `update`."""
    for tx in (library.sgd(0.1), library.scale(-0.1)):
        state = tx.init(PARAMS)
        expected, _ = gradtx.step(tx, GRADS, state, PARAMS)
        equal(gradtx.step(tx, GRADS, state, PARAMS, value=1.0, unknown=1)[0], expected)
        updates, _ = gradtx.chain(tx).update(
            GRADS, gradtx.chain(tx).init(PARAMS), PARAMS, value=1.0, unknown=1
        )
        equal(gradtx.apply_updates(PARAMS, updates), expected)


def test_what_nothing_takes_beside_a_value_fn_is_refused_by_step_and_update_alike() -> None:
    def loss_fn(w: Any, scale: float = 1.0) -> Any:
        return scale * jnp.sum(w["w"] ** 2)

    tx = gradtx.lbfgs()
    state = tx.init(PARAMS)
    extra: Any = {"value": 1.0, "grad": GRADS, "value_fn": loss_fn, "scael": 2.0}
    for call in (
        lambda: tx.update(GRADS, state, PARAMS, **extra),
        lambda: gradtx.step(tx, GRADS, state, PARAMS, **extra),
    ):
        with pytest.raises(TypeError, match=r"nothing takes the extra argument 'scael'.*'scale'"):
            call()
