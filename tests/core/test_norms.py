"""Norms over the whole range of their dtype, and what divides by them.

The oracle is NumPy in a wider dtype: float64 for float32, longdouble for float64.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.core import norms

# From the smallest normal numbers, 1.2e-38, to the largest, 3.4e38.
MAGNITUDES = [1e-36, 1e-30, 1e-25, 1e-19, 1e-9, 1.0, 1e9, 1e19, 4e19, 1e30, 6e37]
TINY, HUGE = 1e-25, 1e25
every_magnitude = pytest.mark.parametrize("size", MAGNITUDES)


def sample(size: float, shape: Any = (4, 3), dtype: Any = np.float32, seed: int = 0) -> Any:
    """Numbers whose norm is about `size`."""
    x = np.random.default_rng(seed).uniform(0.3, 1, shape) * [1, -1, 1]
    return (x / np.linalg.norm(x) * size).astype(dtype)


def wide(x: Any) -> Any:
    return np.asarray(x, np.complex128 if np.iscomplexobj(x) else np.float64)


def run(tx: Any, grads: Any, params: Any = None, **extra: Any) -> Any:
    params = jax.tree.map(jnp.ones_like, grads) if params is None else params
    return jax.jit(lambda g, p: tx.update(g, tx.init(p), p, **extra)[0])(grads, params)


def close(got: Any, expected: Any, rtol: float = 2e-6) -> None:
    np.testing.assert_allclose(np.asarray(got), expected, rtol=rtol)


@pytest.mark.parametrize("how", [norms._in_float64, norms._in_units])
def test_norms_as_each_platform_takes_them(how: Any) -> None:
    """What an accelerator runs is tried here too."""
    norm = jax.jit(lambda x: how([(0,)], x))
    sizes = np.logspace(-37, 37.9, 26)
    mixed = [[size, *sizes[:12]] for size in sizes]
    for x in [*np.stack([sizes] * 13, axis=1), *mixed]:
        x = np.asarray(x, np.float32)
        close(norm(x), np.linalg.norm(wide(x)))
    for bad, expected in [(np.nan, np.nan), (np.inf, np.inf), (-np.inf, np.inf)]:
        for beside in (0, 1e-30, 1, 1e30):
            x = np.full(13, beside, np.float32)
            x[3] = bad
            np.testing.assert_equal(wide(norm(x)), expected)


@pytest.mark.parametrize("how", [norms._in_float64, norms._in_units])
@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_norms_over_some_axes_and_of_one_number(how: Any, dtype: Any) -> None:
    x = np.stack([sample(size, (2, 3)) for size in (1e-30, 1, 1e30)])
    x = (x * (0.6 + 0.8j)).astype(dtype) if dtype == np.complex64 else x
    close(jax.jit(lambda x: how([(1, 2)], x))(x), np.linalg.norm(wide(x), axis=(1, 2)))
    for number in (1e-30, 0.5, 1e30):
        close(jax.jit(lambda x: how([(0,)], x))(np.array([number], dtype)), number)
        close(jax.jit(lambda x: how([()], x))(np.array(number, dtype)), number)


@pytest.mark.parametrize("how", [norms._in_float64, norms._in_units])
@pytest.mark.parametrize("largest", [*MAGNITUDES, np.inf, np.nan])
def test_norms_of_leaves_of_all_magnitudes_together(how: Any, largest: float) -> None:
    sizes = [size for size in MAGNITUDES if not size > largest] + [largest]
    leaves = [np.full((2, k % 3 + 1), size, np.float32) for k, size in enumerate(sizes)]
    got = jax.jit(lambda *x: how([(0, 1)] * len(x), *x))(*leaves)
    close(got, np.linalg.norm(np.concatenate([wide(x).ravel() for x in leaves])))


@pytest.mark.parametrize("size", [0.0, 1e-10, 1.0, 1e10])
def test_nothing_of_ordinary_numbers_is_infinite(size: float) -> None:
    with jax.debug_infs(True), jax.debug_nans(True):
        for how in (norms._in_float64, norms._in_units):
            how([(0,)], jnp.full(3, size, np.float32))


@every_magnitude
@pytest.mark.parametrize("dtype", [np.float32, np.complex64, jnp.bfloat16])
def test_the_norm_of_a_tree(size: float, dtype: Any) -> None:
    tree = {"a": sample(size, dtype=dtype), "b": sample(size, (3,), dtype), "c": dtype(0)}
    tree["none"] = None
    tree["empty"] = np.zeros((0, 2), dtype)
    expected = np.sqrt(sum(np.linalg.norm(wide(x)) ** 2 for x in jax.tree.leaves(tree)))
    for norm in (gradtx.global_norm, gradtx.tree.norm, jax.jit(gradtx.global_norm)):
        close(norm(tree), expected)
    close(jax.vmap(gradtx.global_norm)({"a": tree["a"]}), np.linalg.norm(wide(tree["a"]), axis=1))


def test_a_norm_is_right_to_rounding() -> None:
    for size in (1e-30, 1e-8, 1e-3, 1.0, 1e6, 1e13, 1e30):
        x = sample(size, (100, 3))
        close(gradtx.global_norm(x), np.linalg.norm(wide(x)), 2e-7)


def test_a_norm_of_many_numbers() -> None:
    for size in (1e-20, 1.0, 1e20):
        x = sample(size, (10**6, 3))
        close(gradtx.global_norm(x), np.linalg.norm(wide(x)))
    assert gradtx.global_norm([]) == 0
    assert gradtx.global_norm(jnp.zeros((3, 0))) == 0


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1.0, 1e160, 1e307])
def test_float64(size: float) -> None:
    with jax.enable_x64(True):
        x = sample(1.0, dtype=np.float64) * size
        expected = np.sqrt(np.sum(np.asarray(x, np.longdouble) ** 2))
        close(gradtx.global_norm([x]), expected, 1e-14)
        close(run(gradtx.normalize(), x), x / expected, 1e-14)
        close(run(gradtx.clip_by_global_norm(size / 2), x), x / 2, 1e-14)


@every_magnitude
def test_the_derivative_of_a_norm(size: float) -> None:
    x = sample(size)
    direction = wide(x) / np.linalg.norm(wide(x))
    close(jax.grad(gradtx.global_norm)(x), direction)
    close(jax.jvp(gradtx.global_norm, (x,), (np.float32(direction),))[1], 1)
    assert not np.any(jax.grad(gradtx.global_norm)(0 * x))
    z = sample(size).astype(np.complex64) * np.complex64(0.6 + 0.8j)
    close(np.conj(jax.grad(gradtx.global_norm)(z)), wide(z) / np.linalg.norm(wide(z)))


@every_magnitude
@pytest.mark.parametrize("limit", [1e-3, 1.0, 1e10])
def test_clipping(size: float, limit: float) -> None:
    x = sample(size)
    norm = np.linalg.norm(wide(x))
    close(run(gradtx.clip_by_global_norm(limit), x), wide(x) * min(1, limit / norm))
    rms = norm / np.sqrt(x.size)
    close(run(gradtx.clip_by_block_rms(limit), x), wide(x) * min(1, limit / rms))
    columns = np.linalg.norm(wide(x), axis=0)
    of_params = np.full(3, 2.0)  # of four ones
    expected = wide(x) * np.minimum(1, limit * of_params / columns)
    close(run(gradtx.adaptive_grad_clip(limit), x), expected)
    close(gradtx.unitwise_norm(x), np.broadcast_to(columns, x.shape))
    g_norm, most = np.full_like(x, norm), np.full_like(x, limit)
    close(gradtx.unitwise_clip(g_norm, most, x), wide(x) * min(1, limit / norm))


@every_magnitude
@pytest.mark.parametrize("limit", [1.0, 1e10])
def test_clipping_examples(size: float, limit: float) -> None:
    """Each by one factor: where that is smaller than the smallest normal number it is 0."""
    x = sample(size)
    sums, count = jax.jit(gradtx.per_example_global_norm_clip)([x], limit)
    rows = np.linalg.norm(wide(x), axis=1)
    clipped = wide(x) * np.minimum(1, limit / rows)[:, None]
    np.testing.assert_allclose(sums[0], clipped.sum(0), rtol=1e-5, atol=1e-6 * clipped.max())
    assert count == np.sum(rows > limit)


def test_the_example_of_an_overflow() -> None:
    x = jnp.array([3e19, 4e19])
    close(gradtx.global_norm(x), 5e19)
    tx = gradtx.clip_by_global_norm(1.0)
    close(tx.update(x, tx.init(x))[0], [0.6, 0.8])


def test_what_clipping_leaves_alone_stays_bit_by_bit() -> None:
    x = np.array([1e30, 1e-30, 1, 3e-38], np.float32)
    assert np.array_equal(run(gradtx.clip_by_global_norm(2e30), x), x)
    x = np.array([1e-30, 1e-33, 3e-38], np.float32)
    assert np.array_equal(run(gradtx.clip_by_global_norm(1e30), x), x)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite(bad: float) -> None:
    x = np.array([bad, 1], np.float32)
    for tx in (gradtx.clip_by_global_norm(1.0), gradtx.clip_by_block_rms(1.0), gradtx.normalize()):
        got = run(tx, x)
        assert np.isnan(got[0])
        assert np.isnan(got[1]) if np.isnan(bad) else got[1] == 0


@every_magnitude
def test_normalising(size: float) -> None:
    x = sample(size)
    norm = np.linalg.norm(wide(x))
    close(run(gradtx.normalize(), x), wide(x) / norm)
    for eps in (0.0, 1e-6, 1.0):
        tx = gradtx.normalize_by_update_norm(3.0, eps)
        close(run(tx, x), 3 * wide(x) / (norm + eps))
    vector = gradtx.tree.arithmetic.length(x).below(1).times(jnp.asarray(x))
    close(vector, wide(x) / norm)


@every_magnitude
def test_trust_ratios(size: float) -> None:
    x, params = sample(size), sample(0.7, seed=1)
    norm, own = np.linalg.norm(wide(x)), np.linalg.norm(wide(params))
    close(run(gradtx.scale_by_trust_ratio(), x, params), wide(x) * own / norm)
    tx = gradtx.scale_by_trust_ratio(min_norm=0.5, trust_coefficient=0.1, eps=1e-3)
    expected = wide(x) * 0.1 * max(own, 0.5) / (max(norm, 0.5) + 1e-3)
    close(run(tx, x, params), expected)
    close(run(gradtx.scale_by_param_block_norm(), params, x), wide(params) * max(norm, 1e-3))
    rms = norm / np.sqrt(x.size)
    close(run(gradtx.scale_by_param_block_rms(), params, x), wide(params) * max(rms, 1e-3))


@pytest.mark.parametrize("size", [TINY, HUGE])
def test_polyak(size: float) -> None:
    x = sample(size)
    norm = np.linalg.norm(wide(x))
    value = float(np.float32(norm / 2))  # where one step of x / (2 |x|) is right
    tx = gradtx.scale_by_polyak(max_learning_rate=1e30)
    close(run(tx, x, value=value), wide(x) / norm * min(value / norm, 1e30 * norm))
    if size == TINY:
        eps = gradtx.scale_by_polyak(max_learning_rate=1e30, eps=1e-20)
        close(run(eps, x, value=value), wide(x) * value / 1e-20)


@pytest.mark.parametrize("size", [TINY, HUGE])
@pytest.mark.parametrize("preconditioning", ["frobenius", "spectral", "aol", "schatten"])
def test_muon_does_not_see_the_scale(size: float, preconditioning: str) -> None:
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    factor = 2.0 ** round(np.log2(size))
    tx = gradtx.scale_by_muon(eps=0.0, preconditioning=preconditioning)
    close(run(tx, np.float32(x * factor)), run(tx, x), 1e-4)


@pytest.mark.parametrize("size", [TINY, HUGE])
def test_lbfgs_of_a_scaled_objective(size: float) -> None:
    """<dw, du> / <du, du> where <du, du> cannot be represented: the second step of a quadratic."""
    curvature = np.array([1.0, 2.0, 4.0])
    w0, w1 = np.ones(3), np.array([0.5, 0.25, 0.125])
    tx = gradtx.scale_by_lbfgs(memory_size=2)

    def second(factor: float) -> Any:
        state = tx.init(jnp.asarray(w0, np.float32))
        for w in (w0, w1):
            grads = np.float32(factor * curvature * w)
            u, state = tx.update(jnp.asarray(grads), state, jnp.asarray(w, np.float32))
        return u

    close(second(2.0 ** round(np.log2(size))), second(1.0), 1e-4)


@every_magnitude
def test_safe_norms(size: float) -> None:
    x = sample(size)
    close(gradtx.safe_norm(x, 0.0), np.linalg.norm(wide(x)))
    close(gradtx.safe_norm(x, 0.0, axis=1), np.linalg.norm(wide(x), axis=1))
    close(
        gradtx.safe_norm(x, 0.0, ord=2, axis=-1, keepdims=True)[:, 0],
        np.linalg.norm(wide(x), axis=1),
    )
    close(gradtx.safe_root_mean_squares(x, 0.0), np.linalg.norm(wide(x)) / np.sqrt(x.size))


# -- transformations that do not see the scale of the gradient -------------------------------------

SCALE_FREE = {
    "normalize": gradtx.normalize(),
    "lars": gradtx.lars(0.1, weight_decay=0.0, momentum=0.9),
    "fromage": gradtx.fromage(0.1, 0.0),
    "lion": gradtx.lion(0.1),
    "muon": gradtx.muon(0.1, eps=0.0, adam_eps_root=0.0),
    "clipped": gradtx.chain(gradtx.normalize(), gradtx.clip_by_global_norm(0.5), gradtx.sgd(1.0)),
}


@pytest.mark.parametrize("name", SCALE_FREE)
def test_the_scale_of_the_gradient_is_not_seen(name: str) -> None:
    tx = SCALE_FREE[name]
    params = {"w": jnp.asarray(sample(0.7, seed=1))}
    grads = sample(1.0)

    @jax.jit
    def two_steps(factor: Any) -> Any:
        state, x = tx.init(params), params
        for _ in range(2):
            u, state = tx.update({"w": grads * factor}, state, x)
            x = gradtx.apply_updates(x, u)
        return x["w"]

    for power in (-80, -60, -30, 30, 60):
        close(two_steps(np.float32(2.0**power)), two_steps(np.float32(1)), 1e-5)


# -- what a square that overflows does to a state -------------------------------------------------

GUARDED = {
    "adam": lambda: gradtx.adam(0.1),
    "adamw": lambda: gradtx.adamw(0.1),
    "rmsprop": lambda: gradtx.rmsprop(0.1),
    "adafactor": lambda: gradtx.adafactor(0.1),
}


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", GUARDED)
def test_finite_guard_undoes_a_step_whose_square_overflows(name: str, dtype: Any) -> None:
    tx = gradtx.finite_guard(GUARDED[name]())
    params = jnp.ones((4, 3), dtype)
    step = jax.jit(lambda g, s: tx.update(g, s, params))
    _, before = step(jnp.full_like(params, 0.5), tx.init(params))
    u, after = step(jnp.full_like(params, 1e20), before)
    assert not np.any(u)
    assert after.skipped == 1
    jax.tree.map(np.testing.assert_array_equal, after.inner_state, before.inner_state)
    u, after = step(jnp.full_like(params, 0.5), after)
    assert np.all(u != 0)
    assert after.in_a_row == 0


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_a_clipped_gradient_is_no_step_to_undo(dtype: Any) -> None:
    tx = gradtx.finite_guard(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(0.1)))
    params = jnp.ones((4, 3), dtype)
    u, state = jax.jit(lambda g: tx.update(g, tx.init(params), params))(jnp.full_like(params, 1e20))
    assert state.skipped == 0
    close(np.asarray(u, np.float32), np.full((4, 3), -0.1), 1e-2)
