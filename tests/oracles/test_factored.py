"""Adafactor, SM3, trust ratios and clipping by parts against NumPy float64, from the papers."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

from .replay import STEPS, assert_close, replay

Array = np.ndarray
SHAPES: dict[str, tuple[int, ...]] = {
    "scalar": (),
    "vector": (5,),
    "matrix": (3, 4),
    "tall": (6, 2),
    "kernel": (2, 3, 4, 3),
}


def arrays(seed: int, idle: float = 0.2) -> dict[str, Array]:
    """One array a step for each shape; some steps are zero."""
    rng = np.random.default_rng(seed)
    busy = rng.random(STEPS) >= idle
    return {
        name: rng.standard_normal((STEPS, *shape)) * busy.reshape(-1, *[1] * len(shape))
        for name, shape in SHAPES.items()
    }


GRADS, PARAMS = arrays(0), arrays(1, idle=0.05)


def check(tx: Any, oracle: Any, rtol: float = 1e-12) -> None:
    got = replay(tx, GRADS, PARAMS)
    for name in SHAPES:
        expected = np.stack(list(oracle(GRADS[name], PARAMS[name])))
        assert_close(got[name], expected, rtol, what=name)


def norm(x: Array) -> float:
    return float(np.sqrt(np.sum(np.square(x))))


def rms(x: Array) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


# -- Adafactor: Shazeer & Stern 2018, algorithms 1, 2 and 4 ----------------------------------------


def adafactor(
    grads: Array, exponent: float, eps: float, least: int, start: int = 0
) -> Iterator[Array]:
    """Algorithm 4 without relative steps; of more than two axes the two longest are factored."""
    shape = grads.shape[1:]
    order = sorted(range(len(shape)), key=lambda axis: shape[axis])
    factored = len(shape) > 1 and shape[order[-2]] >= least
    row: Array | float = 0.0
    column: Array | float = 0.0
    full: Array | float = 0.0
    for t, g in enumerate(grads, start=1):
        decay = 1 - max(t - start, 1) ** -exponent
        squares = g**2 + eps
        if factored:
            row = decay * row + (1 - decay) * squares.mean(order[-1], keepdims=True)
            column = decay * column + (1 - decay) * squares.mean(order[-2], keepdims=True)
            yield g / np.sqrt(row * column / row.mean(order[-2], keepdims=True))
        else:
            full = decay * full + (1 - decay) * squares
            yield g / np.sqrt(full)


@pytest.mark.parametrize(
    ("exponent", "eps", "least", "start"),
    [(0.8, 1e-30, 128, 0), (0.8, 1e-30, 2, 0), (0.5, 1e-3, 3, 0), (1.0, 1e-8, 4, 7), (0, 1, 2, -3)],
)
def test_factored_rms(exponent: float, eps: float, least: int, start: int) -> None:
    tx = gradtx.scale_by_factored_rms(True, exponent, start, least, eps)
    check(tx, lambda g, p: adafactor(g, exponent, eps, least, start))


def test_unfactored_rms() -> None:
    tx = gradtx.scale_by_factored_rms(False, min_dim_size_to_factor=2)
    check(tx, lambda g, p: adafactor(g, 0.8, 1e-30, 10**9))


def test_the_factored_state_is_of_rows_and_columns() -> None:
    tx = gradtx.scale_by_factored_rms(min_dim_size_to_factor=2)
    state = tx.init(gradtx.tree.zeros_like({k: jnp.zeros(s) for k, s in SHAPES.items()}))
    shapes = {k: tuple(x[k].shape for x in state[1:]) for k in SHAPES}
    assert shapes == {
        "scalar": ((1,), (1,), ()),
        "vector": ((1,), (1,), (5,)),
        "matrix": ((3,), (4,), (1,)),
        "tall": ((2,), (6,), (1,)),
        "kernel": ((2, 3, 3), (2, 3, 4), (1,)),
    }


def test_adafactor_is_its_parts() -> None:
    tx = gradtx.adafactor(
        0.1, 2, clipping_threshold=0.5, momentum=0.9, weight_decay_rate=0.01, dtype_momentum=float
    )

    def oracle(grads: Array, params: Array) -> Iterator[Array]:
        moment: Array | float = 0.0
        for u, p in zip(adafactor(grads, 0.8, 1e-30, 2), params, strict=True):
            clipped = u / max(1.0, rms(u) / 0.5)
            moment = 0.9 * moment + 0.1 * (0.1 * max(rms(p), 1e-3) * clipped)
            yield -(moment + 0.01 * p)

    check(tx, oracle)


def test_an_offset_beyond_the_first_step_is_no_nan() -> None:
    """Optax raises a negative time to a fractional power."""
    grads, params = {"w": jnp.ones((3,))}, {"w": jnp.ones((3,))}
    for lib in (gradtx, optax):
        tx = lib.scale_by_factored_rms(step_offset=3)
        updates, _ = tx.update(grads, tx.init(params), params)
        assert bool(jnp.all(jnp.isfinite(updates["w"]))) == (lib is gradtx)


@pytest.mark.parametrize("tx", [gradtx.adafactor(0.1), gradtx.came(0.1)], ids=["adafactor", "came"])
def test_squares_that_overflow_make_no_nan(tx: Any) -> None:
    """One element is enough for both means of its row and column, and for the mean of these."""
    params = {"w": jnp.ones((128, 130)), "b": jnp.ones(3)}
    grads = {"w": params["w"].at[1, 2].set(1e20), "b": jnp.full(3, 1e20)}
    state = tx.init(params)
    for gradient in (grads, params):
        params, state = gradtx.step(tx, gradient, state, params)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_adafactor_at_zero_and_its_derivative_are_finite(dtype: Any) -> None:
    """In float16 Optax's epsilon is 0."""
    params = {"w": jnp.ones((4, 4), dtype), "b": jnp.zeros((3,), dtype)}
    tx = gradtx.adafactor(0.1, 2)

    def total(grads: Any) -> Any:
        updates, _ = tx.update(grads, tx.init(params), params)
        return sum(jnp.sum(x.astype(jnp.float32)) for x in jax.tree.leaves(updates))

    value, slope = jax.value_and_grad(total)(gradtx.tree.zeros_like(params))
    assert value == 0
    if dtype != jnp.float16:  # the derivative itself is 1e15, beyond float16
        assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(slope))


