"""What is frozen stays as it is, wherever in a chain that is said."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

# Large enough for `store` to encode.
HEAD = jnp.ones(5000)
PARAMS: Any = {"body": {"kernel": jnp.full((2, 3), 3.0), "bias": jnp.ones(3)}, "head": HEAD}
GRADS: Any = {"body": {"kernel": jnp.full((2, 3), 0.5), "bias": jnp.ones(3)}, "head": HEAD}

BEHIND = {
    "adamw": gradtx.adamw(0.1, weight_decay=0.1),
    "lamb": gradtx.lamb(0.1, weight_decay=0.1),
    "noise": gradtx.chain(gradtx.sgd(0.1), gradtx.add_noise(0.1, 0.5, seed=0)),
    "decay": gradtx.add_decayed_weights(0.1),
    "guarded": gradtx.finite_guard(gradtx.adamw(0.1, weight_decay=0.1)),
    "lookahead": gradtx.chain(gradtx.add_decayed_weights(0.1), gradtx.cautious(gradtx.adam(0.1))),
    "stored": gradtx.store(gradtx.adamw(0.1, weight_decay=0.1), "bfloat16"),
    "accumulated": gradtx.accumulate(gradtx.adamw(0.1, weight_decay=0.1), 2),
    "muon": gradtx.muon(0.1, weight_decay=0.1),
    "momentum": gradtx.sgd(0.1, momentum=0.9),
    "frozen twice": gradtx.freeze("body"),
    "partition": gradtx.partition({"body": gradtx.adamw(0.1), ".*": gradtx.sgd(0.1)}),
}


@pytest.mark.parametrize(
    ("behind", "dtype"), [*((name, "float32") for name in BEHIND), ("adamw", "bfloat16")]
)
def test_nothing_behind_moves_a_frozen_leaf(behind: str, dtype: str) -> None:
    params = jax.tree.map(lambda x: x.astype(dtype), PARAMS)
    tx = gradtx.chain(gradtx.freeze("body"), BEHIND[behind])
    state, moved = tx.init(params), params
    update = jax.jit(tx.update)
    for _ in range(3):
        updates, state = update(GRADS, state, moved)
        moved = gradtx.apply_updates(moved, updates)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, moved["body"], params["body"]))
    assert behind == "frozen twice" or not jnp.array_equal(moved["head"], params["head"])


@pytest.mark.parametrize("behind", ["adamw", "decay", "muon", "partition"])
def test_the_others_step_as_if_the_frozen_were_not_there(behind: str) -> None:
    tx = gradtx.chain(gradtx.freeze("body"), gradtx.clip_by_global_norm(0.5), BEHIND[behind])
    alone = gradtx.chain(gradtx.clip_by_global_norm(0.5), BEHIND[behind])
    absent = {"body": {"kernel": None, "bias": None}, "head": GRADS["head"]}
    updates, state = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    expected, expected_state = alone.update(absent, alone.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates["head"], expected["head"])
    same = jax.tree.map(jnp.array_equal, state[1:], expected_state)
    assert jax.tree.all(same)


def test_what_stands_before_sees_the_gradient() -> None:
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.freeze("head"))
    updates, _ = tx.update(GRADS, tx.init(PARAMS))
    norm = np.sqrt(6 * 0.25 + 3 + HEAD.size)
    np.testing.assert_allclose(updates["body"]["bias"], 1 / norm, rtol=1e-6)
    np.testing.assert_array_equal(updates["head"], 0)


def test_it_is_a_value_and_its_update_has_the_dtype_of_the_parameter() -> None:
    tx = gradtx.freeze({"body": True, "head": False})
    assert tx == gradtx.freeze({"body": True, "head": False})
    assert hash(tx) == hash(tx.replace())
    assert tx != gradtx.freeze()
    params = jax.tree.map(lambda x: x.astype("bfloat16"), PARAMS)
    for update in (tx.update, jax.jit(tx.update)):
        updates, _ = update(GRADS, tx.init(params), params)
        assert {x.dtype for x in jax.tree.leaves(updates)} == {jnp.dtype("bfloat16")}
        assert not any(x.weak_type for x in jax.tree.leaves(updates))
    assert jax.tree.leaves(tx.init(params)) == []


def test_zero_followed_by_decay_is_still_a_chain() -> None:
    tx = gradtx.chain(gradtx.set_to_zero(), gradtx.add_decayed_weights(0.1))
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["body"]["kernel"], 0.3, rtol=1e-6)


@pytest.mark.parametrize("rounding", [gradtx.stochastic_rounding(), gradtx.kahan()], ids=str)
def test_a_rounding_behind_leaves_it_too(rounding: Any) -> None:
    params = jax.tree.map(lambda x: x.astype("bfloat16"), PARAMS)
    tx = gradtx.chain(gradtx.freeze("body"), gradtx.adamw(0.1, weight_decay=0.1), rounding)
    updates, _ = tx.update(GRADS, tx.init(params), params)
    assert not np.any(np.float32(updates["body"]["kernel"]))
    assert np.all(np.float32(updates["head"]))


FROZEN_FIRST = {
    "freeze": gradtx.chain(gradtx.freeze("body"), gradtx.adam(0.1)),
    "selective": gradtx.selective_transform(gradtx.adam(0.1), freeze_mask="body"),
    "partition": gradtx.partition({"body": gradtx.set_to_zero(), ".*": gradtx.adam(0.1)}),
    "masked": gradtx.chain(gradtx.masked(gradtx.freeze("kernel|bias"), "body"), gradtx.adam(0.1)),
}
GUARDS: Any = {
    "finite_guard": gradtx.finite_guard,
    "apply_if_finite": lambda tx: gradtx.apply_if_finite(tx, 3),
    "accumulate": lambda tx: gradtx.accumulate(tx, 1),
    "multi_steps": lambda tx: gradtx.multi_steps(
        tx, 1, should_skip_update_fn=gradtx.skip_not_finite
    ),
    "loss scale": lambda tx: gradtx.dynamic_loss_scale(tx, 1.0),
    "two of them": lambda tx: gradtx.finite_guard(gradtx.accumulate(tx, 1)),
    "around store": lambda tx: gradtx.finite_guard(gradtx.store(tx, "int8")),
    "around injection": lambda tx: gradtx.apply_if_finite(
        gradtx.inject_hyperparams(lambda factor: gradtx.chain(tx, gradtx.scale(factor)))(
            factor=1.0
        ),
        3,
    ),
    "around a condition": lambda tx: gradtx.finite_guard(
        gradtx.conditionally_mask(tx, lambda step: step >= 0)
    ),
    "in a group": lambda tx: gradtx.partition({".*": gradtx.finite_guard(tx)}),
}


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("frozen", FROZEN_FIRST)
def test_a_nan_in_the_gradient_of_a_frozen_leaf_skips_nothing(frozen: str, guard: str) -> None:
    poisoned = {**GRADS, "body": jax.tree.map(lambda x: x * jnp.nan, GRADS["body"])}
    tx = GUARDS[guard](FROZEN_FIRST[frozen])
    state, params = tx.init(PARAMS), PARAMS
    for grads in (GRADS, poisoned, GRADS):
        updates, state = jax.jit(tx.update)(grads, state, params)
        params = gradtx.apply_updates(params, updates)
    # Three steps of Adam on a constant gradient are three of its rate.
    np.testing.assert_allclose(params["head"], 0.7, rtol=1e-5)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, params["body"], PARAMS["body"]))
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(state))


@pytest.mark.parametrize("guard", GUARDS)
def test_a_nan_that_is_looked_at_before_it_is_frozen_does(guard: str) -> None:
    poisoned = {**GRADS, "body": jax.tree.map(lambda x: x * jnp.nan, GRADS["body"])}
    tx = GUARDS[guard](
        gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.freeze("body"), gradtx.adam(0.1))
    )
    updates, _ = jax.jit(tx.update)(poisoned, tx.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates["head"], 0)


def _objective(head: Any) -> Any:
    return jnp.sum(jnp.cosh(head))


SEARCHES_AND_DISTANCES = {
    "lbfgs": gradtx.lbfgs(),
    "zoom": gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_zoom_linesearch(10)),
    "backtracking": gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_backtracking_linesearch(10)),
    "momo": gradtx.momo(0.1),
    "dog": gradtx.dog(1.0),
    "prodigy": gradtx.prodigy(1.0),
    "mechanize": gradtx.mechanize(gradtx.sgd(0.1)),
    "schedule_free": gradtx.schedule_free_sgd(0.1),
    "asgd": gradtx.torch.asgd(0.1),
    "maximize": gradtx.maximize(gradtx.momo(0.1)),
}
PLACES: Any = {
    "chain": lambda tx: gradtx.chain(gradtx.freeze("body"), tx),
    "first group": lambda tx: gradtx.partition({"body": gradtx.freeze(), ".*": tx}),
    "last group": lambda tx: gradtx.partition({"head": tx, ".*": gradtx.freeze()}),
    "mask behind": lambda tx: gradtx.chain(gradtx.freeze("body"), gradtx.masked(tx, "head")),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", SEARCHES_AND_DISTANCES)
def test_a_rule_of_the_whole_tree_sees_what_is_not_frozen(name: str, place: str) -> None:
    """As if the head were all there is."""
    head = jnp.array([1.0, -2.0, 0.5])

    def run(tx: Any, params: Any, loss: Any) -> Any:
        @jax.jit
        def step(params: Any, state: Any) -> Any:
            value, grad = jax.value_and_grad(loss)(params)
            extra = {"value": value, "grad": grad, "value_fn": loss}
            updates, state = tx.update(grad, state, params, **extra)
            return gradtx.apply_updates(params, updates), state

        state = tx.init(params)
        for _ in range(3):
            params, state = step(params, state)
        return params

    tx, body = SEARCHES_AND_DISTANCES[name], PARAMS["body"]
    alone = run(tx, {"head": head}, lambda p: _objective(p["head"]))
    together = run(
        PLACES[place](tx),
        {"head": head, "body": body},
        lambda p: _objective(p["head"]) + 0 * jnp.sum(p["body"]["kernel"]),
    )
    np.testing.assert_allclose(together["head"], alone["head"], rtol=1e-5)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, together["body"], body))


def test_flatten_says_which_gradient_is_absent() -> None:
    tx = gradtx.chain(gradtx.freeze("body/bias"), gradtx.flatten(gradtx.adam(0.1)))
    with pytest.raises(ValueError, match="flatten: at body/bias: there is no gradient"):
        tx.update(GRADS, tx.init(PARAMS), PARAMS)
