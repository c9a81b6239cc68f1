"""The average of the parameters: its numbers, which calls count, and what it is an average of."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

RNG = np.random.default_rng(0)
Numbers = list[np.ndarray]


def run(
    tx: Any, steps: int, dtype: Any = np.float32, bad: tuple[int, ...] = (), by_step: bool = True
) -> tuple[Numbers, Numbers]:
    """The parameters and their averages after each call; gradients are NaN on the bad ones."""

    def by_update(tx: Any, grads: Any, state: Any, params: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return gradtx.apply_updates(params, updates), state

    @jax.jit
    def call(grads: Any, state: Any, params: Any) -> Any:
        params, state = (gradtx.step if by_step else by_update)(tx, grads, state, params)
        return params, state, gradtx.averaged_params(state, params)

    params: Any = {"w": jnp.asarray(RNG.normal(size=(3, 2)), dtype), "b": None}
    state, seen, averages = tx.init(params), [], []
    for i in range(steps):
        scale = np.nan if i in bad else 1
        grads = {"w": jnp.asarray(scale * RNG.normal(size=(3, 2)), dtype), "b": None}
        params, state, average = call(grads, state, params)
        assert average["w"].dtype == dtype
        assert average["b"] is None
        seen.append(np.asarray(params["w"], np.float64))
        averages.append(np.asarray(average["w"], np.float64))
    assert call._cache_size() == 1
    return seen, averages


def weighted_mean(seen: Numbers, decays: list[float] | None, debias: bool = True) -> np.ndarray:
    """By the weights, written out: the i-th has weight (1 - d_i) d_(i+1) ... d_n."""
    if decays is None:
        return np.mean(seen, 0)
    used = decays[: len(seen)]
    weights = np.array([(1 - d) * np.prod(used[i + 1 :]) for i, d in enumerate(used)])
    if not debias:
        weights[0] = np.prod(used[1:])
    return np.tensordot(weights / weights.sum() if debias else weights, np.array(seen), 1)


def check(
    got: tuple[Numbers, Numbers],
    counts: Callable[[int], bool],
    decays: list[float] | None = None,
    debias: bool = True,
    rtol: float = 3e-6,
) -> None:
    """That the averages are those of the calls, counted from 1, that count."""
    seen, averages = got
    for i, average in enumerate(averages):
        chosen = [p for t, p in enumerate(seen[: i + 1], start=1) if counts(t)]
        expected = weighted_mean(chosen, decays, debias) if chosen else seen[i]
        np.testing.assert_allclose(average, expected, rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("by_step", [True, False])
@pytest.mark.parametrize(("decay", "debias"), [(None, True), (0.9, True), (0.9, False)])
def test_it_is_the_weighted_mean(by_step: bool, decay: float | None, debias: bool) -> None:
    tx = gradtx.averaged(gradtx.adamw(0.1), decay, debias=debias)
    decays = None if decay is None else [decay] * 12
    check(run(tx, 12, by_step=by_step), lambda t: True, decays, debias)


def test_it_is_exact_in_float64(x64: None) -> None:
    got = run(gradtx.averaged(gradtx.adamw(0.1), 0.9), 12, np.float64)
    for i, average in enumerate(got[1]):
        np.testing.assert_allclose(average, weighted_mean(got[0][: i + 1], [0.9] * 12), rtol=1e-13)


def test_a_schedule_of_the_decay_counts_steps() -> None:
    decays = [1 - 0.5 ** (t + 1) for t in range(8)]
    tx = gradtx.averaged(gradtx.accumulate(gradtx.sgd(0.1), 2), lambda t: 1 - 0.5 ** (t + 1))
    check(run(tx, 16), lambda t: t % 2 == 0, decays)


def test_start_and_every_count_steps() -> None:
    tx = gradtx.averaged(gradtx.accumulate(gradtx.sgd(0.1), 2), start=2, every=3)
    check(run(tx, 24), lambda t: t in (10, 16, 22))


ACCUMULATED = {
    "outside": lambda: gradtx.averaged(gradtx.accumulate(gradtx.adam(0.1), 4), 0.9),
    "inside": lambda: gradtx.accumulate(gradtx.averaged(gradtx.adam(0.1), 0.9), 4),
    "with much between": lambda: gradtx.averaged(
        gradtx.chain(
            gradtx.clip(1.0),
            gradtx.partition({"w": gradtx.cautious(gradtx.MultiSteps(gradtx.adam(0.1), 4))}),
        ),
        0.9,
    ),
    "Optax's": lambda: gradtx.averaged(optax.MultiSteps(optax.adam(0.1), 4), 0.9),
}


@pytest.mark.parametrize("name", ACCUMULATED)
@pytest.mark.parametrize("by_step", [True, False])
def test_micro_batches_do_not_count(name: str, by_step: bool) -> None:
    got = run(ACCUMULATED[name](), 12, by_step=by_step)
    check(got, lambda t: t % 4 == 0, [0.9] * 3)


SKIPPING: dict[str, Callable[[Any], Any]] = {
    "finite_guard": gradtx.finite_guard,
    "apply_if_finite": lambda tx: gradtx.apply_if_finite(tx, 5),
    "dynamic_loss_scale": gradtx.dynamic_loss_scale,
}


@pytest.mark.parametrize("name", SKIPPING)
@pytest.mark.parametrize("outside", [True, False])
def test_skipped_steps_do_not_count(name: str, outside: bool) -> None:
    guarded, optimizer = SKIPPING[name], gradtx.adam(0.1)
    tx = gradtx.averaged(guarded(optimizer)) if outside else guarded(gradtx.averaged(optimizer))
    check(run(tx, 9, bad=(0, 3, 4, 8)), lambda t: t - 1 not in (0, 3, 4, 8))


def test_guards_inside_accumulation_are_seen() -> None:
    tx = gradtx.averaged(
        gradtx.accumulate(gradtx.finite_guard(gradtx.adam(0.1)), 2, drop_nonfinite=False)
    )
    check(run(tx, 10, bad=(2,)), lambda t: t % 2 == 0 and t != 4)


def test_climbs_of_sam_do_not_count() -> None:
    tx = gradtx.averaged(gradtx.sam(gradtx.sgd(0.1), gradtx.sgd(0.05)))
    check(run(tx, 8), lambda t: t % 2 == 0)


def test_in_groups_a_call_counts_if_one_of_them_steps() -> None:
    groups = {
        "a": gradtx.accumulate(gradtx.sgd(1.0), 2),
        "b": gradtx.accumulate(gradtx.sgd(1.0), 4),
    }
    tx = gradtx.averaged(gradtx.partition(groups))
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    state = tx.init(params)
    for _ in range(8):
        params, state = gradtx.step(tx, {"a": -jnp.ones(1), "b": -jnp.ones(1)}, state, params)
    assert int(state.step) == 4
    average = gradtx.averaged_params(state, params)
    assert float(average["a"][0]) == (1 + 2 + 3 + 4) / 4
    assert float(average["b"][0]) == (0 + 1 + 1 + 2) / 4


def test_it_averages_the_parameters_that_there_are() -> None:
    """What rounds after it, or is done to the parameters by hand, is in the average."""
    tx = gradtx.chain(gradtx.averaged(gradtx.adam(0.1)), gradtx.stochastic_rounding())
    check(run(tx, 8, jnp.bfloat16), lambda t: True, rtol=2**-8)
    tx, params, seen = gradtx.averaged(gradtx.sgd(1.0)), jnp.array([4.0]), []
    state = tx.init(params)
    for _ in range(5):
        params, state = gradtx.step(tx, jnp.array([3.0]), state, params)
        params = jnp.maximum(params, 0)
        seen.append(float(params[0]))
    np.testing.assert_allclose(gradtx.averaged_params(state, params), [np.mean(seen)], rtol=1e-6)


def test_it_moves_in_float32_where_bfloat16_stands_still() -> None:
    tx = gradtx.averaged(gradtx.sgd(0.0), 0.999)
    params = jnp.ones(1, jnp.bfloat16)
    state = tx.init(params)
    step = jax.jit(lambda state, p: tx.update(jnp.zeros(1, jnp.bfloat16), state, p)[1])
    for _ in range(10):
        state = step(state, params)
    for _ in range(100):
        state = step(state, 2 * params)
    weights = 0.999 ** np.arange(109)
    expected = 1 + weights[:100].sum() / weights.sum()
    np.testing.assert_allclose(state.average, [expected], rtol=1e-5)


def test_master_weights_are_averaged_in_float32() -> None:
    tx = gradtx.master_weights(gradtx.averaged(gradtx.sgd(2.0**-12)))
    params = jnp.ones(1, jnp.bfloat16)
    state = tx.init(params)
    for _ in range(3):
        params, state = gradtx.step(tx, jnp.ones(1, jnp.bfloat16), state, params)
    average = gradtx.averaged_params(state, state.master)
    np.testing.assert_allclose(average, [1 - 2 * 2.0**-12], rtol=1e-7)
    assert float(params[0]) == 1


def test_it_agrees_with_optaxs_average() -> None:
    seen, averages = run(gradtx.averaged(gradtx.adam(0.1), 0.8), 6)
    theirs = optax.ema(0.8, debias=True)
    state = theirs.init(jnp.zeros((3, 2)))
    for p, average in zip(seen, averages, strict=True):
        expected, state = theirs.update(jnp.asarray(p, np.float32), state)
        np.testing.assert_allclose(average, expected, rtol=1e-5, atol=1e-6)


def test_it_agrees_with_pytorch() -> None:
    torch = pytest.importorskip("torch")
    utils = torch.optim.swa_utils
    makes = {None: utils.get_swa_avg_fn(), 0.8: utils.get_ema_avg_fn(0.8)}
    for decay, function in makes.items():
        seen, averages = run(gradtx.averaged(gradtx.adam(0.1), decay, debias=False), 6)
        model = torch.nn.Linear(2, 3, bias=False)
        theirs = utils.AveragedModel(model, avg_fn=function)
        for p, average in zip(seen, averages, strict=True):
            with torch.no_grad():
                model.weight.copy_(torch.tensor(p))
            theirs.update_parameters(model)
            expected = theirs.module.weight.detach().numpy()
            np.testing.assert_allclose(average, expected, rtol=2e-6, atol=1e-6)


def test_hidden_and_absent_leaves_are_those_of_params() -> None:
    tx = gradtx.masked(gradtx.averaged(gradtx.sgd(1.0)), "w")
    params: Any = {"w": jnp.zeros(1), "b": jnp.zeros(1), "none": None}
    state = tx.init(params)
    for _ in range(2):
        grads = {"w": -jnp.ones(1), "b": jnp.ones(1), "none": None}
        params, state = gradtx.step(tx, grads, state, params)
    average = gradtx.averaged_params(state, params)
    assert float(average["w"][0]) == 1.5
    assert average["b"] is params["b"]
    assert average["none"] is None


def test_decays_are_mapped_over() -> None:
    def average(decay: Any) -> Any:
        tx, params = gradtx.averaged(gradtx.sgd(1.0), decay), jnp.zeros(1)
        state = tx.init(params)
        for _ in range(3):
            params, state = gradtx.step(tx, -jnp.ones(1), state, params)
        return gradtx.averaged_params(state, params)[0]

    got = jax.vmap(average)(jnp.array([0.0, 0.5]))
    np.testing.assert_allclose(got, [3, (1 + 2 * 2 + 4 * 3) / 7], rtol=1e-6)


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"averaged: decay must be in \[0, 1\), got 1\.5"):
        gradtx.averaged(gradtx.sgd(0.1), 1.5)
    with pytest.raises(ValueError, match="averaged: every must be a whole number >= 1, got 0"):
        gradtx.averaged(gradtx.sgd(0.1), every=0)
    tx, params = gradtx.averaged(gradtx.sgd(0.1)), {"w": jnp.zeros(2)}
    state = tx.init(params)
    with pytest.raises(ValueError, match=r"averaged.* needs the parameters"):
        tx.update(params, state)
    with pytest.raises(ValueError, match="the state must hold one AveragedState, it holds 0"):
        gradtx.averaged_params(state.inner_state, params)
    with pytest.raises(ValueError, match=r"averaged_params: at w: params .* are not shaped like"):
        gradtx.averaged_params(state, {"w": jnp.zeros(3)})
    with pytest.raises(ValueError, match=r"averaged_params: .*v is in params only"):
        gradtx.averaged_params(state, {"v": jnp.zeros(2)})
