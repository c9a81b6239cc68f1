"""Accumulation over micro-batches: when the inner optimizer runs, and what that costs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

RNG = np.random.default_rng(0)
PARAMS = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}


def batches(n: int) -> list[Any]:
    return [
        {"w": jnp.asarray(RNG.normal(size=(3, 2)), np.float32), "b": jnp.ones(2) * i}
        for i in range(n)
    ]


def run(tx: Any, grads: list[Any]) -> tuple[list[Any], Any]:
    params, state, seen = PARAMS, tx.init(PARAMS), []
    step = jax.jit(tx.update)
    for g in grads:
        updates, state = step(g, state, params)
        params = gradtx.apply_updates(params, updates)
        seen.append(updates)
    return seen, state


def mean(grads: list[Any]) -> Any:
    return jax.tree.map(lambda *x: np.mean(np.asarray(x, np.float64), axis=0), *grads)


def test_the_update_is_that_of_the_mean_and_zero_in_between() -> None:
    grads = batches(6)
    seen, state = run(gradtx.accumulate(gradtx.scale(-0.5), every=3), grads)
    for i in (0, 1, 3, 4):
        assert all(np.all(x == 0) for x in jax.tree.leaves(seen[i]))
    for i in (2, 5):
        expected = jax.tree.map(lambda x: -0.5 * x, mean(grads[i - 2 : i + 1]))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-6), seen[i], expected)
    assert int(state.gradient_step) == 2
    assert int(state.mini_step) == 0


def test_a_micro_batch_with_nan_is_left_out_and_counted() -> None:
    grads = batches(4)
    grads[1] = {"w": grads[1]["w"].at[0, 0].set(jnp.nan), "b": grads[1]["b"]}
    seen, state = run(gradtx.accumulate(gradtx.scale(1.0), every=4), grads)
    expected = mean([grads[0], grads[2], grads[3]])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-6), seen[3], expected)
    assert int(state.skipped) == 1


def test_a_cycle_without_an_accepted_micro_batch_changes_nothing() -> None:
    nan = jax.tree.map(lambda x: x * jnp.nan, PARAMS)
    seen, state = run(gradtx.accumulate(gradtx.adam(1e-3), every=2), [nan, nan])
    assert all(np.all(x == 0) for x in jax.tree.leaves(seen))
    assert int(state.inner_opt_state[0].count) == 0
    assert int(state.skipped) == 2


def test_the_inner_optimizer_runs_only_when_it_is_due() -> None:
    calls = []

    @gradtx.per_leaf
    def counting() -> Any:
        """u = g, and it says so."""

        def update(grad: Any) -> Any:
            jax.debug.callback(lambda: calls.append(1))
            return grad

        return update

    tx = gradtx.accumulate(counting(), every=4)
    state = tx.init(jnp.ones(3))
    step = jax.jit(tx.update)
    for _ in range(8):
        _, state = step(jnp.ones(3), state)
    jax.effects_barrier()
    assert len(calls) == 2


def test_the_length_of_a_cycle_may_be_a_schedule_of_inner_steps() -> None:
    every = gradtx.piecewise_constant_schedule(1, {1: 3})
    seen, state = run(gradtx.accumulate(gradtx.sgd(1.0), every), batches(4))
    assert [bool(np.any(x["b"] != 0)) for x in seen[1:]] == [False, False, True]
    assert int(state.gradient_step) == 2


def test_it_runs_inside_scan_and_under_vmap() -> None:
    grads = batches(8)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *grads)

    def train(tx: Any) -> Any:
        def body(state: Any, g: Any) -> Any:
            updates, state = tx.update(g, state, PARAMS)
            return state, updates

        return jax.lax.scan(body, tx.init(PARAMS), stacked)[1]

    one = train(gradtx.accumulate(gradtx.adamw(1e-2), 4))
    tx = gradtx.accumulate(gradtx.adamw(jnp.asarray([1e-2, 1e-3])), 4)
    axes = jax.tree.map(lambda x: 0 if np.ndim(x) else None, tx)
    both = jax.vmap(train, in_axes=(axes,))(tx)
    np.testing.assert_allclose(both["w"][0], one["w"], rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(both["w"][1], one["w"] / 10, rtol=1e-4, atol=1e-9)


def test_multi_steps_is_optaxs() -> None:
    grads = batches(9)
    for mean_of_them in (True, False):
        mine, _ = run(gradtx.MultiSteps(gradtx.adamw(1e-2), 3, mean_of_them), grads)
        theirs, _ = run(optax.MultiSteps(optax.adamw(1e-2), 3, mean_of_them), grads)
        for x, y in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(x["w"], y["w"], rtol=2e-5, atol=1e-9)


def test_no_micro_batches_are_refused() -> None:
    for bad in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match=r"accumulate: every must be a whole number >= 1"):
            gradtx.accumulate(gradtx.sgd(1.0), bad)


def test_the_mean_of_an_absent_gradient_stays() -> None:
    for dtype in (jnp.bfloat16, None):
        tx = gradtx.accumulate(gradtx.adam(0.1), 2, accumulator_dtype=dtype)
        _, state = tx.update(jax.tree.map(jnp.ones_like, PARAMS), tx.init(PARAMS), PARAMS)
        for _ in range(2):
            updates, state = tx.update({"w": jnp.ones((3, 2)), "b": None}, state, PARAMS)
            assert updates["b"] is None
            np.testing.assert_array_equal(state.acc_grads["b"], np.ones(2))


def test_an_accumulator_in_a_narrower_dtype_does_not_round_the_update() -> None:
    third = gradtx.scale(1 / 3)
    grads = [jax.tree.map(jnp.ones_like, PARAMS)] * 4
    for dtype in (jnp.bfloat16, jnp.float16, None):
        seen, state = run(gradtx.accumulate(third, 2, accumulator_dtype=dtype), grads)
        assert state.acc_grads["w"].dtype == (dtype or np.float32)
        for i, expected in enumerate((0.0, np.float32(1) / 3, 0.0, np.float32(1) / 3)):
            np.testing.assert_array_equal(seen[i]["w"], np.full((3, 2), expected, np.float32))


def test_an_update_that_is_not_finite_does_not_reach_the_next_cycle() -> None:
    broken_once = gradtx.scale_by_schedule(lambda step: jnp.where(step == 0, jnp.inf, 1.0))
    grads = batches(4)
    seen, _ = run(gradtx.accumulate(broken_once, 2), grads)
    assert np.all(np.isinf(seen[1]["w"]))
    expected = mean(grads[2:])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-6), seen[3], expected)


def test_what_it_moves() -> None:
    """No temporary, no zeros; no buffer of the state is copied."""
    params = {f"w{i}": jnp.ones((64, 64)) for i in range(8)}
    size = 8 * 64 * 64
    figures = {}
    for library, tx in (
        (gradtx, gradtx.accumulate(gradtx.adamw(1e-3), 8)),
        (optax, optax.MultiSteps(optax.adamw(1e-3), 8)),
    ):

        def step(params: Any, state: Any, grads: Any, tx: Any = tx, library: Any = library) -> Any:
            updates, state = tx.update(grads, state, params)
            return library.apply_updates(params, updates), state

        lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, tx.init(params), params)
        program = lowered.compile()
        temporary = program.memory_analysis().temp_size_in_bytes / size
        figures[library] = (program.cost_analysis()["bytes accessed"] / size, temporary)
    assert figures[gradtx][0] < 69 < figures[optax][0]
    assert figures[gradtx][1] < 0.1 < figures[optax][1]


def test_a_mean_of_float64_gradients_is_not_rounded_on_its_way_on(x64: None) -> None:
    param = jnp.zeros(1)
    tx = gradtx.MultiSteps(gradtx.sgd(1.0), 2)
    state = tx.init(param)
    for gradient in (1.0, 1e-9):
        updates, state = tx.update(jnp.array([gradient]), state, param)
    np.testing.assert_allclose(updates, [-0.5 - 0.5e-9], rtol=1e-14)


# -- weights, and the end of the data --------------------------------------------------------------


def run_with(tx: Any, calls: list[tuple[Any, dict[str, Any]]]) -> tuple[list[Any], Any]:
    """The updates of calls (gradient, extra arguments), compiled once."""
    step = jax.jit(lambda g, state, extra: tx.update(g, state, PARAMS, **extra))
    state, seen = tx.init(PARAMS), []
    for g, extra in calls:
        updates, state = step(g, state, {name: jnp.asarray(x) for name, x in extra.items()})
        seen.append(updates)
    assert step._cache_size() == 1
    return seen, state


def close(got: Any, expected: Any, rtol: float = 2e-6) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-7), got, expected)


def of_tokens(rng: Any, tokens: int) -> Any:
    """The gradient of a token, for each."""
    return {"w": rng.normal(size=(tokens, 3, 2)), "b": rng.normal(size=(tokens, 2))}


@pytest.mark.parametrize("sums", [False, True])
def test_with_weights_it_is_the_mean_of_one_large_batch(sums: bool) -> None:
    rng, numbers = np.random.default_rng(1), [3, 50, 1, 7, 900, 2]
    batches = [of_tokens(rng, n) for n in numbers]
    tx = gradtx.accumulate(gradtx.scale(1.0), every=3, sums=sums)
    reduce = np.sum if sums else np.mean
    calls = [
        (jax.tree.map(lambda x: reduce(x, 0).astype(np.float32), batch), {"weight": n})
        for batch, n in zip(batches, numbers, strict=True)
    ]
    seen, _ = run_with(tx, calls)
    for last in (2, 5):
        whole = jax.tree.map(lambda *x: np.concatenate(x), *batches[last - 2 : last + 1])
        close(seen[last], jax.tree.map(lambda x: np.mean(x, 0), whole))


def test_a_micro_batch_of_weight_0_adds_nothing_whatever_it_holds() -> None:
    nan = jax.tree.map(lambda x: x * jnp.nan, PARAMS)
    for sums, drop in ((False, True), (True, True), (False, False)):
        first, second = batches(2)
        tx = gradtx.accumulate(gradtx.scale(1.0), every=3, sums=sums, drop_nonfinite=drop)
        seen, state = run_with(
            tx, [(nan, {"weight": 0}), (first, {"weight": 0}), (second, {"weight": 2})]
        )
        close(seen[2], jax.tree.map(lambda x: x / 2, second) if sums else second)
        assert int(state.skipped) == 0
        seen, state = run_with(tx, [(nan, {"weight": 0})] * 3)
        assert all(np.all(x == 0) for x in jax.tree.leaves(seen))
        assert int(state.gradient_step) == 0


def test_a_weight_that_is_not_finite_is_skipped_like_a_gradient() -> None:
    first, second = batches(2)
    tx = gradtx.accumulate(gradtx.scale(1.0), every=2)
    seen, state = run_with(tx, [(first, {"weight": np.nan}), (second, {"weight": 2.0})])
    close(seen[1], second)
    assert int(state.skipped) == 1


def test_the_weight_of_a_cycle_goes_on_to_accumulation_inside() -> None:
    rng, numbers = np.random.default_rng(2), [3, 50, 1, 7]
    tokens = [of_tokens(rng, n) for n in numbers]
    tx = gradtx.accumulate(gradtx.accumulate(gradtx.scale(1.0), 2), 2)
    means = [jax.tree.map(lambda x: np.mean(x, 0).astype(np.float32), t) for t in tokens]
    calls = [(g, {"weight": n}) for g, n in zip(means, numbers, strict=True)]
    seen, _ = run_with(tx, calls)
    whole = jax.tree.map(lambda *x: np.concatenate(x), *tokens)
    close(seen[3], jax.tree.map(lambda x: np.mean(x, 0), whole))


@pytest.mark.parametrize("make", [gradtx.accumulate, gradtx.multi_steps])
def test_a_flush_takes_a_step_with_what_there_is(make: Any) -> None:
    grads = batches(6)
    flushes = [False, True, False, False, False, True]
    calls = [(g, {"flush": f}) for g, f in zip(grads, flushes, strict=True)]
    seen, state = run_with(make(gradtx.scale(1.0), 3), calls)
    close(seen[1], mean(grads[:2]))
    close(seen[4], mean(grads[2:5]))
    close(seen[5], grads[5])
    assert all(np.all(x == 0) for i in (0, 2, 3) for x in jax.tree.leaves(seen[i]))
    assert int(state.gradient_step) == 3
    assert int(state.mini_step) == 0


def test_a_flush_without_a_gradient_steps_with_what_there_is_or_changes_nothing() -> None:
    (first,), zeros = batches(1), jax.tree.map(jnp.zeros_like, PARAMS)
    end = (zeros, {"weight": 0, "flush": True})
    tx = gradtx.accumulate(gradtx.adam(0.1), every=4)
    seen, state = run_with(tx, [(first, {"weight": 5, "flush": False}), end])
    alone = gradtx.adam(0.1)
    close(seen[1], alone.update(first, alone.init(PARAMS), PARAMS)[0])
    updates, after = tx.update(zeros, state, PARAMS, **end[1])
    assert all(np.all(x == 0) for x in jax.tree.leaves(updates))
    held, kept = ((x.inner_opt_state, x.gradient_step, x.mini_step) for x in (after, state))
    jax.tree.map(np.testing.assert_array_equal, held, kept)


def test_a_flushed_cycle_of_skipped_micro_batches_changes_nothing() -> None:
    nan = jax.tree.map(lambda x: x * jnp.nan, PARAMS)
    seen, state = run_with(
        gradtx.accumulate(gradtx.adam(0.1), 3), [(nan, {"flush": i == 1}) for i in range(2)]
    )
    assert all(np.all(x == 0) for x in jax.tree.leaves(seen))
    assert (int(state.mini_step), int(state.skipped), int(state.gradient_step)) == (0, 2, 0)


def test_a_multi_step_that_skips_the_flushed_micro_batch_still_takes_the_step() -> None:
    first, second = batches(2)
    second["w"] = second["w"] * jnp.nan
    tx = gradtx.multi_steps(gradtx.scale(1.0), 3, should_skip_update_fn=gradtx.skip_not_finite)
    seen, _ = run_with(tx, [(first, {"flush": False}), (second, {"flush": True})])
    close(seen[1], first)


def test_weights_and_flushes_by_step() -> None:
    first, second = batches(2)
    tx = gradtx.accumulate(gradtx.sgd(1.0), 4)
    params, state = gradtx.step(tx, first, tx.init(PARAMS), PARAMS, weight=1)
    params, state = gradtx.step(tx, second, state, params, weight=3, flush=True)
    close(params, jax.tree.map(lambda p, a, b: p - (a + 3 * b) / 4, PARAMS, first, second))


def test_wrong_weights_and_flushes_are_named() -> None:
    tx = gradtx.accumulate(gradtx.sgd(1.0), 4)
    state, (grads,) = tx.init(PARAMS), batches(1)
    with pytest.raises(ValueError, match="accumulate: weight must be >= 0, got -1"):
        tx.update(grads, state, PARAMS, weight=-1)
    with pytest.raises(TypeError, match=r"accumulate: weight must be a number, .*got 'many'"):
        tx.update(grads, state, PARAMS, weight="many")
    with pytest.raises(TypeError, match="accumulate: weight must be a number, or an array of no"):
        tx.update(grads, state, PARAMS, weight=jnp.ones(3))
    for make, name in ((gradtx.accumulate, "accumulate"), (gradtx.multi_steps, "multi_steps")):
        tx = make(gradtx.sgd(1.0), 4)
        with pytest.raises(TypeError, match=f"{name}: flush must be True or False"):
            tx.update(grads, tx.init(PARAMS), PARAMS, flush=1)