# -- SM3: Anil et al. 2019, algorithm SM3-II -------------------------------------------------------


def sm3(grads: Array, b1: float, b2: float, eps: float) -> Iterator[Array]:
    shape = grads.shape[1:]
    axes = range(len(shape))
    covers = [np.zeros([n if a == axis else 1 for a, n in enumerate(shape)]) for axis in axes]
    covers = covers or [np.zeros(())]
    momentum: Array | float = 0.0
    for g in grads:
        bound = covers[0] + np.zeros(shape)
        for cover in covers[1:]:
            bound = np.minimum(bound, cover)
        v = b2 * bound + (1.0 if b2 == 1 else 1 - b2) * g**2
        covers = [v.max(tuple(a for a in axes if a != axis), keepdims=True) for axis in axes] or [v]
        step = np.where(v > 0, g / np.sqrt(np.where(v > 0, v, 1) + eps), 0)
        momentum = b1 * momentum + (1 - b1) * step
        yield momentum


@pytest.mark.parametrize(
    ("b1", "b2", "eps"), [(0.9, 1.0, 1e-8), (0.0, 1.0, 0.0), (0.5, 0.9, 1e-3), (0.99, 0.0, 1e-8)]
)
def test_sm3(b1: float, b2: float, eps: float) -> None:
    check(gradtx.scale_by_sm3(b1, b2, eps), lambda g, p: sm3(g, b1, b2, eps))


@pytest.mark.parametrize("b2", [1.0, 0.9, 0.0, 1])
@pytest.mark.parametrize("kind", ["a Python number", "an array", "a schedule"])
def test_sm3_weighs_a_gradient_alike_however_b2_is_given(b2: float, kind: str) -> None:
    """A number that is known when the rule is traced takes another way to the same weight."""
    ways = {"a Python number": b2, "an array": jnp.asarray(b2, np.float64)}
    given = ways.get(kind, gradtx.constant_schedule(jnp.asarray(b2, np.float64)))
    tx = gradtx.scale_by_sm3(0.9, given, 1e-8)
    state = tx.init({name: GRADS[name][0] for name in SHAPES})
    update = tx.update  # not compiled: a number stays the kind that it is
    oracles = {name: sm3(GRADS[name], 0.9, b2, 1e-8) for name in SHAPES}
    for t in range(6):
        updates, state = update({name: jnp.asarray(GRADS[name][t]) for name in SHAPES}, state)
        for name in SHAPES:
            assert_close(updates[name], next(oracles[name]), 1e-12, what=name)


