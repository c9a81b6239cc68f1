"""Transformations that are told how the parameters lie: as a TPU runs them, and all else as it was.

XLA for TPU does not say how arrays are divided. Here the form for it runs on CPU.
"""

import itertools
import pickle
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding

import gradtx
from gradtx.core.leaves import Leaves
from gradtx.core.meshes import partitioned
from gradtx.core.meshes.told import telling, telling_types, told
from gradtx.sharding import collectives, on_mesh, zero
from gradtx.sharding.traffic import by_kind
from gradtx.transforms.matrix_axes import Axes, Layout

from .places import P, same_places
from .test_muon import assert_close, mesh_of, on, sent, some, step_of
from .test_shares import TRANSFORMATIONS as FACTORED

KINDS = [AxisType.Auto, AxisType.Explicit]


@pytest.fixture(autouse=True)
def devices() -> None:
    if len(jax.devices()) < 8:
        pytest.skip("needs eight devices: XLA_FLAGS=--xla_force_host_platform_device_count=8")


@pytest.fixture
def as_on_tpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_tpu(*operands: Any, tpu: Any, default: Any) -> Any:
        return tpu(*operands)

    monkeypatch.setattr(partitioned, "lax", SimpleNamespace(platform_dependent=on_tpu))


def knowing(tx: Any, params: Any) -> Any:
    """The transformation, told where types do not say it."""
    (mesh,) = {x.sharding.mesh for x in params.values()}
    return tx if AxisType.Explicit in mesh.axis_types else on_mesh(tx, params)


# -- who is told what ------------------------------------------------------------------------------


def test_it_is_told_by_path_and_shape() -> None:
    tree = {"a": jnp.ones((2, 3)), "b": None, "c": {"d": jnp.ones(4)}}
    leaves = Leaves.of(tree)
    assert told(leaves) == [None] * 3
    with telling(leaves, [P("x"), None, P()]):
        assert told(leaves) == [P("x"), None, P()]
        other = {"a": jnp.ones((3, 2)), "c": {"d": jnp.ones(4)}, "e": jnp.ones((2, 3))}
        assert told(Leaves.of(other)) == [None, P(), None]
        with telling(Leaves.of(other), [P("y"), None, None]):
            assert told(Leaves.of(other)) == [P("y"), None, None]
        assert told(leaves)[0] == P("x")
    assert told(leaves) == [None] * 3
    with pytest.raises(ZeroDivisionError), telling(leaves, [P("x"), None, None]):
        _ = 1 / 0
    assert told(leaves) == [None] * 3


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_types_tell_of_explicit_axes_alone(kind: AxisType) -> None:
    params = on(mesh_of("2x4", kind), some({"w": (8, 8)}), {"w": P(None, "model")})
    with telling_types(params):
        assert told(Leaves.of(params)) == [P(None, "model") if kind == KINDS[1] else None]


@pytest.mark.parametrize(
    ("shape", "axes", "spec", "expected"),
    [
        ((4, 8), Axes(), P("x", "y"), P(None, "x", "y")),
        ((4, 8), Axes((1,), (0,)), P("x", "y"), P(None, "y", "x")),
        ((6, 4, 8), Axes((1,), (2,)), P("z", None, ("x", "y")), P("z", None, ("x", "y"))),
        ((4, 6, 8), Axes((0,), (1, 2)), P(None, "x"), P(None, None, "x")),
        # Pieces of what divides the second of two axes are in many places of the one they become.
        ((4, 6, 8), Axes((0,), (1, 2)), P("x", None, "y"), P(None, "x", None)),
        ((4, 1, 8), Axes((0,), (1, 2)), P("x", None, "y"), P(None, "x", "y")),
        ((8,), Axes((0,), ()), P("x"), P(None, "x", None)),
    ],
)
def test_how_matrices_of_a_divided_array_are_divided(
    shape: tuple[int, ...], axes: Axes, spec: Any, expected: Any
) -> None:
    layout = Layout.of(shape, axes, "test", "w")
    assert layout.divided(spec) == expected
    assert layout.split(jnp.ones(shape)).shape == (layout.batch, layout.rows, layout.columns)


# -- as a TPU runs it ------------------------------------------------------------------------------

