"""`jax.shard_map`: what works element by element is right as it is, what sums over a leaf or over
leaves is right in `on_shards` and refused without."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import gradtx

from .guests import assert_near

PARAMS = {"kernel": jnp.linspace(-1.0, 1.0, 128).reshape(16, 8), "bias": jnp.linspace(1.0, 2.0, 8)}
GRADS = jax.tree.map(lambda x: jnp.sin(3 * x) + 0.1, PARAMS)


def steps(tx: Any) -> Any:
    def run(params: Any, grads: Any) -> Any:
        state = tx.init(params)
        for _ in range(2):
            updates, state = optax.with_extra_args_support(tx).update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params

    return run


def rows() -> Mesh:
    if jax.device_count() < 8 or not hasattr(jax, "shard_map"):
        pytest.skip("needs eight devices: XLA_FLAGS=--xla_force_host_platform_device_count=8")
    return Mesh(np.asarray(jax.devices()[:8]), ("rows",))


def on_shards(tx: Any) -> Any:
    run = jax.shard_map(steps(tx), mesh=rows(), in_specs=P("rows"), out_specs=P("rows"))
    return jax.jit(run)(PARAMS, GRADS)


ELEMENTWISE = {
    "sgd": gradtx.sgd(0.1, momentum=0.9),
    "adamw": gradtx.adamw(gradtx.cosine_decay_schedule(0.1, 10)),
    "lion": gradtx.lion(0.1),
    "adadelta": gradtx.adadelta(0.1),
    "clip": gradtx.chain(gradtx.clip(0.3), gradtx.rmsprop(0.1)),
    "groups": gradtx.partition({"bias": gradtx.sgd(0.1), ".*": gradtx.adamw(0.1)}),
    "masked": gradtx.masked(gradtx.adam(0.1), "kernel"),
    "int8": gradtx.chain(
        gradtx.store(gradtx.scale_by_lion(), "int8", min_size=1), gradtx.scale(-1)
    ),
}


@pytest.mark.parametrize("tx", ELEMENTWISE.values(), ids=ELEMENTWISE)
def test_elementwise_is_right(tx: Any) -> None:
    assert_near(on_shards(tx), jax.jit(steps(tx))(PARAMS, GRADS), 1e-6)


CLIPPED = gradtx.chain(gradtx.clip_by_global_norm(0.1), gradtx.sgd(1.0))
EACH = gradtx.sharding.on_shards(CLIPPED, P())


def test_a_norm_of_a_shard_is_refused() -> None:
    with pytest.raises(ValueError, match=r"clip_by_global_norm: at bias: .*'rows'.*on_shards"):
        on_shards(CLIPPED)
    with pytest.raises(ValueError, match=r"scale_by_trust_ratio: at bias"):
        on_shards(gradtx.chain(gradtx.masked(gradtx.lamb(0.1), "bias"), gradtx.scale(2.0)))


def test_a_decision_by_a_shard_is_refused() -> None:
    with pytest.raises((TypeError, ValueError), match=r"finite_guard: .*on_shards"):
        on_shards(gradtx.finite_guard(gradtx.adam(0.1)))


def test_a_sum_in_init_is_refused() -> None:
    @gradtx.per_leaf
    def relative() -> gradtx.Rule:
        return gradtx.Rule(lambda param: jnp.sum(param), lambda grad, state: (grad * state, state))

    with pytest.raises(ValueError, match="relative: at bias"):
        on_shards(relative())


def test_norms_are_of_the_shard_if_asked_for() -> None:
    """As they are with Optax's."""
    got = on_shards(EACH)
    for i in range(8):
        mine, grads = (
            {"kernel": t["kernel"][2 * i : 2 * i + 2], "bias": t["bias"][i : i + 1]}
            for t in (PARAMS, GRADS)
        )
        part = jax.tree.map(np.asarray, steps(CLIPPED)(mine, grads))
        np.testing.assert_allclose(got["kernel"][2 * i : 2 * i + 2], part["kernel"], rtol=1e-5)
        np.testing.assert_allclose(got["bias"][i], part["bias"][0], rtol=1e-5)
    theirs = on_shards(optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(1.0)))
    assert_near(got, theirs, 1e-5)


def test_norms_of_the_whole() -> None:
    expected = jax.jit(steps(CLIPPED))(PARAMS, GRADS)
    assert_near(on_shards(gradtx.sharding.on_shards(CLIPPED, P("rows"))), expected, 1e-6)
    inside = gradtx.chain(
        gradtx.sharding.on_shards(gradtx.clip_by_global_norm(0.1), P("rows")), gradtx.sgd(1.0)
    )
    assert_near(on_shards(inside), expected, 1e-6)


def test_what_does_not_vary_may_be_summed() -> None:
    """Data parallel training: the gradients are summed over the devices before they are clipped."""

    def run(params: Any, grads: Any) -> Any:
        return steps(CLIPPED)(params, jax.lax.pmean(grads, "rows"))

    batch = {"kernel": jnp.sin(jnp.arange(1024.0)).reshape(128, 8), "bias": jnp.arange(64.0)}
    mapped = jax.shard_map(run, mesh=rows(), in_specs=(P(), P("rows")), out_specs=P())
    means = {k: x.reshape(8, -1, *x.shape[1:]).mean(0) for k, x in batch.items()}
    assert_near(jax.jit(mapped)(PARAMS, batch), jax.jit(steps(CLIPPED))(PARAMS, means), 1e-6)


