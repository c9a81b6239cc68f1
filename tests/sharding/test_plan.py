"""What a plan says is what is there: bytes of arrays on devices, collectives of a program."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, NamedSharding, SingleDeviceSharding

import gradtx
from gradtx.demo.plans import mebibytes
from gradtx.sharding import Collective, collectives, models, plan
from gradtx.sharding.traffic import by_kind

from .places import P, mesh_of, placed

SPECS = {"w": P("data", "model"), "b": P("model"), "s": P()}


def on_one_device(tree: Any) -> int:
    """The bytes that the first device holds of arrays."""
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("tx", [gradtx.adamw(0.1), optax.adamw(0.1), gradtx.adafactor(0.1)])
def test_bytes_are_those_of_the_arrays(tx: Any) -> None:
    params = placed(mesh_of("2x4"), SPECS)
    made = plan(tx, params)
    assert (made.params, made.grads) == (on_one_device(params),) * 2
    state = gradtx.sharding.init(tx, params)
    assert made.state == on_one_device(state)
    assert made.count == sum(x.size for x in jax.tree.leaves(params))
    assert made.total == made.params + made.grads + made.state
    assert made.temporary is made.collectives is made.exchanged is None


def test_state_spread_over_an_axis() -> None:
    params = placed(mesh_of("8"), {"w": P(), "b": P(), "s": P()})
    whole, spread = (plan(gradtx.sgd(0.1, momentum=0.9), params, zero=z) for z in (None, "data"))
    assert whole.state == 4 * (8 * 16 + 16 + 1)
    assert spread.state == 4 * (16 + 2 + 1)


def test_no_device_is_needed() -> None:
    mesh = AbstractMesh((64, 16), ("data", "model"))
    made = plan(gradtx.adamw(1e-3), models.parameters("llama-70b", mesh))
    # The vectors are on every device.
    vectors = 80 * 8192 * 2 + 8192
    count = (70_553_706_496 - vectors) // 1024 + vectors
    assert (made.params, made.state) == (4 * count, 8 * count + 4)


@pytest.mark.parametrize(
    ("model", "published"),
    [
        ("llama-1b", 1_235_814_400),
        ("llama-8b", 8_030_261_248),
        ("llama-70b", 70_553_706_496),
        ("llama-405b", 405_853_388_800),
    ],
)
def test_models_have_their_published_sizes(model: str, published: int) -> None:
    assert models.size(model) == published


def test_layouts() -> None:
    mesh = AbstractMesh((2, 4), ("data", "model"))
    laid = {layout: models.parameters("llama-1b", mesh, layout) for layout in models.LAYOUTS}
    assert {name: own["mlp/up"].sharding.spec for name, own in laid.items()} == {
        "replicated": P(None, None, None),
        "tensor": P(None, None, "model"),
        "full": P(None, "data", "model"),
    }
    assert laid["full"]["mlp/down"].sharding.spec == P(None, "model", "data")
    matrices = models.MODELS["llama-1b"].matrices()
    muon = gradtx.muon(0.1, muon_weight_dimension_numbers=matrices)
    state = jax.eval_shape(muon.init, laid["full"])
    orthogonal = jax.tree.leaves(state.inner_states["muon"].inner_state[0].mu)
    assert sorted(x.shape for x in orthogonal) == sorted(
        x.shape for x in laid["full"].values() if len(x.shape) == 3
    )


def test_collectives_of_a_program() -> None:
    mesh = mesh_of("8")

    @jax.jit
    def program(x: Any, y: Any) -> Any:
        gathered = jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P()))
        return gathered * 2, jnp.sum(y)

    rows = NamedSharding(mesh, P("data"))
    x = jax.device_put(jnp.ones((8, 32)), rows)
    y = jax.device_put(jnp.ones((16, 4), jnp.bfloat16), rows)
    found = collectives(program.lower(x, y).compile().as_text())
    assert by_kind(found) == {"all-gather": (1, 8 * 32 * 4), "all-reduce": (1, 4)}


def test_collectives_in_two_parts_count_once() -> None:
    text = """
  %p = f32[4,8]{1,0} parameter(0)
  %s = (f32[4,8]{1,0}, f32[32,8]{1,0}) all-gather-start(%p), dimensions={0}
  %d = f32[32,8]{1,0} all-gather-done(%s)
  %r = bf16[1,8]{1,0} reduce-scatter(%x), to_apply=%add
  %x = bf16[8,8]{1,0} convert(%p)
  ROOT %a = (s4[3]{0}, pred[2]{0}) all-reduce(%u, %v), to_apply=%add
"""
    assert collectives(text) == [
        Collective("all-gather", 32 * 8 * 4),
        Collective("reduce-scatter", 8 * 8 * 2),
        Collective("all-reduce", 4),
    ]


def struct(mesh: Any, spec: Any) -> Any:
    return jax.ShapeDtypeStruct((8, 8), jnp.float32, sharding=NamedSharding(mesh, spec))


def test_what_cannot_be_planned_is_refused() -> None:
    mesh, other = AbstractMesh((8,), ("data",)), AbstractMesh((4,), ("data",))
    tx = gradtx.sgd(0.1)
    one = jax.ShapeDtypeStruct((2,), "float32", sharding=SingleDeviceSharding(jax.devices()[0]))
    with pytest.raises(TypeError, match="plan: at a/w"):
        plan(tx, {"a": {"w": one}})
    with pytest.raises(ValueError, match=r"plan: .*mesh"):
        plan(tx, {"a": struct(mesh, P()), "b": struct(other, P())})
    with pytest.raises(ValueError, match="no target 'a100'"):
        plan(tx, struct(mesh, P()), target="a100")
    with pytest.raises(ValueError, match=r"has 1 device, the mesh .* has 8"):
        plan(tx, struct(mesh, P()), target="cpu")
    with pytest.raises(ValueError, match="no model 'llama-2b'; there are llama-1b, llama-8b"):
        models.parameters("llama-2b", mesh)
    with pytest.raises(ValueError, match="no layout 'fsdp'; there are replicated, tensor"):
        models.parameters("llama-1b", mesh, "fsdp")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"embed of .*: the axis 'data' of 3 devices does not"):
        models.parameters("llama-1b", AbstractMesh((3,), ("data",)))


def test_sizes_as_they_are_shown() -> None:
    sizes = np.array([0, 1e-4, 0.26, 9.94, 10.4, 1071.3]) * 2**20
    shown = ["0", "<0.1", "0.3", "9.9", "10", "1,071"]
    assert [mebibytes(int(size)) for size in sizes] == shown
