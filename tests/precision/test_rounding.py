"""Parameters narrower than float32: what each way of rounding them does over many steps."""

import functools
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

SGD = functools.partial(gradtx.sgd, 1e-3)
WAYS: dict[str, Any] = {
    "stochastic_rounding": lambda tx: gradtx.chain(tx, gradtx.stochastic_rounding(3)),
    "kahan": lambda tx: gradtx.chain(tx, gradtx.kahan()),
    "master_weights": gradtx.master_weights,
}
every_way = pytest.mark.parametrize("way", WAYS)


def trained(tx: Any, params: Any, grads: Any, steps: int, apply: Any = optax.apply_updates) -> Any:
    """Compiled, as in training: parameters and state after so many steps."""

    @jax.jit
    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        updates, state = tx.update(grads, state, params)
        return (apply(params, updates), state), None

    return jax.lax.scan(step, (params, tx.init(params)), length=steps)[0]


def tree(dtype: Any = jnp.bfloat16) -> Any:
    rng = np.random.default_rng(0)
    params = {"w": rng.standard_normal((8, 16)), "b": rng.standard_normal(16), "s": 0.5}
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), params)


@pytest.mark.parametrize("apply", [optax.apply_updates, gradtx.apply_updates])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@every_way
def test_a_thousand_small_steps_arrive(way: str, dtype: str, apply: Any) -> None:
    """1.0 minus 1e-3 a thousand times, which nearest rounding in bfloat16 does not move at all."""
    start = {"w": jnp.ones(256, dtype)}
    params, _ = trained(WAYS[way](SGD()), start, {"w": jnp.ones(256, dtype)}, 1000, apply)
    exact, _ = trained(SGD(), {"w": jnp.ones(256)}, {"w": jnp.ones(256)}, 1000, apply)
    assert params["w"].dtype == dtype
    got, expected = np.asarray(params["w"], np.float64), np.asarray(exact["w"], np.float64)
    if way == "stochastic_rounding":
        assert abs(got.mean() - expected.mean()) < 4 * got.std() / np.sqrt(256)
    else:
        # The companion rounds too: a tenth of what one rounding of 1.0 in bfloat16 may lose.
        np.testing.assert_allclose(got, expected, atol=5e-4 if way == "kahan" else 1e-5)


def test_nearest_rounding_does_not_move() -> None:
    start = {"w": jnp.ones(4, jnp.bfloat16)}
    params, _ = trained(SGD(), start, start, 1000)
    assert np.all(np.asarray(params["w"], np.float32) == 1)


@every_way
def test_apply_updates_lands_on_what_the_rule_rounded_to(way: str) -> None:
    params = tree()
    grads = jax.tree.map(lambda p: jnp.ones_like(p) * 1.37, params)
    tx = WAYS[way](gradtx.adam(3e-3))
    state = tx.init(params)
    for _ in range(3):
        updates, state = jax.jit(tx.update)(grads, state, params)
        assert {u.dtype for u in jax.tree.leaves(updates)} == {np.dtype(np.float32)}
        wide = jax.tree.map(lambda p, u: p.astype(jnp.float32) + u, params, updates)
        landed = gradtx.apply_updates(params, updates)
        for name in params:
            np.testing.assert_array_equal(np.asarray(wide[name]), np.asarray(landed[name], "f4"))
        params = landed


def test_master_weights_are_the_float32_run_and_params_their_rounding() -> None:
    params, grads = tree(), tree()
    narrow, state = trained(gradtx.master_weights(gradtx.adamw(1e-2)), params, grads, 20)
    wide = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    exact, _ = trained(gradtx.adamw(1e-2), wide, jax.tree.map(lambda g: g.astype("f4"), grads), 20)
    for name in params:
        np.testing.assert_allclose(state.master[name], exact[name], rtol=1e-6)
        np.testing.assert_array_equal(narrow[name], state.master[name].astype(jnp.bfloat16))


def test_stochastic_rounding_is_determined_by_its_seed_and_differs_between_leaves_and_steps() -> (
    None
):
    params = {"a": jnp.ones(4096, jnp.bfloat16), "b": jnp.ones(4096, jnp.bfloat16)}
    grads = jax.tree.map(lambda p: jnp.full_like(p, 2.0**-9), params)

    def two_steps(seed: int) -> list[np.ndarray]:
        tx = gradtx.stochastic_rounding(seed)
        first, state = tx.update(grads, tx.init(params), params)
        second, _ = tx.update(grads, state, params)
        return [np.asarray(x) != 0 for x in (first["a"], first["b"], second["a"])]

    moved, again, other = two_steps(0), two_steps(0), two_steps(1)
    np.testing.assert_array_equal(moved, again)
    rows = [*moved, *other]
    for i, x in enumerate(rows):
        assert 0.2 < x.mean() < 0.3  # a quarter of the way to the next bfloat16
        for y in rows[:i]:
            assert abs(np.corrcoef(x, y)[0, 1]) < 4 / np.sqrt(4096)


