"""Guards, conditions, lookahead, injected numbers: what is refused, and the special cases."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
GRADS = jax.tree.map(lambda x: 0.5 * x, PARAMS)


def jitted(
    tx: Any, grads: Any = GRADS, state: Any = None, params: Any = PARAMS, **extra: Any
) -> Any:
    state = tx.init(params) if state is None else state
    return jax.jit(tx.update)(grads, state, params, **extra)


# -- a skipped step does not run what is inside --------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda inner: gradtx.apply_if_finite(inner, 2),
        gradtx.finite_guard,
        gradtx.dynamic_loss_scale,
        lambda inner: gradtx.conditionally_mask(inner, lambda step: step > 5),
        lambda inner: gradtx.conditionally_transform(inner, lambda step: step > 5),
    ],
)
def test_a_skipped_step_does_not_run_the_inner_transformation(make: Any) -> None:
    ran: list[int] = []

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        jax.debug.callback(lambda: ran.append(1))
        return updates, state

    tx = make(gradtx.GradientTransformation(lambda params: gradtx.EmptyState(), update))
    jitted(tx, {"w": PARAMS["w"] * np.nan, "b": PARAMS["b"]})
    jax.effects_barrier()
    assert not ran


# -- finite_guard --------------------------------------------------------------------------------


def test_finite_guard_undoes_a_step_that_would_poison_the_state() -> None:
    """The square of 1e30 is infinite in float32: the update would be 0, and so all after it."""
    huge = jax.tree.map(lambda x: 1e30 * x, PARAMS)
    guarded, plain = gradtx.finite_guard(gradtx.adam(0.1)), gradtx.adam(0.1)
    _, poisoned = jitted(plain, huge)
    assert np.all(np.isinf(poisoned[0].nu["w"]))
    updates, state = jitted(guarded, huge)
    assert int(state.skipped) == 1
    assert int(state.inner_state[0].count) == 0
    assert all(np.all(u == 0) for u in jax.tree.leaves(updates))
    after, state = jitted(guarded, GRADS, state)
    expected, _ = jitted(plain, GRADS)
    np.testing.assert_array_equal(after["w"], expected["w"])
    assert int(state.in_a_row) == 0
    unchecked = gradtx.finite_guard(gradtx.adam(0.1), check_result=False)
    assert int(jitted(unchecked, huge)[1].skipped) == 0


def test_finite_guard_lets_nothing_through_for_ever() -> None:
    """Where apply_if_finite gives up, as it says."""
    bad = {"w": PARAMS["w"] * np.nan, "b": PARAMS["b"]}
    guard, limited = (
        gradtx.finite_guard(gradtx.adam(0.1)),
        gradtx.apply_if_finite(gradtx.adam(0.1), 3),
    )
    guarded, given_up = guard.init(PARAMS), limited.init(PARAMS)
    for t in range(1, 7):
        u, guarded = jitted(guard, bad, guarded)
        v, given_up = jitted(limited, bad, given_up)
        assert np.all(u["w"] == 0)
        assert bool(np.all(np.isnan(v["w"]))) is (t > 3)
    assert int(guarded.skipped) == int(guarded.in_a_row) == 6


def test_finite_guard_keeps_a_state_that_starts_infinite() -> None:
    def init(params: Any) -> Any:
        return {"best": jnp.asarray(np.inf, jnp.float32)}

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        return updates, state

    tx = gradtx.finite_guard(gradtx.GradientTransformation(init, update))
    _, state = jitted(tx)
    assert int(state.skipped) == 0


# -- conditions ----------------------------------------------------------------------------------


def test_conditions_are_checked() -> None:
    with pytest.raises(TypeError, match=r"must return one boolean, got float32 of shape \(\)"):
        jitted(gradtx.conditionally_mask(gradtx.sgd(0.1), lambda step: 1.0 * step))
    tx = gradtx.conditionally_mask(gradtx.sgd(0.1), lambda step, *, value: value > 1, True)
    with pytest.raises(TypeError, match=r"value=\.\.\."):
        jitted(tx)
    updates, _ = jitted(tx, value=2.0, other=3.0)
    np.testing.assert_allclose(updates["b"], -0.05, rtol=1e-6)


# -- loss scaling --------------------------------------------------------------------------------


def test_float16_gradients_that_would_vanish() -> None:
    """A gradient of 1e-8 is zero in float16; scaled it is there."""
    params = {"w": jnp.ones(4, jnp.float16)}
    tx = gradtx.chain(gradtx.dynamic_loss_scale(gradtx.scale(-1e6)))
    state = tx.init(params)

    def loss(p: Any) -> Any:
        return 1e-8 * jnp.sum(p["w"].astype(jnp.float32))

    plain = jax.grad(loss)(params)
    assert np.all(plain["w"] == 0)
    scaled = jax.grad(lambda p: gradtx.scale_loss(loss(p), state))(params)
    updates, state = jitted(tx, scaled, state, params)
    np.testing.assert_allclose(updates["w"].astype(np.float32), -0.01, rtol=1e-2)
    assert float(gradtx.loss_scale(state)) == 2.0**15
    overflow = {"w": jnp.full(4, jnp.inf, jnp.float16)}
    updates, state = jitted(tx, overflow, state, params)
    assert np.all(updates["w"] == 0)
    assert float(gradtx.loss_scale(state)) == 2.0**14
    assert gradtx.scale_loss(jnp.float16(2), state).dtype == np.float32


def test_a_scale_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="must hold one DynamicLossScaleState, it holds 0: pass"):
        gradtx.scale_loss(1.0, gradtx.adam(0.1).init(PARAMS))


# -- lookahead -----------------------------------------------------------------------------------


def test_lookahead_refuses() -> None:
    tx = gradtx.lookahead(gradtx.sgd(0.1), 5, 0.5)
    with pytest.raises(TypeError, match=r"LookaheadParams.init_synced\(...\), got a dict"):
        tx.update(GRADS, tx.init(PARAMS), PARAMS)
    with pytest.raises(ValueError, match=r"sync_period must be >= 1, got 0.5"):
        gradtx.lookahead(gradtx.sgd(0.1), 0.5, 0.5)
    inside = gradtx.chain(tx)
    with pytest.raises(TypeError, match="must be outermost"):
        inside.update(GRADS, inside.init(PARAMS), PARAMS)


def test_lookahead_agrees_with_optax_and_takes_its_params() -> None:
    ours = gradtx.lookahead(gradtx.adam(0.1), 3, 0.5, reset_state=True)
    theirs = optax.lookahead(optax.adam(0.1), 3, 0.5, reset_state=True)
    params = [gradtx.LookaheadParams.init_synced(PARAMS), optax.LookaheadParams.init_synced(PARAMS)]
    states = [ours.init(params[0]), theirs.init(params[1])]
    for _ in range(7):
        for i, (lib, tx) in enumerate(((gradtx, ours), (optax, theirs))):
            grads = jax.tree.map(lambda p: p - 0.3, params[i].fast)
            u, states[i] = tx.update(grads, states[i], params[i])
            params[i] = lib.apply_updates(params[i], u)
        for x, y in zip(*map(jax.tree.leaves, params), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5)
    paths = [[str(p) for p, _ in jax.tree_util.tree_leaves_with_path(s)] for s in states]
    assert paths[0] == paths[1]


def test_synced_params_can_be_donated() -> None:
    pair = gradtx.LookaheadParams.init_synced(PARAMS)
    pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(pair)]
    assert len(set(pointers)) == len(pointers)


# -- cautious, layers ----------------------------------------------------------------------------


def test_cautious_refuses_another_normalizer() -> None:
    with pytest.raises(ValueError, match=r"normalizer must be one of 'clamped', .*, got 'mean'"):
        gradtx.cautious(gradtx.sgd(0.1), normalizer="mean")


@pytest.mark.parametrize(
    ("by", "error", "message"),
    [
        (["w"], ValueError, "no layer is given for b"),
        (["w", "b", "head"], ValueError, "the pattern 'head' gets no leaf; the paths are: b, w"),
        (["("], ValueError, "'\\(' is not a valid regular expression"),
        (["(w)", "b"], ValueError, r"the group of '\(w\)' caught 'w' in w"),
        ({"w": 0.5, "b": 1}, TypeError, "the layer of w must be a whole number, got 0.5"),
        ({"x": 0}, ValueError, "the tree of layers does not fit the parameters"),
        (lambda path: None, ValueError, "no layer is given for b, w"),
    ],
)
def test_layers_that_do_not_fit(by: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gradtx.layerwise_lr_decay(0.5, by).init(PARAMS)


# -- injected numbers ----------------------------------------------------------------------------


def test_a_random_key_is_passed_on_as_it_is() -> None:
    key = jax.random.key(3)
    tx = gradtx.inject_hyperparams(gradtx.noisy_sgd)(0.1, key=key)
    assert tx == gradtx.inject_hyperparams(gradtx.noisy_sgd)(0.1, key=jax.random.key(3))
    assert tx != gradtx.inject_hyperparams(gradtx.noisy_sgd)(0.1, key=jax.random.key(4))
    updates, state = jitted(tx)
    assert "key" not in state.hyperparams
    expected, _ = jitted(gradtx.noisy_sgd(0.1, key=key))
    np.testing.assert_allclose(updates["w"], expected["w"], rtol=1e-6)

    def noisy(key: Any, size: Any) -> Any:
        noise = gradtx.stateless(lambda u, _: jax.tree.map(lambda x: size * x, u))
        return gradtx.chain(gradtx.add_noise(1.0, 0.0, key), noise)

    _, state = jitted(gradtx.inject_hyperparams(noisy)(key=key, size=0.5))
    assert list(state.hyperparams) == ["size"]


def test_injected_numbers_are_read_and_set_inside_jit() -> None:
    tx = gradtx.inject_hyperparams(gradtx.sgd)(learning_rate=0.1, momentum=0.0)
    traces = []

    @jax.jit
    def step(grads: Any, state: Any) -> Any:
        traces.append(1)
        rate = state.hyperparams["learning_rate"]
        hyperparams = {**state.hyperparams, "learning_rate": jnp.where(state.count < 2, rate, 1.0)}
        return tx.update(grads, state._replace(hyperparams=hyperparams), PARAMS)

    state, seen = tx.init(PARAMS), []
    for _ in range(4):
        updates, state = step(GRADS, state)
        seen.append(float(updates["b"][0]))
    np.testing.assert_allclose(seen, [-0.05, -0.05, -0.5, -0.5], rtol=1e-6)
    assert len(traces) == 1
    state.hyperparams["learning_rate"] = 0.2  # outside of jit, as Optax's users do
    updates, state = tx.update(GRADS, state, PARAMS)
    np.testing.assert_allclose(updates["b"], -0.1, rtol=1e-6)
    assert state.hyperparams["learning_rate"].dtype == np.float32


def test_injected_numbers_are_never_in_the_dtype_of_the_params() -> None:
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    tx = gradtx.inject_hyperparams(gradtx.adamw)(1e-3)
    updates, state = jitted(tx, params, None, params)
    assert {x.dtype for x in state.hyperparams.values()} == {np.dtype(np.float32)}
    assert float(state.hyperparams["b2"]) == np.float32(0.999)
    expected, _ = jitted(gradtx.adamw(1e-3), params, None, params)
    np.testing.assert_array_equal(updates["w"], expected["w"])


FACTORIES = {
    "optax.adamw": lambda: gradtx.inject_hyperparams(optax.adamw)(0.1),
    "optax.lbfgs": lambda: gradtx.inject_hyperparams(optax.scale_by_lbfgs)(),
    "optax.adafactor": lambda: gradtx.inject_hyperparams(optax.adafactor)(0.1),
    "optax.adopt": lambda: gradtx.inject_hyperparams(optax.contrib.adopt)(0.1),
    "optax.scheduled": lambda: gradtx.inject_hyperparams(optax.sgd)(optax.linear_schedule(1, 0, 9)),
    "own": lambda: gradtx.inject_hyperparams(lambda rate, *, size=3: gradtx.scale(rate * size))(2),
    "adagrad": lambda: gradtx.inject_hyperparams(gradtx.adagrad)(0.1),
    "torch.adam": lambda: gradtx.inject_hyperparams(gradtx.torch.adam)(0.1, betas=(0.8, 0.9)),
    "bf16": lambda: gradtx.inject_hyperparams(gradtx.sgd, hyperparam_dtype=jnp.bfloat16)(0.1),
    "static": lambda: gradtx.inject_hyperparams(gradtx.adam, static_args="b1")(0.1),
}


@pytest.mark.parametrize("name", FACTORIES)
def test_any_factory_works_under_jit_with_one_trace(name: str) -> None:
    tx = FACTORIES[name]()
    step, state = jax.jit(tx.update), tx.init(PARAMS)
    structure = jax.tree.map(lambda x: (x.shape, x.dtype), state)
    for _ in range(3):
        updates, state = step(GRADS, state, PARAMS)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == structure
    assert step._cache_size() == 1
    assert all(np.all(np.isfinite(u)) for u in jax.tree.leaves(updates))


def test_injected_values_print_and_are_adjusted() -> None:
    tx = gradtx.inject_hyperparams(gradtx.sgd, static_args=["nesterov"])(0.1)
    shown = "inject_hyperparams(sgd)(learning_rate=0.1, momentum=None, nesterov=False, "
    assert str(tx).startswith(shown)
    assert tx.replace(learning_rate=0.2) == gradtx.inject_hyperparams(
        gradtx.sgd, static_args=["nesterov"]
    )(0.2)
    with pytest.raises(ValueError, match="sgd has no argument 'rate'; it takes learning_rate, mom"):
        gradtx.inject_hyperparams(gradtx.sgd, "rate")
    with pytest.raises(ValueError, match="sgd: learning_rate must be finite and >= 0, got -1"):
        gradtx.inject_hyperparams(gradtx.sgd)(-1.0)


def test_stateful_schedules() -> None:
    class Halving:
        """Halves whenever the loss did not fall."""

        def init(self) -> Any:
            return {"rate": jnp.float32(1.0), "best": jnp.float32(np.inf)}

        def update(self, state: Any, *, value: Any, **extra: Any) -> Any:
            fell = value < state["best"]
            rate = jnp.where(fell, state["rate"], state["rate"] / 2)
            return {"rate": rate, "best": jnp.minimum(state["best"], value)}

        def __call__(self, state: Any, **extra: Any) -> Any:
            return state["rate"]

    tx = gradtx.inject_hyperparams(gradtx.sgd)(Halving())
    state, rates = tx.init(PARAMS), []
    for value in (3.0, 2.0, 2.0, 1.0):
        _, state = jitted(tx, GRADS, state, value=value)
        rates.append(float(state.hyperparams["learning_rate"]))
    assert rates == [1.0, 1.0, 1.0, 0.5]


# -- measurements, layouts, small things ---------------------------------------------------------


def test_monitor_refuses_and_keeps_its_structure() -> None:
    with pytest.raises(TypeError, match=r"monitor: measures\['x'\] must be a function, a meas"):
        gradtx.monitor({"x": 1.0})
    tx = gradtx.monitor({"norm": gradtx.global_norm})
    state = tx.init(PARAMS)
    assert float(state.measurements["norm"]) == 0
    _, new = jitted(tx, state=state)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert "measure_with_ema(measure=global_norm, decay=0.9" in str(
        gradtx.monitor({"m": gradtx.measure_with_ema(gradtx.global_norm, 0.9)})
    )


def test_measures_keep_their_order_as_arguments_of_a_program() -> None:
    """JAX sorts the keys of a dict; the states of the measures lie in a row."""
    mean = gradtx.measure_with_ema(gradtx.global_norm, 0.5, debias=False)
    tx = gradtx.monitor({"z": mean, "a": gradtx.global_norm})
    state = tx.init(PARAMS)
    _, new = jax.jit(lambda tx, state: tx.update(GRADS, state))(tx, state)
    norm = float(gradtx.global_norm(GRADS))
    assert jax.tree.structure(new) == jax.tree.structure(state)
    got = {name: float(x) for name, x in new.measurements.items()}
    assert got == pytest.approx({"z": norm / 2, "a": norm})


def test_flatten_of_several_dtypes() -> None:
    params = {
        "a": jnp.ones(3, jnp.bfloat16),
        "b": jnp.ones((2, 2)),
        "c": jnp.ones(2, jnp.complex64),
    }
    tx = gradtx.flatten(gradtx.adam(0.1))
    updates, state = jitted(tx, params, None, params)
    assert state[0].mu.shape == (9,)
    assert jax.tree.map(lambda x: x.dtype, updates) == jax.tree.map(lambda x: x.dtype, params)


def test_optax_transformations_inside_of_wrappers() -> None:
    for tx in (
        gradtx.finite_guard(optax.sgd(0.1)),
        gradtx.accumulate(optax.sgd(0.1), 1),
        gradtx.flatten(optax.sgd(0.1)),
    ):
        updates, _ = jitted(tx)
        np.testing.assert_allclose(updates["b"], -0.05, rtol=1e-6)
    with pytest.raises(TypeError, match="finite_guard: inner must be a gradient transformation"):
        gradtx.finite_guard(3)


def test_names_that_only_optax_needs() -> None:
    assert gradtx.GradientTransformationExtraArgs is gradtx.GradientTransformation
    assert gradtx.init_empty_state(PARAMS) == gradtx.EmptyState()
    tx = gradtx.with_extra_args_support(optax.sgd(0.1))
    tx.update(GRADS, tx.init(PARAMS), PARAMS, surely_not=1)
    assert gradtx.with_extra_args_support(gradtx.sgd(0.1)) == gradtx.sgd(0.1)


@pytest.mark.parametrize(
    "tx",
    [
        gradtx.finite_guard(gradtx.adam(0.1)),
        gradtx.finite_guard(gradtx.adam(0.1), check_result=False),
        gradtx.apply_if_finite(gradtx.adam(0.1), 2),
        gradtx.accumulate(gradtx.adam(0.1), 1),
    ],
    ids=str,
)
def test_a_guard_inside_of_shard_map(tx: Any) -> None:
    """It decides by all gradients, and so has to know how they are cut."""
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("x")
    on_shards = gradtx.sharding.on_shards(tx, spec)

    def update(x: Any) -> Any:
        return on_shards.update(2 * x, on_shards.init(x), x)[0]

    x = jnp.ones((4, 4))
    sharded = jax.jit(jax.shard_map(update, mesh=mesh, in_specs=spec, out_specs=spec))(x)
    np.testing.assert_allclose(sharded, update(x), rtol=1e-6)
