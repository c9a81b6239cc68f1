"""Pairs of functions, Optax's and a user's own, as links of a chain; and the other way round."""

import pickle
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.interop.optax import from_optax, to_optax

optax = pytest.importorskip("optax")

PARAMS = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
GRADS = {"w": jnp.array([3.0, 4.0]), "b": jnp.array(-1.0)}


def run(tx: Any, steps: int = 3, params: Any = PARAMS, **extra: Any) -> Any:
    """The updates and the state after some steps on constant gradients."""
    state = tx.init(PARAMS)
    for _ in range(steps):
        updates, state = tx.update(GRADS, state, params, **extra)
    return updates, state


def assert_equal(a: Any, b: Any, rtol: float = 2e-5) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol)


def init_nothing(params: Any) -> Any:
    return ()


def negate(updates: Any, state: Any, params: Any = None) -> Any:
    return jax.tree.map(lambda u: -u, updates), state


# -- pairs of functions --------------------------------------------------------------------------


def test_a_pair_of_functions_is_a_transformation() -> None:
    tx = gradtx.GradientTransformation(init_nothing, negate)
    assert isinstance(tx, gradtx.GradientTransformation)
    assert repr(tx) == "GradientTransformation(init=init_nothing, update=negate)"
    assert tx == gradtx.GradientTransformation(init_nothing, negate)
    assert hash(tx) == hash(gradtx.GradientTransformation(init_nothing, negate))
    assert pickle.loads(pickle.dumps(tx)) == tx
    updates, state = run(tx)
    assert updates["b"] == 1.0
    assert state == ()
    init, update = tx
    assert update(GRADS, init(PARAMS))[0]["b"] == 1.0
    assert tx[1](GRADS, tx[0](PARAMS))[0]["b"] == 1.0


def test_it_goes_into_a_chain_and_under_a_mask() -> None:
    pair = gradtx.GradientTransformation(init_nothing, negate)
    tx = gradtx.chain(gradtx.scale(2.0), gradtx.masked(pair, "w"), gradtx.scale(3.0))
    updates, _ = run(tx)
    assert updates["w"].tolist() == [-18.0, -24.0]
    assert updates["b"] == -6.0


def test_it_sees_wide_arrays_and_nothing_is_rounded_around_it() -> None:
    seen = []

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        seen.append((updates.dtype, params.dtype))
        return updates / 3, state

    pair = gradtx.GradientTransformation(init_nothing, update)
    grad = jax.random.normal(jax.random.key(0), (100,), jnp.bfloat16)
    tx = gradtx.chain(pair, gradtx.scale(3.0))
    got, _ = tx.update(grad, tx.init(grad), grad)
    assert seen == [(jnp.float32, jnp.float32)]
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(got, grad)


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        (lambda u: {"w": u["w"]}, "what it returned and the updates differ in structure"),
        (lambda u: u | {"w": u["b"]}, r"at w: updates float32\[2\] became float32\[\]"),
        (lambda u: u | {"w": None}, r"at w: updates float32\[2\] became None"),
    ],
)
def test_it_must_keep_the_tree(returned: Any, problem: str) -> None:
    pair = gradtx.GradientTransformation(init_nothing, lambda u, s, p=None: (returned(u), s))
    with pytest.raises(ValueError, match=problem):
        run(gradtx.chain(pair))


# -- Optax's links in our chain ------------------------------------------------------------------

CHAINS = {
    "clip first": lambda lib, other: lib.chain(other.clip_by_global_norm(1.0), lib.adam(0.1)),
    "adam first": lambda lib, other: lib.chain(
        other.scale_by_adam(), lib.add_decayed_weights(0.1), other.scale(-0.1)
    ),
    "nested": lambda lib, other: lib.chain(
        lib.masked(other.trace(0.9), {"w": True, "b": False}),
        lib.chain(other.scale(2.0), lib.chain(lib.scale(0.5))),
    ),
    "named": lambda lib, other: lib.named_chain(
        ("trace", other.trace(0.9)), ("rate", lib.scale_by_learning_rate(0.1))
    ),
    "whole": lambda lib, other: lib.chain(other.adamw(0.1, weight_decay=0.1)),
    "empty": lambda lib, other: lib.chain(other.identity(), lib.identity()),
}


@pytest.mark.parametrize("make", CHAINS.values(), ids=CHAINS)
def test_chains_may_be_mixed_either_way(make: Any) -> None:
    theirs = run(make(optax, optax))
    for ours in (make(gradtx, optax), make(optax, gradtx), make(gradtx, gradtx)):
        for way in (run, jax.jit(lambda ours=ours: run(ours))):
            got = run(ours) if way is run else way()
            assert_equal(got[0], theirs[0])
            assert_equal(got[1], theirs[1])
            assert jax.tree.structure(got[0]) == jax.tree.structure(theirs[0])


