"""`jax.shard_map`: each shard is a tree of its own, so that what works element by element is right,
and what sums over a leaf or over leaves sums over the shard."""

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


def on_shards(tx: Any) -> Any:
    if jax.device_count() < 8 or not hasattr(jax, "shard_map"):
        pytest.skip("needs eight devices: XLA_FLAGS=--xla_force_host_platform_device_count=8")
    mesh = Mesh(np.asarray(jax.devices()[:8]), ("rows",))
    run = jax.shard_map(steps(tx), mesh=mesh, in_specs=P("rows"), out_specs=P("rows"))
    return jax.jit(run)(PARAMS, GRADS)


ELEMENTWISE = {
    "sgd": gradtx.sgd(0.1, momentum=0.9),
    "adamw": gradtx.adamw(gradtx.cosine_decay_schedule(0.1, 10)),
    "lion": gradtx.lion(0.1),
    "adadelta": gradtx.adadelta(0.1),
    "clip": gradtx.chain(gradtx.clip(0.3), gradtx.rmsprop(0.1)),
    "groups": gradtx.partition({"bias": gradtx.sgd(0.1), ".*": gradtx.adamw(0.1)}),
    "masked": gradtx.masked(gradtx.adam(0.1), "kernel"),
    "accumulated": gradtx.accumulate(gradtx.adamw(0.1), 2),
}


@pytest.mark.parametrize("tx", ELEMENTWISE.values(), ids=ELEMENTWISE)
def test_elementwise_is_right(tx: Any) -> None:
    assert_near(on_shards(tx), jax.jit(steps(tx))(PARAMS, GRADS), 1e-6)


def test_norms_are_of_the_shard() -> None:
    """As they are with Optax's. With `psum` over the mesh's axis a user makes them whole."""
    tx = gradtx.chain(gradtx.clip_by_global_norm(0.1), gradtx.sgd(1.0))
    got = on_shards(tx)
    for i in range(8):
        mine, grads = (
            {"kernel": t["kernel"][2 * i : 2 * i + 2], "bias": t["bias"][i : i + 1]}
            for t in (PARAMS, GRADS)
        )
        part = jax.tree.map(np.asarray, steps(tx)(mine, grads))
        np.testing.assert_allclose(got["kernel"][2 * i : 2 * i + 2], part["kernel"], rtol=1e-5)
        np.testing.assert_allclose(got["bias"][i], part["bias"][0], rtol=1e-5)
    theirs = on_shards(optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(1.0)))
    assert_near(got, theirs, 1e-5)


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
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(on_shards(tx)))
