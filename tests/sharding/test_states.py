"""Where states lie, as it is said and as it is."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding

import gradtx
from gradtx.sharding import state_shardings

from .places import SPECS, P, abstract, mesh_of, placed, same_places

shape_of: Any = jax.ShapeDtypeStruct

OPTAX = {
    "adamw": lambda: optax.adamw(1e-3),
    "adafactor": lambda: optax.adafactor(1e-3, min_dim_size_to_factor=4),
    "sm3": lambda: optax.sm3(0.1),
    "lbfgs": lambda: optax.lbfgs(),
    "muon": lambda: optax.contrib.muon(1e-3),
    "masked": lambda: optax.masked(optax.adam(1e-3), {"w": True, "b": False, "s": True}),
}


@pytest.mark.parametrize("name", OPTAX)
def test_of_optax(name: str) -> None:
    """Moments where the parameters are, what has fewer axes at its rank, counts everywhere."""
    params, tx = placed(mesh_of("2x4"), SPECS["2x4"]), OPTAX[name]()
    found = state_shardings(tx, params)
    state = tx.init(params)
    assert str(jax.tree.structure(found)) == str(jax.tree.structure(state))
    for where, x in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
        assert isinstance(where, NamedSharding)
        assert len(where.spec) <= jnp.ndim(x)
        if jnp.shape(x) == (8, 16):
            assert where.spec == P("data", "model")
    made = jax.jit(tx.init, out_shardings=found)(params)
    assert same_places(made, found) == []


@pytest.mark.parametrize("mesh", SPECS)
def test_it_is_where_init_puts_it(mesh: str) -> None:
    params = placed(mesh_of(mesh), SPECS[mesh])
    for tx in (
        gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3)),
        gradtx.adafactor(1e-3, min_dim_size_to_factor=4),
        gradtx.sm3(0.1),
        gradtx.muon(1e-3),
        gradtx.flatten(gradtx.adam(1e-3)),
    ):
        assert same_places(tx.init(params), state_shardings(tx, params)) == [], tx


def test_shapes_on_a_machine_that_is_not_there() -> None:
    mesh = abstract(mesh_of("2x4"))
    shape = shape_of((8, 16), jnp.bfloat16, sharding=NamedSharding(mesh, P("model")))
    found = state_shardings(gradtx.adamw(1e-3), {"w": shape, "gone": None})
    assert found[0].nu["w"].mesh == mesh
    assert tuple(found[0].nu["w"].spec)[:1] == ("model",)
    assert found[0].nu["gone"] is None


def test_shardings_beside_shapes() -> None:
    mesh = mesh_of("2x4")
    shapes = {"w": shape_of((8, 16), jnp.float32)}
    found = state_shardings(gradtx.adamw(1e-3), shapes, {"w": NamedSharding(mesh, P(None, "data"))})
    assert found[0].mu["w"].spec == P(None, "data")


def refused() -> Any:
    mesh = mesh_of("2x4")
    where, ones = NamedSharding(mesh, P("data")), jnp.ones((8, 16))
    wide = NamedSharding(mesh, P("data", None, None))
    return {
        "on one device": (({"a": {"w": ones}},), "at a/w: float32[8,16] lies on one device"),
        "no sharding": (({"w": 1.0},), "at w: 1.0 (float) has no sharding"),
        "another tree": (({"w": ones}, {"v": where}), "shardings and params differ in structure"),
        "no sharding given": (({"w": ones}, {"w": P("data")}), "which is no NamedSharding"),
        "too long": (({"w": ones}, {"w": wide}), "is of 3 axes, and the array has 2"),
        "not divided": (({"w": jnp.ones((7, 4))}, {"w": where}), "do not divide 7"),
        "nothing": (({},), "there are no params"),
        "two meshes": (
            ({"v": ones, "w": ones}, {"v": where, "w": NamedSharding(mesh_of("8"), P())}),
            "at w: the mesh is (data=8), and at v it is (data=2, model=4)",
        ),
    }


@pytest.mark.parametrize("case", refused())
def test_what_does_not_fit_is_refused(case: str) -> None:
    given, message = refused()[case]
    with pytest.raises((TypeError, ValueError), match=re.escape(message)) as raised:
        state_shardings(gradtx.adam(1e-3), *given)
    assert str(raised.value).startswith("state_shardings: ")


@pytest.mark.parametrize("compiled", [False, True])
def test_a_mesh_of_one_device_is_a_mesh(compiled: bool) -> None:
    """To `jit` it is another place than the device, for which the second step would be compiled."""
    mesh = Mesh(np.asarray(jax.devices()[:1]), ("data",))
    params = placed(mesh, {name: P() for name in SPECS["8"]})
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adafactor(1e-2))
    state = (jax.jit(tx.init) if compiled else tx.init)(params)
    step: Any = jax.jit(lambda state, params: gradtx.step(tx, params, state, params))
    for _ in range(2):
        params, state = step(state, params)
    assert step._cache_size() == 1