def paths(state: Any) -> list[str]:
    return [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(state)]


@pytest.mark.parametrize("make", CHAINS.values(), ids=CHAINS)
def test_mixed_chains_keep_the_paths_of_the_state(make: Any) -> None:
    theirs = paths(make(optax, optax).init(PARAMS))
    for a, b in ((gradtx, optax), (optax, gradtx), (gradtx, gradtx)):
        assert paths(make(a, b).init(PARAMS)) == theirs


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
        lambda tx: optax.apply_if_finite(tx, 3),
        lambda tx: optax.partition({"a": tx, "b": optax.sgd(0.1)}, {"w": "a", "b": "b"}),
        lambda tx: optax.flatten(tx),
        lambda tx: optax.with_extra_args_support(tx),
    ],
    ids=["MultiSteps", "apply_if_finite", "partition", "flatten", "with_extra_args_support"],
)
def test_wrappers_of_optax_take_ours(wrap: Any) -> None:
    assert_equal(run(wrap(gradtx.adamw(0.1)), 4)[0], run(wrap(optax.adamw(0.1)), 4)[0])


def test_inject_hyperparams_takes_our_definitions() -> None:
    tx = optax.inject_hyperparams(gradtx.adam)(learning_rate=0.1, b1=0.8)
    updates, state = run(tx)
    expected = run(gradtx.adam(0.1, b1=0.8))[0]
    assert_equal(updates, expected)
    np.testing.assert_allclose(state.hyperparams["learning_rate"], 0.1)
    state.hyperparams["learning_rate"] = jnp.float32(0.2)
    faster, _ = tx.update(GRADS, state, PARAMS)
    assert_equal(faster, jax.tree.map(lambda u: 2 * u, expected), rtol=1e-5)


def test_tree_map_params_finds_the_parameters_in_our_state() -> None:
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(0.1))
    state = optax.tree_utils.tree_map_params(tx, lambda x: x + 1, tx.init(PARAMS))
    assert state[1][0].mu["w"].tolist() == [1, 1]
    assert state[1][0].count == 0


def test_tree_get_finds_fields_of_our_state() -> None:
    _, state = run(gradtx.adam(0.1))
    assert optax.tree_utils.tree_get(state, "count") == 3
    assert optax.tree_utils.tree_get(state, "nu")["w"].shape == (2,)


# -- what carries one of ours --------------------------------------------------------------------


class Carrier:
    """An object of a user's, with the methods of a transformation."""

    def __init__(self, tx: Any):
        self.init, self.update = tx.init, tx.update


CARRIED = {
    "pair": lambda tx: optax.GradientTransformation(tx.init, tx.update),
    "unpacked": lambda tx: optax.GradientTransformationExtraArgs(*tx),
    "ours": lambda tx: gradtx.GradientTransformation(tx.init, tx.update),
    "with_extra_args_support": lambda tx: optax.with_extra_args_support(tx),
    "twice": lambda tx: optax.with_extra_args_support(optax.GradientTransformation(*tx)),
    "partial": lambda tx: optax.GradientTransformation(partial(tx.init), partial(tx.update)),
    "jitted": lambda tx: optax.GradientTransformation(jax.jit(tx.init), jax.jit(tx.update)),
    "object": Carrier,
    "to_optax": to_optax,
}


@pytest.mark.parametrize("carry", CARRIED.values(), ids=CARRIED)
def test_what_carries_one_of_ours_is_that_one(carry: Any) -> None:
    """So that what it says of itself is seen: here that it rounds, and what it stores."""
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    ours = gradtx.chain(gradtx.adamw(1e-3), gradtx.kahan())
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), carry(ours))
    assert tx == gradtx.chain(gradtx.clip_by_global_norm(1.0), ours)
    assert tx.replace(learning_rate=1e-2).parts[1].parts[0].learning_rate == 1e-2
    compensation = tx.init(params)[1][1].inner_state.compensation
    assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(compensation))
    updates, _ = tx.update(params, tx.init(params), params)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(updates))
    with pytest.raises(ValueError, match="must come last"):
        gradtx.lookahead(carry(ours), 5, 0.5).init(gradtx.LookaheadParams.init_synced(params))


@pytest.mark.parametrize(
    "pair",
    [
        lambda tx: optax.GradientTransformation(tx.init, gradtx.adam(0.2).update),
        lambda tx: optax.GradientTransformation(tx.init, partial(tx.update, value=1.0)),
        lambda tx: optax.GradientTransformation(tx.init, lambda *a: tx.update(*a)),
        lambda tx: optax.GradientTransformation(tx.update, tx.init),
        lambda tx: optax.MultiSteps(tx, 2),
        lambda tx: optax.chain(tx),
    ],
    ids=["two", "partial", "lambda", "swapped", "MultiSteps", "chain"],
)
def test_what_does_more_is_not(pair: Any) -> None:
    assert from_optax(pair(gradtx.adam(0.1))).definition.name not in ("adam", "chain")