@every_way
def test_sharded_equals_unsharded(way: str) -> None:
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:8]), ("rows",))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows"))
    params = {"w": jnp.linspace(-2, 2, 8 * 64).reshape(8, 64).astype(jnp.bfloat16)}
    grads = {"w": jnp.linspace(1, 2, 8 * 64).reshape(8, 64).astype(jnp.bfloat16)}
    tx = WAYS[way](SGD())
    alone, _ = trained(tx, params, grads, 5)
    params, grads = jax.device_put((params, grads), spread)
    together, state = trained(tx, params, grads, 5)
    np.testing.assert_array_equal(np.asarray(alone["w"]), np.asarray(together["w"]))
    placed = [x for x in jax.tree.leaves(state) if x.shape == (8, 64)]
    assert all(x.sharding.is_equivalent_to(spread, 2) for x in placed)


@every_way
def test_one_trace_constant_avals_and_donation(way: str) -> None:
    tx, traces = WAYS[way](gradtx.adam(1e-2)), []

    def step(params: Any, state: Any, grads: Any) -> Any:
        traces.append(1)
        updates, state = tx.update(grads, state, params)
        return gradtx.apply_updates(params, updates), state

    compiled = jax.jit(step, donate_argnums=(0, 1))
    params = tree()
    state = tx.init(params)
    avals = jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), (params, state))
    shapes = jax.eval_shape(
        tx.init, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    )
    assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    for _ in range(3):
        params, state = compiled(params, state, tree())
    assert jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), (params, state)) == avals
    assert len(traces) == 1


@every_way
def test_is_a_value(way: str) -> None:
    tx = WAYS[way](gradtx.adam(1e-2))
    assert tx == WAYS[way](gradtx.adam(1e-2))
    assert hash(tx) == hash(WAYS[way](gradtx.adam(1e-2)))
    assert pickle.loads(pickle.dumps(tx)) == tx
    assert way in repr(tx)


@every_way
def test_absent_and_wide_leaves(way: str) -> None:
    """Float32 leaves beside narrow ones are updated as they would be alone."""
    params = {**tree(), "wide": jnp.ones(3)}
    grads = {**tree(), "s": None, "wide": jnp.ones(3)}
    tx = WAYS[way](SGD())
    updates, state = tx.update(grads, tx.init(params), params)
    assert updates["s"] is None
    np.testing.assert_allclose(updates["wide"], -1e-3)
    assert jax.tree.structure(state) == jax.tree.structure(tx.init(params))


@every_way
def test_inside_accumulation(way: str) -> None:
    params = {"w": jnp.ones(64, jnp.bfloat16)}
    tx = gradtx.accumulate(WAYS[way](SGD()), 2)
    params, _ = trained(tx, params, {"w": jnp.ones(64, jnp.bfloat16)}, 400)
    assert abs(float(jnp.mean(params["w"].astype(jnp.float32))) - 0.8) < 0.02


def test_kahan_beside_float8_keeps_its_companion_in_bfloat16() -> None:
    start = {"w": jnp.ones(16, jnp.float8_e4m3fn)}
    tx = WAYS["kahan"](SGD())
    params, _ = trained(tx, start, {"w": jnp.ones(16)}, 500, gradtx.apply_updates)
    np.testing.assert_allclose(np.asarray(params["w"], np.float32), 0.5, atol=0.05)


@pytest.mark.parametrize("way", WAYS)
def test_float32_parameters_are_refused(way: str) -> None:
    with pytest.raises(ValueError, match=f"{way} rounds parameters narrower than float32.*cast"):
        WAYS[way](SGD()).init(tree(jnp.float32))


def test_rounding_comes_last() -> None:
    tx = gradtx.chain(gradtx.stochastic_rounding(), gradtx.scale(0.5))
    with pytest.raises(ValueError, match=r"at b: scale.*comes after.*must come last"):
        tx.update(tree(), tx.init(tree()), tree())


@every_way
def test_params_are_needed(way: str) -> None:
    tx = WAYS[way](SGD())
    with pytest.raises(ValueError, match="needs the parameters"):
        tx.update(tree(), tx.init(tree()))