STACK = gradtx.MuonDimensionNumbers(1, 2)
SPECS = [
    P(None, "data", "model"),
    P(None, "model", "data"),
    P(None, ("data", "model"), None),
    P("data", None, "model"),
]


def program(tx: Any, params: Any) -> str:
    state = tx.init(params)
    text: str = step_of(tx).lower(params, state, params).compile().as_text()
    return text


@pytest.mark.usefixtures("as_on_tpu")
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_muon_exchanges_matrices_as_they_lie(kind: AxisType) -> None:
    """Two of one shape that lie differently, each there and back, an eighth of it on a device."""
    shapes = {"q": (16, 64, 96), "o": (16, 64, 96)}
    for one, other in itertools.pairwise(SPECS):
        params = on(mesh_of("2x4", kind), some(shapes), {"q": one, "o": other})
        tx = knowing(gradtx.scale_by_muon(weight_dimension_numbers=STACK), params)
        number, size = sent(program(tx, params))
        assert number == 4
        np.testing.assert_allclose(size / (4 * 2 * 16 * 64 * 96), 2 / 8, rtol=1e-6)


@pytest.mark.usefixtures("as_on_tpu")
def test_torchs_muon_exchanges_matrices_as_they_lie() -> None:
    shapes = {f"w{i}": (64, 32) for i in range(8)}
    params = on(mesh_of("2x4"), some(shapes), dict.fromkeys(shapes, P("model", "data")))
    number, size = sent(
        program(on_mesh(gradtx.torch.muon(0.1, ns_dtype="float32"), params), params)
    )
    assert number == 2
    np.testing.assert_allclose(size / (4 * 8 * 64 * 32), 2 / 8, rtol=1e-6)


@pytest.mark.usefixtures("as_on_tpu")
def test_what_zero_spreads_is_exchanged_as_it_lies() -> None:
    """There and back between all devices; the parameters are gathered along `data` at the end."""
    shapes = {f"w{i}": (64, 96) for i in range(8)}
    params = on(mesh_of("2x4"), some(shapes), dict.fromkeys(shapes, P(None, "model")))
    text = program(zero(gradtx.scale_by_muon(), params), params)
    kinds = [line for line in text.splitlines() if " all-to-all(" in line]
    gathers = [line for line in text.splitlines() if " all-gather(" in line]
    assert (len(kinds), len(gathers)) == (2, 8)


@pytest.mark.usefixtures("as_on_tpu")
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(
    ("name", "share"),
    # As on CPU: see test_shares.
    [
        ("shampoo", 2.0),
        pytest.param("soap", 2.0, marks=pytest.mark.slow),
        pytest.param("kron", 1.125, marks=pytest.mark.slow),
    ],
)
def test_factors_are_exchanged_as_they_lie(name: str, share: float, kind: AxisType) -> None:
    shapes = {f"w{i}": (32, 64) for i in range(8)}
    params = on(mesh_of("2x4", kind), some(shapes), dict.fromkeys(shapes, P("data", "model")))
    number, size = sent(program(knowing(FACTORED[name], params), params))
    assert number == 4
    np.testing.assert_allclose(size / (4 * 8 * 32 * 64), share, rtol=1e-6)


LEAVES: dict[str, tuple[int, ...]] = {
    **{"a": (16, 32), "b": (16, 32), "c": (16, 32), "t": (32, 16), "d": (32, 32), "v": (32,)}
}
WHERE = {
    **{"a": P("data", "model"), "b": P("model", "data"), "c": P(), "t": P(None, "model")},
    **{"d": P(("data", "model")), "v": P("model")},
}


def where(kind: AxisType) -> dict[str, Any]:
    """As types spell it, which name every axis."""
    if kind == AxisType.Auto:
        return WHERE
    return {k: P(*spec, *[None] * (len(LEAVES[k]) - len(spec))) for k, spec in WHERE.items()}


