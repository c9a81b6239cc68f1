"""Computed in float32 or wider, stored in float32 or wider, rounded once on leaving."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

REAL = ["bfloat16", "float16", "float32", "float64"]
COMPLEX = ["complex64", "complex128"]
WIDE = {"bfloat16": "float32", "float16": "float32"}
X64 = ("float64", "complex128")


@pytest.fixture(autouse=True)
def x64(request: pytest.FixtureRequest) -> Any:
    """64-bit types where the test's parameters name one."""
    names = getattr(getattr(request.node, "callspec", None), "params", {}).values()
    with jax.enable_x64(any(name in X64 for name in names)):
        yield


def normal(shape: tuple[int, ...], dtype: str, seed: int = 0, scale: float = 1.0) -> jax.Array:
    rng = np.random.default_rng(seed)
    x = scale * rng.normal(size=shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * scale * rng.normal(size=shape)
    return jnp.asarray(x, dtype)


def exact(x: Any) -> np.ndarray:
    """The same numbers in float64 or complex128."""
    kind = np.complex128 if jnp.iscomplexobj(x) else np.float64
    return np.asarray(x).astype(kind)


def half_ulp(x: np.ndarray, dtype: str) -> np.ndarray:
    """Half the distance between numbers of dtype around x, and a little for a sum in float32."""
    info = jnp.finfo(dtype)
    exponent = np.floor(np.log2(np.maximum(np.abs(x), float(info.tiny))))
    slack = 1 + 2.0 ** (info.nmant - 22) if dtype in WIDE else 1.0
    return 0.5 * slack * 2.0 ** (exponent - info.nmant)


# -- apply_updates -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("update_dtype", REAL)
def test_apply_updates_rounds_once(dtype: str, update_dtype: str) -> None:
    param = normal((4000,), dtype)
    update = normal((4000,), update_dtype, seed=1, scale=1e-2)
    new = gradtx.apply_updates({"w": param}, {"w": update})["w"]
    assert new.dtype == dtype
    truth = exact(param) + exact(update)
    error = np.abs(exact(new) - truth)
    assert (error <= half_ulp(truth, dtype)).all()


def test_rounding_the_update_first_would_be_worse() -> None:
    param = normal((4000,), "bfloat16")
    update = normal((4000,), "float32", seed=1, scale=1e-2)
    truth = exact(param) + exact(update)
    twice = exact(param + update.astype(jnp.bfloat16))
    assert (np.abs(twice - truth) > half_ulp(truth, "bfloat16")).any()


@pytest.mark.parametrize("dtype", COMPLEX)
def test_apply_updates_to_complex_parameters(dtype: str) -> None:
    param, update = normal((100,), dtype), normal((100,), dtype, seed=1)
    new = gradtx.apply_updates(param, update)
    assert new.dtype == dtype
    np.testing.assert_allclose(exact(new), exact(param) + exact(update), rtol=1e-6)


def test_apply_updates_takes_numbers_and_numpy() -> None:
    new = gradtx.apply_updates({"a": np.float32(1), "b": 2.0}, {"a": np.float32(0.5), "b": 0.25})
    assert (new["a"], new["b"]) == (1.5, 2.25)
    assert new["a"].dtype == jnp.float32


# -- what leaves, and what is kept ---------------------------------------------------------------

TRANSFORMATIONS = [
    gradtx.sgd(0.1, momentum=0.9),
    gradtx.adamw(0.1),
    gradtx.rmsprop(0.1),
    gradtx.adagrad(0.1),
    gradtx.amsgrad(0.1),
]
transformations = pytest.mark.parametrize("tx", TRANSFORMATIONS, ids=lambda tx: tx.definition.name)


PAIRS = [
    ("bfloat16", "bfloat16"),
    ("bfloat16", "float32"),
    ("float16", "float64"),
    ("float32", "bfloat16"),
    ("float32", "float64"),
    ("float64", "float16"),
]


@transformations
@pytest.mark.parametrize(("dtype", "grad_dtype"), PAIRS)
def test_updates_leave_in_the_parameters_dtype(tx: Any, dtype: str, grad_dtype: str) -> None:
    param, grad = normal((3,), dtype), normal((3,), grad_dtype)
    state = tx.init(param)
    for _ in range(2):
        update, new = tx.update(grad, state, param)
        assert update.dtype == dtype
        assert not update.weak_type
        for before, after in zip(jax.tree.leaves(state), jax.tree.leaves(new), strict=True):
            assert (before.shape, before.dtype) == (after.shape, after.dtype)
            assert before.weak_type == after.weak_type == False  # noqa: E712
            if before.ndim:
                assert before.dtype == WIDE.get(dtype, dtype)
        state = new


@pytest.mark.parametrize("grad_dtype", REAL)
def test_updates_without_params_leave_in_the_gradients_dtype(grad_dtype: str) -> None:
    tx = gradtx.adam(0.1)
    grad = normal((3,), grad_dtype)
    update, state = tx.update(grad, tx.init(normal((3,), "float32")))
    assert update.dtype == grad_dtype
    assert state[0].mu.dtype == jnp.float32


def test_each_leaf_has_its_own_dtype() -> None:
    with jax.enable_x64(True):
        params = {name: normal((3,), name) for name in REAL + COMPLEX}
        tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(0.1))
        state = tx.init(params)
        updates, state = tx.update(params, state, params)
        for name in REAL + COMPLEX:
            assert updates[name].dtype == name
            assert state[1][0].mu[name].dtype == WIDE.get(name, name)
            assert state[1][0].nu[name].dtype == np.zeros((), WIDE.get(name, name)).real.dtype


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_state_is_narrow_only_where_it_was_asked_for(dtype: str) -> None:
    tx = gradtx.adam(0.1, mu_dtype=dtype)
    param = normal((3,), "float32")
    state = tx.init(param)
    _, state = tx.update(param, state, param)
    assert state[0].mu.dtype == dtype
    assert state[0].nu.dtype == jnp.float32