@pytest.mark.parametrize("arguments", [(), (0.5, 0.9, 1e-3), (0.0, 1.0, 0.1)])
def test_sm3_is_optax_s_where_that_runs(arguments: Any) -> None:
    """Optax has no accumulator for a scalar, and raises IndexError."""
    names = [name for name in SHAPES if name != "scalar"]
    grads, params = ({k: tree[k] for k in names} for tree in (GRADS, PARAMS))
    ours, theirs = (lib.scale_by_sm3(*arguments) for lib in (gradtx, optax))
    state, expected = theirs.init({k: p[0] for k, p in params.items()}), []
    for t in range(STEPS):
        updates, state = theirs.update({k: jnp.asarray(g[t]) for k, g in grads.items()}, state)
        expected.append(updates)
    got = replay(ours, grads, params)
    for name in names:
        assert_close(got[name], np.stack([u[name] for u in expected]), what=name)
    first = {k: p[0] for k, p in params.items()}
    assert paths(ours.init(first)) == paths(theirs.init(first))


def paths(state: Any) -> list[Any]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return [(jax.tree_util.keystr(path), x.shape, x.dtype) for path, x in leaves]


# -- trust ratios: You et al. 2017, 2019; Bernstein et al. 2020 ------------------------------------


def trust_ratio(grads: Array, params: Array, least: float, factor: float, eps: float) -> Any:
    for g, p in zip(grads, params, strict=True):
        above, below = max(norm(p), least), max(norm(g), least)
        yield g * (factor * above / (below + eps) if above and below else 1.0)


@pytest.mark.parametrize("arguments", [(0.0, 1.0, 0.0), (0.5, 2.0, 0.0), (0.0, 0.001, 0.1)])
def test_trust_ratio(arguments: Any) -> None:
    check(gradtx.scale_by_trust_ratio(*arguments), lambda g, p: trust_ratio(g, p, *arguments))


@pytest.mark.parametrize("least", [0.0, 1e-3, 2.0])
def test_scaling_by_the_size_of_a_parameter(least: float) -> None:
    def by(size: Any) -> Any:
        return lambda g, p: (g * max(size(p), least) for g, p in zip(g, p, strict=True))

    check(gradtx.scale_by_param_block_norm(least), by(norm))
    check(gradtx.scale_by_param_block_rms(least), by(rms))


def test_fromage_keeps_the_norm_of_a_parameter() -> None:
    """A step at a right angle to the parameter turns it and leaves it as long as it was."""
    params, grads = {"w": jnp.asarray([3.0, 0.0])}, {"w": jnp.asarray([0.0, 7.0])}
    tx = gradtx.fromage(0.3)
    for _ in range(3):
        updates, _ = tx.update(grads, tx.init(params), params)
        params = gradtx.apply_updates(params, updates)
        assert_close(jnp.linalg.norm(params["w"]), 3.0, what="norm")
        x, y = params["w"]
        grads = {"w": jnp.asarray([-y, x])}


# -- clipping by parts -----------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.0, 0.5, 100.0])
def test_clipping_by_block_rms(threshold: float) -> None:
    def oracle(grads: Array, params: Array) -> Iterator[Array]:
        for g in grads:
            yield g * (min(1.0, threshold / rms(g)) if rms(g) else 1.0)

    check(gradtx.clip_by_block_rms(threshold), oracle)


def unit_norms(x: Array) -> Array:
    """Brock et al. 2021, section 4.1, as their code groups the axes."""
    axes: Any = (0,) if x.ndim == 2 else tuple(range(x.ndim - 1))
    return np.sqrt(np.sum(x**2, axis=None if x.ndim < 2 else axes, keepdims=True)) + 0 * x


@pytest.mark.parametrize(("clipping", "eps"), [(0.1, 1e-3), (1e-4, 1e-3), (1.0, 2.0)])
def test_adaptive_clipping(clipping: float, eps: float) -> None:
    """At clipping * eps = 1e-7 Optax divides by 1e-6 and not by the norm."""

    def oracle(grads: Array, params: Array) -> Iterator[Array]:
        for g, p in zip(grads, params, strict=True):
            limit, size = clipping * np.maximum(unit_norms(p), eps), unit_norms(g)
            yield np.where(size > limit, g * limit / np.where(size > limit, size, 1), g)

    check(gradtx.adaptive_grad_clip(clipping, eps), oracle)