MADE: dict[str, Any] = {
    **FACTORED,
    "muon": gradtx.muon(0.1),
    "two of a sort": gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.muon(0.1)),
    "accumulating": gradtx.accumulate(gradtx.muon(0.1), 2),
    "split": gradtx.muon(0.1, split_outputs={"a|b|c": (8, 24)}),
    "few bits": gradtx.store(gradtx.muon(0.1), "bfloat16"),
    "torch": gradtx.partition(
        {"v": gradtx.sgd(0.1), ".*": gradtx.torch.muon(0.1, ns_dtype="float32")}
    ),
}


def trained(tx: Any, place: Any, steps: int = 2) -> Any:
    params = place(some(LEAVES))
    state, step = tx.init(params), step_of(tx)
    for seed in range(1, steps + 1):
        params, state = step(place(some(LEAVES, seed)), state, params)
    assert step._cache_size() == 1
    return params, state


@pytest.mark.usefixtures("as_on_tpu")
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(
    "name",
    [pytest.param(x, marks=[] if x == "muon" else pytest.mark.slow) for x in MADE],
)
def test_the_numbers_of_one_device(name: str, kind: AxisType) -> None:
    def place(tree: Any) -> Any:
        return on(mesh_of("2x4", kind), tree, where(kind))

    tx = MADE[name]
    got, state = trained(knowing(tx, place(some(LEAVES))), place)
    assert_close(got, trained(tx, lambda tree: tree)[0], 2e-2 if name == "few bits" else 5e-5)
    assert same_places(got, place(some(LEAVES))) == []
    assert same_places(state, tx.init(place(some(LEAVES)))) == []


@pytest.mark.usefixtures("as_on_tpu")
def test_a_wrong_word_costs_time_and_no_digit() -> None:
    shapes = {"a": (16, 32), "b": (16, 32)}
    params = on(mesh_of("2x4"), some(shapes), dict.fromkeys(shapes, P("model", "data")))
    plain = gradtx.scale_by_muon()
    tx = on_mesh(plain, {"a": P("data", "model"), "b": P(None, "model")})
    got = step_of(tx)(params, plain.init(params), params)[0]
    params = some(shapes)
    assert_close(got, step_of(plain)(params, plain.init(params), params)[0])


@pytest.mark.usefixtures("as_on_tpu")
@pytest.mark.parametrize("form", ["vmap", "grad", "scan"])
def test_under_transformations(form: str) -> None:
    def loss(rate: Any, grads: Any, params: Any) -> Any:
        tx = on_mesh(gradtx.scale_by_muon(beta=rate), WHERE_OF_TWO)
        updates, _ = tx.update(grads, tx.init(params), params)
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(updates))

    def run(grads: Any, params: Any) -> Any:
        if form == "vmap":
            return jax.vmap(loss, (0, None, None))(jnp.array([0.5, 0.9]), grads, params)
        if form == "grad":
            return jax.grad(loss, argnums=(0, 1))(0.9, grads, params)
        return jax.lax.scan(lambda c, r: (c + loss(r, grads, params), None), 0.0, jnp.ones(2) / 2)

    grads, params = some(TWO, 1), some(TWO)
    mesh = mesh_of("2x4")
    made = jax.jit(run)(on(mesh, grads, WHERE_OF_TWO), on(mesh, params, WHERE_OF_TWO))
    assert_close(made, jax.jit(run)(grads, params), 2e-5)


TWO = {"a": (16, 32), "b": (16, 32)}
WHERE_OF_TWO = {"a": P("data", "model"), "b": P("model", None)}


# -- elsewhere nothing changes ---------------------------------------------------------------------

AROUND: dict[str, tuple[Any, str]] = {
    "muon": (gradtx.muon(0.1), "float32"),
    "of Optax": (optax.adamw(0.1), "bfloat16"),
    "rounding": (gradtx.chain(gradtx.adamw(0.1), gradtx.stochastic_rounding()), "bfloat16"),
    "kahan": (gradtx.chain(gradtx.adamw(0.1), gradtx.kahan()), "bfloat16"),
}


