"""Transformations around others, against loops in NumPy float64 that know nothing of them.

The transformation inside is momentum or Adam, written here once more as a class with a state that
a loop can keep or leave. 1e-12 over 50 steps.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import LookaheadParams

from .replay import STEPS, assert_close

Array = np.ndarray
SHAPES = {"s": (), "v": (5,), "w": (3, 4), "k": (2, 2, 3, 2)}


class Momentum:
    """v <- decay v + g, u = -rate v"""

    def __init__(self, rate: float, decay: float):
        self.rate, self.decay, self.velocity = rate, decay, 0.0

    def __call__(self, g: Array) -> Array:
        self.velocity = self.decay * self.velocity + g
        return -self.rate * np.asarray(self.velocity)


class Adam:
    """Kingma & Ba, Algorithm 1."""

    def __init__(self, rate: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8):
        self.rate, self.b1, self.b2, self.eps = rate, b1, b2, eps
        self.m, self.v, self.t = 0.0, 0.0, 0

    def __call__(self, g: Array) -> Array:
        self.t += 1
        self.m = self.b1 * self.m + (1 - self.b1) * g
        self.v = self.b2 * self.v + (1 - self.b2) * g**2
        m, v = self.m / (1 - self.b1**self.t), self.v / (1 - self.b2**self.t)
        return -self.rate * np.asarray(m / (np.sqrt(v) + self.eps))


INNER = {
    "momentum": (lambda: gradtx.sgd(0.1, 0.9), lambda: Momentum(0.1, 0.9)),
    "adam": (lambda: gradtx.adam(0.05), lambda: Adam(0.05)),
}
with_each = pytest.mark.parametrize("inner", INNER)


def gradients(seed: int = 0, scale: float = 1.0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {k: scale * rng.standard_normal((STEPS, *shape)) for k, shape in SHAPES.items()}


@jax.jit
def replay(tx: Any, grads: Any, params: Any) -> Any:
    """The updates and the state after every step; params stay where they are."""

    def step(state: Any, g: Any) -> Any:
        u, state = tx.update(g, state, params)
        return state, (u, state)

    return jax.lax.scan(step, tx.init(params), grads)[1]


def run(tx: Any, grads: dict[str, Array]) -> Any:
    params = {k: np.zeros(x.shape[1:]) for k, x in grads.items()}
    return replay(tx, grads, params)


def bad_at(grads: dict[str, Array], steps: dict[int, float]) -> dict[str, Array]:
    """The gradients, with one element of one leaf that is not finite at some steps."""
    spoilt = {k: x.copy() for k, x in grads.items()}
    for t, value in steps.items():
        spoilt["w"][t, 1, 2] = value
    return spoilt


def is_bad(grads: dict[str, Array], t: int) -> bool:
    return not all(np.all(np.isfinite(x[t])) for x in grads.values())


BAD = {3: np.nan, 10: np.inf, 11: np.nan, 12: -np.inf, 13: np.nan, 30: np.nan}


def each_leaf(
    make: Callable[[], Any], grads: dict[str, Array], go: Callable[[int], bool]
) -> dict[str, Array]:
    """The updates where the optimizer only runs at some steps, zero at the others."""
    out = {}
    for k, x in grads.items():
        opt = make()
        out[k] = np.stack([opt(g) if go(t) else np.zeros_like(g) for t, g in enumerate(x)])
    return out


def check(got: Any, expected: dict[str, Array]) -> None:
    for k, x in expected.items():
        assert_close(got[k], x, what=k)


# -- groups --------------------------------------------------------------------------------------


@pytest.mark.parametrize("labelled", ["patterns", "tree", "function"])
def test_each_group_has_its_optimizer(labelled: str) -> None:
    of = {"s": "a", "v": "a", "w": "b", "k": "c"}
    tx = {"a": gradtx.sgd(0.1, 0.9), "b": gradtx.adam(0.05), "c": gradtx.freeze()}
    if labelled == "patterns":
        partition = gradtx.partition({"^[sv]$": tx["a"], "w": tx["b"], ".*": tx["c"]})
    else:
        labels = of if labelled != "function" else (lambda p: {k: of[k] for k in p})
        partition = gradtx.partition(tx, labels)
    oracles = {"a": lambda: Momentum(0.1, 0.9), "b": lambda: Adam(0.05), "c": lambda: np.zeros_like}
    grads = gradients()
    updates, _ = run(partition, grads)
    for k, label in of.items():
        check(updates, each_leaf(oracles[label], {k: grads[k]}, lambda t: True))


# -- some steps only -----------------------------------------------------------------------------


@with_each
def test_conditionally_mask_and_transform(inner: str) -> None:
    ours, oracle = INNER[inner]
    grads, go = gradients(), lambda t: t % 3 != 1
    expected = each_leaf(oracle, grads, go)
    check(run(gradtx.conditionally_mask(ours(), _not_second), grads)[0], expected)
    passed = {
        k: np.stack([x if go(t) else grads[k][t] for t, x in enumerate(expected[k])]) for k in grads
    }
    updates, state = run(gradtx.conditionally_transform(ours(), _not_second), grads)
    check(updates, passed)
    assert np.array_equal(state.step, np.arange(1, STEPS + 1))


def _not_second(step: Any) -> Any:
    return step % 3 != 1


@with_each
@pytest.mark.parametrize("patience", [0, 2, 10])
def test_apply_if_finite(inner: str, patience: int) -> None:
    """Up to where it gives up; there the NaN is in the state, and compared as NaN."""
    ours, oracle = INNER[inner]
    grads = bad_at(gradients(), BAD)
    in_a_row, counts, expected = 0, [], {k: [] for k in grads}
    opts = {k: oracle() for k in grads}
    for t in range(STEPS):
        in_a_row = in_a_row + 1 if is_bad(grads, t) else 0
        counts.append(in_a_row)
        go = not is_bad(grads, t) or in_a_row > patience
        for k, x in grads.items():
            with np.errstate(invalid="ignore"):
                expected[k].append(opts[k](x[t]) if go else np.zeros_like(x[t]))
    updates, state = run(gradtx.apply_if_finite(ours(), patience), grads)
    for k, x in expected.items():
        want = np.stack(x)
        assert np.array_equal(np.isfinite(updates[k]), np.isfinite(want)), k
        assert_close(
            np.where(np.isfinite(want), updates[k], 0), np.where(np.isfinite(want), want, 0)
        )
    assert np.array_equal(state.notfinite_count, counts)
    assert np.array_equal(state.last_finite, np.asarray(counts) == 0)
    assert np.array_equal(state.total_notfinite, np.cumsum(np.asarray(counts) > 0))


@with_each
@pytest.mark.parametrize("check_result", [True, False])
def test_finite_guard(inner: str, check_result: bool) -> None:
    ours, oracle = INNER[inner]
    grads = bad_at(gradients(), BAD)
    bad = np.asarray([is_bad(grads, t) for t in range(STEPS)])
    updates, state = run(gradtx.finite_guard(ours(), check_result=check_result), grads)
    check(updates, each_leaf(oracle, grads, lambda t: not bad[t]))
    assert np.array_equal(state.skipped, np.cumsum(bad))
    assert state.in_a_row[13] == 4
    assert state.in_a_row[14] == 0


# -- loss scaling --------------------------------------------------------------------------------


def test_dynamic_loss_scale() -> None:
    interval, growth, backoff, low, high = 4, 2.0, 0.25, 2.0, 64.0
    clean, scale, count, skipped = gradients(), 8.0, 0, 0
    spoilt = bad_at(clean, BAD)
    opts = {k: Adam(0.05) for k in clean}
    expected: dict[str, list[Array]] = {k: [] for k in clean}
    scaled, scales = {k: np.empty_like(x) for k, x in clean.items()}, []
    for t in range(STEPS):
        for k in clean:
            scaled[k][t] = spoilt[k][t] * scale
            zero = np.zeros_like(clean[k][t])
            expected[k].append(zero if is_bad(spoilt, t) else opts[k](clean[k][t]))
        if is_bad(spoilt, t):
            scale, count, skipped = max(scale * backoff, low), 0, skipped + 1
        else:
            count += 1
            if count == interval:
                scale, count = min(scale * growth, high), 0
        scales.append(scale)
    tx = gradtx.dynamic_loss_scale(
        gradtx.adam(0.05), 8.0, interval, growth, backoff, min_scale=low, max_scale=high
    )
    updates, state = run(tx, scaled)
    check(updates, {k: np.stack(x) for k, x in expected.items()})
    assert np.array_equal(state.scale, scales)
    assert state.skipped[-1] == skipped
    assert {low, high} <= set(scales)


# -- lookahead -----------------------------------------------------------------------------------


@with_each
@pytest.mark.parametrize(
    ("period", "rate", "reset"), [(1, 0.5, False), (5, 0.8, True), (7, 1, False)]
)
def test_lookahead(inner: str, period: int, rate: float, reset: bool) -> None:
    """As in the paper: an outer loop over slow steps, an inner one over fast steps."""
    ours, oracle = INNER[inner]
    grads = gradients()
    tx = gradtx.lookahead(ours(), period, rate, reset)
    start = {k: np.full(x.shape[1:], 0.5) for k, x in grads.items()}

    def step(carry: Any, g: Any) -> Any:
        params, state = carry
        u, state = tx.update(g, state, params)
        params = gradtx.apply_updates(params, u)
        return (params, state), params

    first = LookaheadParams.init_synced(jax.tree.map(jnp.asarray, start))
    path = jax.lax.scan(step, (first, tx.init(first)), grads)[1]
    for k, x in grads.items():
        opt, fast, slow = oracle(), start[k], start[k]
        for t, g in enumerate(x):
            fast = fast + opt(g)
            if (t + 1) % period == 0:
                slow = slow + rate * (fast - slow)
                fast = slow
                opt = oracle() if reset else opt
            assert_close(path.fast[k][t], fast, what=f"fast {k} {t}")
            assert_close(path.slow[k][t], slow, what=f"slow {k} {t}")


# -- cautious ------------------------------------------------------------------------------------


@with_each
@pytest.mark.parametrize("normalizer", ["clamped", "added", "none"])
@pytest.mark.parametrize("floor", [1e-3, 0.9])
def test_cautious(inner: str, normalizer: str, floor: float) -> None:
    ours, oracle = INNER[inner]
    grads = gradients()
    updates, _ = run(gradtx.cautious(ours(), floor, normalizer=normalizer), grads)
    for k, x in grads.items():
        opt = oracle()
        for t, g in enumerate(x):
            u = opt(g)
            mask = (-u * g > 0).astype(float)
            divisor = {
                "clamped": max(mask.mean(), floor),
                "added": mask.mean() + floor,
                "none": 1.0,
            }[normalizer]
            assert_close(updates[k][t], u * mask / divisor, what=f"{k} {t}")


def test_cautious_of_a_direction_that_points_uphill() -> None:
    grads = gradients()
    uphill = gradtx.chain(
        gradtx.cautious(gradtx.scale_by_adam(), descends=False), gradtx.scale(-0.05)
    )
    downhill = gradtx.cautious(gradtx.adam(0.05))
    check(run(uphill, grads)[0], run(downhill, grads)[0])


# -- layers --------------------------------------------------------------------------------------


def test_layerwise_rates() -> None:
    rng = np.random.default_rng(0)
    shapes = {"embed": (4,), "blocks": [(2, 2), (3,), (1,)], "norm": (2,), "head": (5,)}
    params = jax.tree.map(
        lambda s: rng.standard_normal(s), shapes, is_leaf=lambda x: isinstance(x, tuple)
    )
    layer = {"embed": 0, "blocks": [1, 2, 3], "norm": 4, "head": 4}
    by = {
        "patterns": ["embed", r"blocks/(\d+)", "norm|head"],
        "tree": layer,
        "function": lambda path: 1 + int(path[-1]) if path[-1].isdigit() else 4 * (path != "embed"),
    }
    for kind, given in by.items():
        tx = gradtx.layerwise_lr_decay(0.75, given)
        updates, _ = tx.update(params, tx.init(params), params)
        for got, x, place in zip(*map(jax.tree.leaves, (updates, params, layer)), strict=True):
            assert_close(got, x * 0.75 ** (4 - place), what=f"{kind} {place}")
    table = gradtx.layerwise_lr_decay(0.75, by["patterns"]).layers(params)
    assert table["blocks/1"] == (2, 0.75**2)
    assert "blocks/1  layer   2  x 0.5625" in str(table)


# -- measurements and injected numbers -----------------------------------------------------------


def test_measurements() -> None:
    grads = gradients()
    norms = np.sqrt(sum((x.reshape(STEPS, -1) ** 2).sum(1) for x in grads.values()))
    tx = gradtx.chain(
        gradtx.scale(2.0),
        gradtx.snapshot("norm", gradtx.global_norm),
        gradtx.monitor(
            {
                "mean": gradtx.measure_with_ema(gradtx.global_norm, 0.9),
                "raw": gradtx.measure_with_ema(_is_large, 0.5, debias=False),
                "now": gradtx.global_norm,
            }
        ),
        gradtx.scale(0.5),
    )
    updates, state = run(tx, grads)
    check(updates, grads)
    assert_close(state[1].measurement["norm"], 2 * norms)
    assert_close(state[2].measurements["now"], 2 * norms)
    mean = raw = 0.0
    for t, norm in enumerate(2 * norms, start=1):
        mean, raw = 0.9 * mean + 0.1 * norm, 0.5 * raw + 0.5 * (norm > 13)
        assert_close(state[2].measurements["mean"][t - 1], mean / (1 - 0.9**t))
        assert_close(state[2].measurements["raw"][t - 1], raw)


def _is_large(updates: Any) -> Any:
    return gradtx.global_norm(updates) > 13


def test_injected_numbers_are_those_of_the_step() -> None:
    grads = gradients()
    schedule = gradtx.polynomial_schedule(0.1, 0.01, 2, 30)
    tx = gradtx.inject_hyperparams(gradtx.adam)(schedule, b1=0.8)
    updates, state = run(tx, grads)
    rates = [0.01 + 0.09 * (1 - min(t, 30) / 30) ** 2 for t in range(STEPS)]
    assert_close(state.hyperparams["learning_rate"], np.asarray(rates))
    for k, x in grads.items():
        opt = Adam(1.0, b1=0.8)
        expected = np.stack([rate * opt(g) for rate, g in zip(rates, x, strict=True)])
        assert_close(updates[k], expected, rtol=1e-11, what=k)  # b1 is an array: 1 - b1 rounds


# -- micro-batches -------------------------------------------------------------------------------


def test_multi_steps_leaves_out_what_the_functions_say() -> None:
    rng = np.random.default_rng(0)
    grads = [{"w": rng.standard_normal(3)} for _ in range(12)]
    grads[2]["w"][1], grads[7]["w"][0] = np.nan, np.inf
    limit = 4.0
    too_large = partial(gradtx.skip_large_updates, max_squared_norm=limit)
    for skip, keeps in (
        (gradtx.skip_not_finite, lambda g: bool(np.all(np.isfinite(g)))),
        (too_large, lambda g: bool(np.sum(g**2) < limit)),
    ):
        tx = gradtx.MultiSteps(gradtx.sgd(0.1, 0.9), 2, should_skip_update_fn=skip)
        step, state = jax.jit(tx.update), tx.init(grads[0])
        oracle, kept = Momentum(0.1, 0.9), []
        for g in grads:
            updates, state = step(g, state)
            kept += [g["w"]] if keeps(g["w"]) else []
            expected = np.zeros(3)
            if keeps(g["w"]) and len(kept) == 2:
                expected, kept = oracle(np.mean(kept, axis=0)), []
            # MultiSteps keeps its mean in float32, as Optax's does.
            assert_close(updates["w"], expected, rtol=1e-5)
            assert bool(state.skip_state["should_skip"]) is not keeps(g["w"])


def test_the_numbers_that_the_functions_report() -> None:
    updates = {"a": jnp.asarray([1.0, np.nan, 2.0]), "b": jnp.asarray([np.inf])}
    skip, report = gradtx.skip_not_finite(updates, 0, None)
    assert bool(skip)
    assert int(report["num_not_finite"]) == 2
    skip, report = gradtx.skip_large_updates({"a": jnp.asarray([3.0, 4.0])}, 0, None, 25.0)
    assert bool(skip)
    assert float(report["norm_squared"]) == pytest.approx(25, rel=1e-12)
    assert bool(gradtx.skip_large_updates(updates, 0, None, math.inf)[0])


def test_more_elements_than_an_integer_counts_are_skipped_too() -> None:
    """2^31 of them would be a negative number, and 2^32 none. XLA knows what is in the array."""

    def skip(x: Any) -> Any:
        return gradtx.skip_not_finite([jnp.full((2**15, 2**15), x)] * 4, 0, None)

    for value, expected in ((np.nan, True), (np.inf, True), (1.0, False)):
        skipped, report = jax.jit(skip)(value)
        assert skipped == report["should_skip"] == expected
        assert report["num_not_finite"] == (2**31 - 1 if expected else 0)