def test_a_rule_may_sum_over_the_devices_itself() -> None:
    @gradtx.per_leaf
    def normalized() -> Any:
        def update(grad: jax.Array) -> jax.Array:
            return grad / jnp.sqrt(jax.lax.psum(jnp.sum(grad**2), "rows"))

        return update

    got = on_shards(normalized())
    whole = jax.tree.map(lambda g: g / jnp.linalg.norm(g), GRADS)
    assert_near(got, jax.tree.map(lambda p, u: p + 2 * u, PARAMS, whole), 1e-5)


def test_scalars_that_vary_and_that_do_not_meet() -> None:
    """The norm of a leaf differs from shard to shard, a schedule's rate does not."""
    tx = gradtx.partition(
        {
            "bias": gradtx.lamb(0.1),
            ".*": gradtx.chain(
                gradtx.scale_by_trust_ratio(),
                gradtx.scale_by_learning_rate(gradtx.linear_schedule(0.1, 0.0, 9)),
            ),
        }
    )
    each = gradtx.sharding.on_shards(tx, P())
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(on_shards(each)))


def test_the_state_may_be_divided_in_another_way() -> None:
    """Not at all, or as other tools divide it: the rows' mean of adafactor over the rows."""
    tx = gradtx.sharding.on_shards(gradtx.adafactor(0.1, min_dim_size_to_factor=4), P("rows"))
    state = tx.init(PARAMS)

    def step(state: Any, params: Any, grads: Any) -> Any:
        return tx.update(grads, state, params)

    found = []
    for specs in (P(), gradtx.sharding.state_specs(tx, PARAMS, P("rows"))):
        spec = (specs, P("rows"), P("rows"))
        run = jax.shard_map(step, mesh=rows(), in_specs=spec, out_specs=(P("rows"), specs))
        found.append(jax.jit(run)(state, PARAMS, GRADS))
    expected = jax.jit(step)(state, PARAMS, GRADS)
    for got in found:
        assert_near(got[0], expected[0], 1e-5)
        assert_near(got[1], expected[1], 1e-5)


def test_derivatives_are_those_of_the_whole() -> None:
    """Also where a rule has one of its own: at a gradient of 0."""
    tx = gradtx.chain(gradtx.clip_by_global_norm(0.5), gradtx.scale_by_trust_ratio())
    zeros = jax.tree.map(jnp.zeros_like, GRADS)

    def slope(tx: Any, total: Any) -> Any:
        def loss(grads: Any, params: Any) -> Any:
            updates, _ = tx.update(grads, tx.init(params), params)
            return total(sum(jnp.sum(jnp.sin(u)) for u in jax.tree.leaves(updates)))

        return jax.grad(loss)

    mine = slope(gradtx.sharding.on_shards(tx, P("rows")), lambda x: jax.lax.psum(x, "rows"))
    mapped = jax.shard_map(mine, mesh=rows(), in_specs=P("rows"), out_specs=P("rows"))
    for grads in (GRADS, zeros):
        assert_near(jax.jit(mapped)(grads, PARAMS), slope(tx, lambda x: x)(grads, PARAMS), 1e-5)


@pytest.mark.parametrize(
    ("specs", "says"),
    [
        (P("columns"), r"on_shards: at bias: .*no axis 'columns'; its axes: rows"),
        ({"kernel": P("rows")}, r"on_shards: at bias: specs has no PartitionSpec for it"),
        (P("rows", None, None), r"on_shards: at bias: .*longer than the rank"),
    ],
)
def test_specs_that_do_not_fit(specs: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        on_shards(gradtx.sharding.on_shards(CLIPPED, specs))


def test_what_is_no_spec() -> None:
    with pytest.raises(TypeError, match="on_shards: specs at kernel must be a PartitionSpec"):
        gradtx.sharding.on_shards(CLIPPED, {"kernel": "rows"})


def test_a_function_of_the_params_is_refused() -> None:
    tx = gradtx.sharding.on_shards(gradtx.scale_by_backtracking_linesearch(5), P("rows"))

    def run(params: Any) -> Any:
        loss = lambda params: jax.lax.psum(sum(jnp.sum(x) for x in params.values()), "rows")  # noqa: E731
        extra = {"value": loss(params), "grad": params, "value_fn": loss}
        return tx.update(params, tx.init(params), params, **extra)[0]

    with pytest.raises(TypeError, match=r"on_shards: scale_by_backtracking_linesearch.* value_fn"):
        jax.shard_map(run, mesh=rows(), in_specs=P("rows"), out_specs=P("rows"))(PARAMS)


def test_outside_it_changes_nothing() -> None:
    tx = gradtx.sharding.on_shards(CLIPPED, P("rows"))
    assert_near(steps(tx)(PARAMS, GRADS), steps(CLIPPED)(PARAMS, GRADS), 0)
    assert jax.tree.structure(tx.init(PARAMS)) == jax.tree.structure(CLIPPED.init(PARAMS))