@pytest.mark.parametrize("divided", [True, False], ids=["mesh", "one device"])
@pytest.mark.parametrize("name", AROUND)
def test_the_bits_of_the_inner_one(name: str, divided: bool) -> None:
    inner, dtype = AROUND[name]
    plain = gradtx.chain(inner)

    def place(tree: Any) -> Any:
        narrow = jax.tree.map(lambda x: x.astype(dtype), tree)
        return on(mesh_of("2x4"), narrow, WHERE) if divided else narrow

    params, grads = place(some(LEAVES)), place(some(LEAVES, 1))
    results = []
    for tx in (on_mesh(plain, on(mesh_of("2x4"), some(LEAVES), WHERE)), plain):
        state = tx.init(params)
        results.append(
            (step_of(tx)(grads, state, params), jax.jit(tx.update)(grads, state, params))
        )
    mine, theirs = results
    structure: Any = jax.tree.structure(mine)
    assert structure == jax.tree.structure(theirs)
    for x, y in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x, np.float32), np.asarray(y, np.float32))
    assert same_places(mine, theirs) == []


def test_a_program_for_cpu_moves_no_byte_more() -> None:
    params = on(mesh_of("2x4"), some(LEAVES), WHERE)
    plain = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.muon(0.1))
    figures = []
    for tx in (on_mesh(plain, params), plain):
        compiled = step_of(tx).lower(params, tx.init(params), params).compile()
        figures.append(
            (
                compiled.cost_analysis()["bytes accessed"],
                compiled.memory_analysis().temp_size_in_bytes,
                by_kind(collectives(compiled.as_text())),
            )
        )
    assert figures[0] == figures[1]


def test_it_is_a_value() -> None:
    params = on(mesh_of("2x4"), some(LEAVES), WHERE)
    tx = on_mesh(gradtx.adamw(1e-3), params)
    specs: dict[str, Any] = {
        "a": ("data", "model"),
        "b": ("model", "data"),
        "d": (("data", "model"),),
    }
    specs |= {"t": (None, "model"), "v": ("model",)}
    assert tx.params == specs
    same = on_mesh(gradtx.adamw(1e-3), jax.tree.map(lambda x: x.sharding, params))
    assert tx == same == pickle.loads(pickle.dumps(tx)) == gradtx.from_config(tx.to_config())
    assert tx == eval(repr(tx), {"sharding": gradtx.sharding, "adamw": gradtx.adamw})
    assert on_mesh(gradtx.adamw(1e-3), mesh_of("2x4")).params == {}
    found = gradtx.sharding.state_shardings(tx, params)
    assert found == gradtx.sharding.state_shardings(gradtx.adamw(1e-3), params)


# -- bad input -------------------------------------------------------------------------------------


def test_parameters_that_lie_otherwise() -> None:
    mesh = mesh_of("2x4")
    params = on(mesh, some({"w": (8, 16)}), {"w": P("data", None)})
    with pytest.raises(ValueError, match=r"sharding.on_mesh: at w: float32\[8,16\] is divided as"):
        on_mesh(gradtx.sgd(0.1), {"w": P("model")}).init(params)
    with pytest.raises(ValueError, match=r"at w: .* names 'rows', which is no axis of the mesh"):
        jax.jit(on_mesh(gradtx.sgd(0.1), {"w": P("rows")}).init)(params)
    with pytest.raises(TypeError, match=r"on_mesh: params: at w: float32\[8,16\] lies on one dev"):
        on_mesh(gradtx.sgd(0.1), {"w": jnp.ones((8, 16))})
    odd = on(mesh, some({"w": (6, 16)}), {"w": P()})
    tx, state = on_mesh(gradtx.sgd(0.1), {"w": P("model")}), gradtx.sgd(0.1).init(odd)
    with pytest.raises(ValueError, match="cuts axis 0 into 4 parts, which do not divide 6"):
        jax.jit(tx.update)(odd, state, odd)


def test_examples_lie_as_they_do() -> None:
    """The gradients of single examples have an axis more than the parameters."""
    params = on(mesh_of("2x4"), some({"w": (8, 16)}), {"w": P("data", "model")})
    tx = gradtx.differentially_private_aggregate(1.0, 0.0, 0)
    grads = {"w": jax.device_put(jnp.ones((4, 8, 16)), NamedSharding(mesh_of("2x4"), P()))}
    told_, plain = on_mesh(tx, params), tx
    for given in (params, None):
        made = jax.jit(told_.update)(grads, told_.init(params), given)
        assert_close(made, jax.jit(plain.update)(grads, plain.init(params), given))