def test_units_of_other_arrays_are_said() -> None:
    params = {"deep": jnp.ones((2,) * 6)}
    with pytest.raises(ValueError, match=r"adaptive_grad_clip: at deep: .*6 axes.*axis="):
        gradtx.adaptive_grad_clip(0.1).update(params, gradtx.EmptyState(), params)
    tx = gradtx.adaptive_grad_clip(0.1, axis=(0, -1))
    updates, _ = tx.update(params, tx.init(params), params)
    assert_close(updates["deep"], np.full((2,) * 6, 0.1), 1e-6)
    assert_close(gradtx.unitwise_norm(jnp.ones((2,) * 6), axis=(0, -1)), np.full((2,) * 6, 2.0))


@pytest.mark.parametrize(
    "shape", [(), (4,), (1, 4), (3, 4), (2, 3, 4), (2, 2, 3, 4), (2, 1, 2, 3, 4)], ids=str
)
def test_unitwise_functions_are_optax_s(shape: tuple[int, ...]) -> None:
    x, limit = jnp.asarray(np.random.default_rng(3).standard_normal((2, *shape)))
    for axis in (None, 0, (0,)) if shape else (None,):
        got = gradtx.unitwise_norm(x, axis)
        assert_close(got, optax.transforms.unitwise_norm(x, axis))
    size, limit = gradtx.unitwise_norm(x), jnp.abs(limit)
    got = gradtx.unitwise_clip(size, limit, x)
    assert_close(got, optax.transforms.unitwise_clip(size, limit, x))


def test_unitwise_functions_are_given_one_shape_and_do_not_overflow() -> None:
    with pytest.raises(ValueError, match=r"unitwise_clip: .* the same shape"):
        gradtx.unitwise_clip(jnp.ones(()), jnp.ones((2,)), jnp.ones((2,)))
    narrow = gradtx.unitwise_norm(jnp.full((1000,), 300, jnp.float16))
    assert_close(narrow, np.full(1000, 300 * np.sqrt(1000)), 1e-6)


# -- clipping example by example: Abadi et al. 2016, McMahan et al. 2017 ---------------------------


def per_example() -> dict[str, Array]:
    rng = np.random.default_rng(4)
    grads = {"w": rng.standard_normal((6, 3, 2)), "b": rng.standard_normal((6, 2))}
    grads["w"][2], grads["b"][2] = 0, 0
    return grads


@pytest.mark.parametrize("limit", [0.0, 0.5, 2.5, np.inf])
def test_clipping_each_example(limit: float) -> None:
    grads = per_example()
    sums, count = gradtx.per_example_global_norm_clip(grads, limit)
    sizes = [norm(np.concatenate([g[i].ravel() for g in grads.values()])) for i in range(6)]
    factors = np.asarray([min(1.0, limit / size) if size else 1.0 for size in sizes])
    for name, g in grads.items():
        assert_close(sums[name], np.tensordot(factors, g, 1), what=name)
    assert count == np.sum(factors < 1)
    theirs, their_count = optax.per_example_global_norm_clip(grads, limit)
    assert_close(sums["w"], theirs["w"])
    assert count == their_count
    assert count.dtype == their_count.dtype


@pytest.mark.parametrize("uniform", [True, False])
def test_clipping_each_example_array_by_array(uniform: bool) -> None:
    grads, limit = per_example(), 1.5
    sums, counts = gradtx.per_example_layer_norm_clip(grads, limit, uniform)
    for name, g in grads.items():
        bound = limit * np.sqrt(1 / 2 if uniform else g[0].size / 8)
        factors = np.asarray([min(1.0, bound / norm(x)) if norm(x) else 1.0 for x in g])
        assert_close(sums[name], np.tensordot(factors, g, 1), what=name)
        assert counts[name] == np.sum(factors < 1)
    theirs, _ = optax.per_example_layer_norm_clip(jax.tree.map(jnp.asarray, grads), limit, uniform)
    assert_close(sums["w"], theirs["w"])


def test_examples_are_the_first_axis() -> None:
    for function in (gradtx.per_example_global_norm_clip, gradtx.per_example_layer_norm_clip):
        for wrong in ({"w": jnp.ones((2, 3)), "b": jnp.ones((3,))}, {"s": jnp.ones(())}, {}):
            with pytest.raises(ValueError, match=f"{function.__name__}: the first axis"):
                function(wrong, 1.0)