# -- extra arguments -----------------------------------------------------------------------------


def test_extra_arguments_go_only_where_they_are_accepted() -> None:
    calls = []

    def none(updates: Any, state: Any, params: Any = None) -> Any:
        calls.append(())
        return updates, state

    def some(updates: Any, state: Any, params: Any = None, *, value: Any = None) -> Any:
        calls.append(value)
        return updates, state

    def everything(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        calls.append(extra)
        return updates, state

    pairs = [gradtx.GradientTransformation(init_nothing, f) for f in (none, some, everything)]
    run(gradtx.chain(*pairs, gradtx.scale(1.0)), 1, value=1.0, other=2.0)
    assert calls == [(), 1.0, {"value": 1.0, "other": 2.0}]


def test_extra_arguments_reach_optax_and_come_back() -> None:
    plateau = optax.contrib.reduce_on_plateau(factor=0.5, patience=1, cooldown=0)
    updates, state = run(gradtx.chain(gradtx.scale(1.0), plateau), 4, value=1.0)
    expected = run(optax.chain(optax.scale(1.0), plateau), 4, value=1.0)
    assert_equal(updates, expected[0])
    assert_equal(state, expected[1])
    assert abs(updates["b"]) < 1


def test_our_extra_arguments_through_optax() -> None:
    @gradtx.per_leaf
    def scale_by_loss() -> Any:
        def update(grad: Any, *, value: Any) -> Any:
            return grad * value

        return update

    for ours in (scale_by_loss(), to_optax(scale_by_loss())):
        tx = optax.chain(optax.scale(2.0), ours)
        assert run(tx, 1, value=3.0)[0]["b"] == -6.0
        with pytest.raises(TypeError, match=r"scale_by_loss\(\) needs value"):
            run(tx, 1)


POLYAK = {"max_learning_rate": 0.5, "f_min": 0.1}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
        lambda tx: optax.apply_if_finite(tx, 3),
        lambda tx: optax.masked(tx, {"w": True, "b": False}),
        lambda tx: optax.partition({"a": tx, "b": optax.sgd(0.1)}, {"w": "a", "b": "b"}),
        lambda tx: optax.named_chain(("clip", optax.clip(1.0)), ("tx", tx)),
        lambda tx: optax.flatten(tx),
        lambda tx: optax.conditionally_transform(tx, lambda step: step % 2 == 0),
    ],
    ids=[
        "MultiSteps",
        "apply_if_finite",
        "masked",
        "partition",
        "named_chain",
        "flatten",
        "conditionally",
    ],
)
def test_wrappers_of_optax_pass_the_value_on(wrap: Any) -> None:
    got, expected = (run(wrap(lib.polyak_sgd(**POLYAK)), 4, value=2.0) for lib in (gradtx, optax))
    assert_equal(got[0], expected[0])


def test_inject_hyperparams_passes_the_value_on() -> None:
    given = {"max_learning_rate": optax.linear_schedule(0.5, 0.1, 3), "f_min": 0.1}
    ours, theirs = (
        run(optax.inject_hyperparams(lib.polyak_sgd, static_args="variant")(**given), value=2.0)
        for lib in (gradtx, optax)
    )
    assert_equal(ours[0], theirs[0])


def test_a_line_search_runs_inside_optax() -> None:
    def value_fn(params: Any) -> Any:
        return jnp.sum(params["w"] ** 4) + params["b"] ** 2

    def steps(tx: Any) -> Any:
        params, state = PARAMS, tx.init(PARAMS)
        for _ in range(3):
            value, grad = jax.value_and_grad(value_fn)(params)
            extra = {"value": value, "grad": grad, "value_fn": value_fn}
            updates, state = tx.update(grad, state, params, **extra)
            params = optax.apply_updates(params, updates)
        return params

    inside = steps(optax.chain(optax.identity(), gradtx.lbfgs()))
    assert_equal(inside, steps(gradtx.lbfgs()))
    assert value_fn(inside) < 0.1 * value_fn(PARAMS)


def test_from_and_to_optax() -> None:
    ours = from_optax(optax.adam(0.1))
    assert isinstance(ours, gradtx.GradientTransformation)
    assert_equal(run(ours)[0], run(optax.adam(0.1))[0])
    theirs = to_optax(gradtx.adam(0.1))
    assert isinstance(theirs, optax.GradientTransformationExtraArgs)
    assert_equal(run(theirs)[0], run(optax.adam(0.1))[0])
    again = from_optax(gradtx.adam(0.1))
    assert again == gradtx.adam(0.1)
    with pytest.raises(TypeError, match="from_optax: the argument must be a gradient transf"):
        from_optax(3)