# -- the maths -----------------------------------------------------------------------------------


def adamw_in_numpy(param: np.ndarray, grads: list[np.ndarray]) -> np.ndarray:
    """AdamW in double precision, from the paper; |g|^2 for complex g."""
    rate, b1, b2, eps, decay = 0.01, 0.9, 0.999, 1e-8, 0.1
    mu, nu = np.zeros_like(param), np.zeros(param.shape)
    for t, g in enumerate(grads, start=1):
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * np.abs(g) ** 2
        direction = (mu / (1 - b1**t)) / (np.sqrt(nu / (1 - b2**t)) + eps)
        param = param - rate * (direction + decay * param)
    return param


@pytest.mark.parametrize(
    ("dtype", "rtol"),
    [("float32", 3e-6), ("float64", 1e-13), ("complex64", 3e-6), ("complex128", 1e-13)],
)
def test_adamw_against_numpy(dtype: str, rtol: float) -> None:
    tx = gradtx.adamw(0.01, weight_decay=0.1)
    param = start = normal((50,), dtype)
    grads = [normal((50,), dtype, seed) for seed in range(1, 21)]
    state = tx.init(param)
    step = jax.jit(tx.update)
    for grad in grads:
        updates, state = step(grad, state, param)
        param = gradtx.apply_updates(param, updates)
    truth = adamw_in_numpy(exact(start), [exact(g) for g in grads])
    np.testing.assert_allclose(exact(param), truth, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_narrow_update_is_the_wide_one_rounded_once(dtype: str) -> None:
    param, grads = normal((500,), dtype), [normal((500,), dtype, seed) for seed in range(5)]
    updates = {}
    for compute in (dtype, "float64"):
        with jax.enable_x64(compute == "float64"):
            tx = gradtx.adamw(0.01, weight_decay=0.1)
            wide = jnp.asarray(param, compute)
            state = tx.init(wide)
            for grad in grads:
                updates[compute], state = tx.update(jnp.asarray(grad, compute), state, wide)
    truth = exact(updates["float64"])
    error = np.abs(exact(updates[dtype]) - truth)
    # Float32's own error, of a few units in its last place, comes on top of the rounding.
    assert (error <= 1.01 * half_ulp(truth, dtype) + 1e-6 * np.abs(truth)).all()


def test_nothing_is_rounded_between_links() -> None:
    grad = normal((1000,), "bfloat16")
    tx = gradtx.chain(gradtx.scale(1 / 3), gradtx.trace(0.0), gradtx.scale(3.0))
    update, _ = tx.update(grad, tx.init(grad))
    np.testing.assert_array_equal(update, grad)
    rounded = (grad * (1 / 3)).astype(jnp.bfloat16) * 3
    assert (rounded != grad).any()


def test_nothing_is_rounded_between_a_tree_rule_and_its_neighbours() -> None:
    @gradtx.per_tree
    def thirds() -> Any:
        return lambda updates: jax.tree.map(lambda u: u / 3, updates)

    grad = normal((1000,), "bfloat16")
    tx = gradtx.chain(thirds(), gradtx.scale(3.0))
    np.testing.assert_array_equal(tx.update(grad, tx.init(grad))[0], grad)
    tx = gradtx.chain(gradtx.scale(1 / 3), gradtx.clip_by_global_norm(1e6), gradtx.scale(3.0))
    np.testing.assert_array_equal(tx.update(grad, tx.init(grad))[0], grad)


def test_hyperparameters_are_not_cast_to_a_narrow_dtype() -> None:
    param = jnp.zeros(2, jnp.bfloat16)
    for b2 in (0.999, np.float32(0.999), jnp.float32(0.999), gradtx.constant_schedule(0.999)):
        tx = gradtx.scale_by_adam(b2=b2)  # 0.999 in bfloat16 is 1
        state = tx.init(param)
        _, state = tx.update(jnp.ones(2, jnp.bfloat16), state)
        np.testing.assert_allclose(jax.tree.leaves(state)[-1], 1e-3, rtol=1e-4)
        for _ in range(3):
            _, state = tx.update(param, state)
        np.testing.assert_allclose(jax.tree.leaves(state)[-1], 1e-3 * 0.999**3, rtol=1e-4)


@pytest.mark.parametrize("rate", [0.1, np.float64(0.1), jnp.float32(0.1), jnp.bfloat16(0.1), 1])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "complex64"])
def test_the_kind_of_number_does_not_change_a_dtype(rate: Any, dtype: str) -> None:
    tx = gradtx.sgd(rate, momentum=0.9)
    param = normal((3,), dtype)
    update, state = tx.update(param, tx.init(param), param)
    assert update.dtype == dtype
    assert jax.tree.leaves(state)[0].dtype == WIDE.get(dtype, dtype)