def test_each_example_in_narrow_dtypes() -> None:
    """1000 float16 elements of 300 overflow when they are squared in float16."""
    grads = {"w": jnp.full((4, 1000), 300, jnp.float16)}
    sums, count = gradtx.per_example_global_norm_clip(grads, 1.0)
    assert sums["w"].dtype == jnp.float16
    assert_close(sums["w"].astype(np.float64), np.full(1000, 4 / np.sqrt(1000)), 1e-3)
    assert count == 4
    slope = jax.grad(lambda g: jnp.sum(gradtx.per_example_global_norm_clip(g, 1.0)[0]))
    assert bool(jnp.all(jnp.isfinite(slope(jnp.zeros((4, 3))))))


# -- normalising -----------------------------------------------------------------------------------


def test_normalizing_a_tree() -> None:
    got, by_norm = (
        replay(tx, GRADS, PARAMS)
        for tx in (gradtx.normalize(), gradtx.normalize_by_update_norm(-2.0, 0.1))
    )
    for t in range(STEPS):
        size = norm(np.concatenate([g[t].ravel() for g in GRADS.values()]))
        for name, g in GRADS.items():
            assert_close(got[name][t], g[t] / size if size else g[t])
            assert_close(by_norm[name][t], -2.0 * g[t] / (size + 0.1))


def test_zero_is_normalized_to_zero() -> None:
    """Optax makes NaN of it."""
    zero = {"w": jnp.zeros((3,))}
    for tx in (gradtx.normalize(), gradtx.normalize_by_update_norm(eps=0.0)):
        updates, _ = tx.update(zero, tx.init(zero))
        assert_close(updates["w"], np.zeros(3))
        slope = jax.grad(lambda g, tx=tx: jnp.sum(tx.update(g, tx.init(g))[0]["w"]))(zero)
        assert bool(jnp.all(jnp.isfinite(slope["w"])))


def test_centralizing_takes_the_mean_of_each_row() -> None:
    def oracle(grads: Array, params: Array) -> Iterator[Array]:
        for g in grads:
            rows = g.reshape(len(g), -1) if g.ndim > 1 else g
            yield (rows - rows.mean(1, keepdims=True)).reshape(g.shape) if g.ndim > 1 else g

    check(gradtx.centralize(), oracle)


def test_nans_become_zeros_and_are_told() -> None:
    grads = {"w": jnp.asarray([1.0, np.nan]), "b": jnp.asarray([2.0, np.inf])}
    tx = gradtx.zero_nans()
    updates, state = tx.update(grads, tx.init(grads))
    np.testing.assert_array_equal(updates["w"], [1.0, 0.0])
    np.testing.assert_array_equal(updates["b"], [2.0, np.inf])
    assert (bool(state.found_nan["w"]), bool(state.found_nan["b"])) == (True, False)
    _, state = tx.update({**grads, "w": jnp.ones(2)}, state)
    assert not bool(state.found_nan["w"])


@pytest.mark.parametrize("dtype", [np.float64, jnp.bfloat16, jnp.float16])
def test_params_stay_nonnegative(dtype: Any) -> None:
    rng = np.random.default_rng(5)
    params = {"w": jnp.asarray(rng.uniform(0, 2, 500), dtype)}
    tx = gradtx.keep_params_nonnegative()
    for _ in range(3):
        grads = {"w": jnp.asarray(rng.standard_normal(500), np.float32).astype(dtype)}
        updates, _ = tx.update(grads, tx.init(params), params)
        moved = gradtx.apply_updates(params, updates)
        assert bool(jnp.all(moved["w"] >= 0))
        kept = params["w"] + grads["w"] >= 0
        np.testing.assert_array_equal(updates["w"][kept], grads["w"][kept])
        params = moved


@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_updates_come_every_k_steps(k: int) -> None:
    def oracle(grads: Array, params: Array) -> Iterator[Array]:
        for t in range(STEPS):
            last = t % k == k - 1
            yield grads[t - k + 1 : t + 1].sum(0) if last else np.zeros_like(grads[t])

    check(gradtx.apply_every(k), oracle)


def test_a_nan_is_gone_in_the_next_cycle() -> None:
    """Optax multiplies it by zero, which keeps it for ever."""
    tx, grads = gradtx.apply_every(2), [np.nan, 1.0, 2.0, 3.0]
    state, made = tx.init({"w": jnp.zeros(())}), []
    for g in grads:
        updates, state = tx.update({"w": jnp.asarray(g)}, state)
        made.append(float(updates["w"]))
    np.testing.assert_array_equal(made, [0.0, np.nan, 0.0, 5.0])
