"""Blocks lie inside the shards of a mesh, so that no device needs another's numbers."""

import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx
from gradtx.precision.blocks import Runs, Tiles, cut_for, cut_of

LAYOUTS = {
    "both": ((512, 256), P("data", "model")),
    "columns": ((64, 512), P(None, "model")),
    "rows": ((512, 64), P("model", None)),
    "rows over both": ((256, 96), P(("data", "model"))),
    "stacked": ((4, 64, 192), P(None, "data", "model")),
    "short rows": ((1024, 16), P("data", "model")),
    "heads": ((96, 8, 64), P("data", "model", None)),
    "a convolution": ((32, 64, 3, 3), P("model", "data")),
    "a vector": ((2048,), P(("data", "model"))),
}
COLLECTIVE = r"\b(all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(-start)?\("


def mesh_of(kind: Any) -> Any:
    if jax.device_count() < 8:
        pytest.skip("needs eight devices: XLA_FLAGS=--xla_force_host_platform_device_count=8")
    return jax.make_mesh((2, 4), ("data", "model"), axis_types=(kind,) * 2)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["int8", "int4", "float8"])
def test_a_step_has_no_collectives(name: Any, layout: str) -> None:
    shape, spec = LAYOUTS[layout]
    params = jnp.cos(jnp.arange(np.prod(shape), dtype=jnp.float32)).reshape(shape)
    tx = gradtx.store(gradtx.adamw(0.1), name)
    step = jax.jit(lambda state, params: gradtx.step(tx, params, state, params))
    expected, _ = step(tx.init(params), params)
    divided = jax.device_put(params, NamedSharding(mesh_of(AxisType.Auto), spec))
    state = tx.init(divided)
    assert not re.search(COLLECTIVE, step.lower(state, divided).compile().as_text())
    got, new = step(state, divided)
    # What a step makes does not depend on how its moments are stored afterwards.
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(new), strict=True):
        assert x.sharding.is_equivalent_to(y.sharding, x.ndim)
    moment = gradtx.decode_state(gradtx.tree.get(new, "mu"))
    exact = 0.1 * np.asarray(params)
    step_of_code = {"int8": 0.07, "float8": 0.13, "int4": 0.3}[name]
    assert np.max(np.abs(moment - exact)) <= np.max(np.abs(exact)) * step_of_code


@pytest.mark.parametrize("init", ["eager", "jit"])
@pytest.mark.parametrize("shape", [(8, 16), (300, 24)])
def test_codes_lie_where_the_parameters_do(shape: Any, init: str) -> None:
    """Also of arrays that are too small for blocks of their own, and of states made under jit,
    where one does not see how a mesh divides them."""
    tx = gradtx.store(gradtx.adamw(0.1), "int8", min_size=1)
    sharding = NamedSharding(mesh_of(AxisType.Auto), P("data", "model"))
    params = jax.device_put(jnp.ones(shape), sharding)
    state = (jax.jit(tx.init) if init == "jit" else tx.init)(params)
    step = jax.jit(lambda state, params: gradtx.step(tx, params, state, params))
    for _ in range(2):
        for moment in (gradtx.tree.get(state, "mu"), gradtx.tree.get(state, "nu")):
            assert moment.codes.sharding.is_equivalent_to(sharding, 2)
        params, state = step(state, params)
    assert step._cache_size() == 1


def test_the_cut_is_told_from_the_scales() -> None:
    sizes, parts = (1, 3, 8, 48, 96, 150, 256, 300, 448, 512, 768), (1, 2, 3, 4, 8)
    for rows, n, by_rows, by in itertools.product(sizes, sizes, parts, parts):
        if rows % by_rows == 0 and n % by == 0:
            shape, shard = (rows, n), (rows // by_rows, n // by)
            for size in (128, 256):
                cut = cut_for(shape, shard, size)
                assert cut_of(shape, cut.scales) == cut or np.prod(cut.scales) == 1, (shape, shard)


@pytest.mark.parametrize(
    ("shape", "shard", "cut"),
    [
        ((64, 512), (64, 512), Runs((64, 512), 256)),  # not divided
        ((64, 512), (8, 512), Runs((64, 512), 256)),  # shards hold whole rows
        ((64, 512), (32, 256), Runs((64, 512), 256)),
        ((64, 512), (32, 128), Runs((64, 512), 128)),
        ((80, 8192, 28672), (80, 512, 448), Runs((80, 8192, 28672), 64)),
        ((1024, 64), (512, 16), Tiles((1024, 64), (16, 16))),
        ((8, 16), (4, 4), Runs((8, 16), 256)),  # too small
    ],
)
def test_blocks_of_shards(shape: Any, shard: Any, cut: Any) -> None:
    assert cut_for(shape, shard, 256) == cut


@pytest.mark.parametrize("layout", ["both", "short rows"])
def test_with_explicit_axes_also_under_jit(layout: str) -> None:
    shape, spec = LAYOUTS[layout]
    mesh = mesh_of(AxisType.Explicit)
    tx = gradtx.store(gradtx.adamw(0.1), "int8")
    if not hasattr(jax, "set_mesh"):
        pytest.skip("needs a JAX that has `jax.set_mesh`")
    with jax.set_mesh(mesh):
        params = jax.device_put(jnp.ones(shape), NamedSharding(mesh, spec))
        state = tx.init(params)
        traced = jax.eval_shape(tx.init, params)
        assert jax.tree.map(jnp.shape, traced) == jax.tree.map(jnp.shape, state)
        step = jax.jit(lambda state, params: gradtx.step(tx, params, state, params))
        text = step.lower(state, params).compile().as_text()
    assert not re.search(COLLECTIVE, text)