def test_a_bfloat16_second_moment_decays() -> None:
    tx = gradtx.scale_by_adam()
    grad = jnp.ones(2, jnp.bfloat16)
    state = tx.init(grad)
    state = state._replace(nu=jnp.ones_like(state.nu))
    decay = jax.jit(
        lambda state: jax.lax.fori_loop(0, 1000, lambda _, s: tx.update(0 * grad, s)[1], state)
    )
    np.testing.assert_allclose(decay(state).nu, 0.999**1000, rtol=1e-4)


def test_norms_neither_saturate_nor_overflow() -> None:
    leaves = [jnp.full((), 1.0, jnp.bfloat16)] * 1000
    np.testing.assert_allclose(gradtx.global_norm(leaves), np.sqrt(1000), rtol=1e-6)
    grads = {"w": jnp.full((4,), 300.0, jnp.float16)}  # 300^2 is more than float16 holds
    tx = gradtx.clip_by_global_norm(1.0)
    np.testing.assert_allclose(tx.update(grads, tx.init(grads))[0]["w"], 0.5, rtol=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
@transformations
def test_zero_gradients_give_finite_updates_and_derivatives(tx: Any, dtype: str) -> None:
    param = jnp.zeros((3,), dtype)

    def total(grad: Any) -> Any:
        update, _ = tx.update(grad, tx.init(param), param)
        return jnp.sum(jnp.abs(update) ** 2).astype(jnp.float32)

    assert np.isfinite(total(param))
    assert np.isfinite(jax.grad(total)(param).astype(jnp.complex64)).all()
