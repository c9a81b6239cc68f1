"""Matrices divided among eight devices: the same numbers, and few bytes sent for them."""

import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import gradtx
from gradtx.core.batches import in_batches
from gradtx.core.meshes import partitioned
from gradtx.core.meshes.matrix_plans import NEWTON_SCHULZ, Plan
from gradtx.core.meshes.partitioned import Division
from gradtx.transforms.orthogonal import STANDARD, newton_schulz

P: Any = PartitionSpec  # which JAX leaves untyped
MESHES = {"8": {"data": 8}, "2x4": {"data": 2, "model": 4}, "2x2x2": {"a": 2, "b": 2, "c": 2}}
STACK = gradtx.MuonDimensionNumbers(1, 2)


@pytest.fixture(autouse=True)
def devices() -> None:
    if len(jax.devices()) < 8:
        pytest.skip("needs eight devices: XLA_FLAGS=--xla_force_host_platform_device_count=8")


def mesh_of(name: str, kind: AxisType = AxisType.Auto) -> Mesh:
    sizes = MESHES[name]
    grid = np.asarray(jax.devices()[:8]).reshape(tuple(sizes.values()))
    return Mesh(grid, tuple(sizes), axis_types=(kind,) * len(sizes))


def some(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=s), jnp.float32) for name, s in shapes.items()}


def on(mesh: Mesh, tree: dict[str, Any], specs: dict[str, Any]) -> dict[str, Any]:
    return {k: jax.device_put(x, NamedSharding(mesh, specs[k])) for k, x in tree.items()}


def step_of(tx: Any) -> Any:
    return jax.jit(lambda grads, state, params: gradtx.step(tx, grads, state, params))


def sent(text: str) -> tuple[int, float]:
    """How many collectives a program has, and the bytes of their operands."""
    shapes = dict(re.findall(r"%([\w.\-]+) = (\(.*?\)|\S+) ", text))
    kinds = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
    calls = re.findall(rf" (?:{kinds})(?:-start)?\((.*?)\)", text)
    operands = [shapes[name] for call in calls for name in re.findall(r"%([\w.\-]+)", call)]
    numbers = [re.fullmatch(r"f32\[([\d,]*)\].*", shape) for shape in operands]
    lengths = [[int(n) for n in found[1].split(",") if n] for found in numbers if found]
    assert len(lengths) == len(operands)
    return len(calls), 4.0 * sum(map(int, map(np.prod, lengths)))


# -- what is sent, on 2x4 --------------------------------------------------------------------------

SIDES = (768, 768)
FIGURES = [
    # Of bytes: a matrix goes to one device and back, once in its eight parts; twelve are as many as
    # sixteen.
    ("layers", {f"w{i}": SIDES for i in range(12)}, P("data", "model"), 2, 2 * 16 / 12 / 8),
    ("sixteen", {f"w{i}": (96, 128) for i in range(16)}, P("data", "model"), 2, 2 / 8),
    ("stacked", {"w": (16, 256, 1024)}, P(None, "data", "model"), 2, 2 / 8),
    ("along one", {"w": (16, 256, 1024)}, P(None, None, ("data", "model")), 2, 2 / 8),
    ("tall", {"w": (16, 1024, 256)}, P(None, "model", "data"), 2, 2 / 8),
    # Each half of the devices has eight whole layers; their columns are divided by four.
    ("by layers", {"w": (16, 256, 512)}, P("data", None, "model"), 2, 2 / 8),
    # Copies: each device computes on two, and the results are gathered.
    ("replicated", {"w": (16, 768, 768)}, P(), 1, 1 / 8),
]


@pytest.mark.parametrize(
    ("shapes", "spec", "number", "share"), [f[1:] for f in FIGURES], ids=[f[0] for f in FIGURES]
)
def test_collectives(shapes: Any, spec: Any, number: int, share: float) -> None:
    mesh, specs = mesh_of("2x4"), dict.fromkeys(shapes, spec)
    stacked = len(next(iter(shapes.values()))) == 3
    tx = gradtx.scale_by_muon(weight_dimension_numbers=STACK if stacked else None)
    shaped: Any = jax.ShapeDtypeStruct  # untyped too
    placed = {
        k: shaped(s, jnp.float32, sharding=NamedSharding(mesh, specs[k])) for k, s in shapes.items()
    }
    state = jax.eval_shape(tx.init, placed)._replace(mu=placed)
    program = step_of(tx).lower(placed, state, placed).compile()
    total = sum(4 * np.prod(s) for s in shapes.values())
    found, size = sent(program.as_text())
    assert found == number
    np.testing.assert_allclose(size / total, share, rtol=1e-6)


def test_leaves_divided_differently_are_not_gathered() -> None:
    """Each kind goes to whole matrices and back by itself."""
    shapes = {f"{kind}{i}": (64, 64) for kind in "qo" for i in range(8)}
    specs = {name: P("data", "model") if name[0] == "q" else P("model", "data") for name in shapes}
    params = on(mesh_of("2x4"), some(shapes), specs)
    tx = gradtx.scale_by_muon()
    number, _ = sent(step_of(tx).lower(params, tx.init(params), params).compile().as_text())
    assert number == 4


# -- the same numbers ------------------------------------------------------------------------------


def specs_of(names: Sequence[str]) -> list[Any]:
    """Ways to divide a matrix along axes of a mesh, those with one axis for both sides left out."""
    pairs = itertools.product([None, *names], repeat=2)
    made = [P(*pair) for pair in pairs if pair[0] != pair[1] or pair[0] is None]
    if len(names) > 1:
        made += [P(tuple(names), None), P(None, tuple(names)), P(tuple(names[::-1]), None)]
        made += [P(names[0], tuple(names[1:])), P(None, tuple(names[:0:-1]))]
    return made


CASES = [
    pytest.param(name, spec, marks=[] if name == "2x4" else pytest.mark.slow)
    for name, sizes in MESHES.items()
    for spec in specs_of(tuple(sizes))
]


@functools.cache
def expected(name: str) -> Any:
    tx, params = TRANSFORMATIONS[name], some(LEAVES)
    return step_of(tx)(some(LEAVES, 1), tx.init(params), params)


# Three of a kind, one that lies the other way, and one by itself.
LEAVES: dict[str, tuple[int, ...]] = {
    "a": (16, 32),
    "b": (16, 32),
    "c": (16, 32),
    "t": (32, 16),
    "d": (32, 32),
}
TRANSFORMATIONS: dict[str, Any] = {
    "muon": gradtx.muon(0.1),
    "scale_by_muon": gradtx.scale_by_muon(),
    "spectral": gradtx.scale_by_muon(preconditioning="spectral"),
    "aol": gradtx.scale_by_muon(preconditioning="aol"),
    "schatten": gradtx.scale_by_muon(preconditioning="schatten"),
    "split": gradtx.scale_by_muon(split_outputs={"a|b|c": (8, 24)}),
    "schedule": gradtx.scale_by_muon(beta=gradtx.linear_schedule(0.9, 0.5, 5)),
    "normuon": gradtx.normuon(0.1),
    "mars": gradtx.mars(0.1, mars_type="shampoo"),
    "scion": gradtx.scion(0.1),
    "torch": gradtx.torch.muon(0.1, ns_dtype="float32"),
}


def check(name: str, mesh: Mesh, specs: dict[str, Any]) -> None:
    tx = TRANSFORMATIONS[name]
    params, grads = on(mesh, some(LEAVES), specs), on(mesh, some(LEAVES, 1), specs)
    made = step_of(tx)(grads, tx.init(params), params)
    assert_close(made, expected(name))
    for key, x in made[0].items():
        assert x.sharding.is_equivalent_to(params[key].sharding, x.ndim), key


def assert_close(made: Any, wanted: Any, tolerance: float = 2e-6) -> None:
    for x, y in zip(jax.tree.leaves(made), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("mesh", "spec"), CASES, ids=str)
def test_every_division_of_rows_and_columns(mesh: str, spec: Any) -> None:
    check("scale_by_muon", mesh_of(mesh), dict.fromkeys(LEAVES, spec))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
@pytest.mark.parametrize(
    "name",
    [pytest.param(x, marks=[] if x == "muon" else pytest.mark.slow) for x in TRANSFORMATIONS],
)
def test_every_method(name: str, kind: AxisType) -> None:
    specs = dict.fromkeys(LEAVES, P("data", "model")) | {"b": P("model", None), "d": P()}
    check(name, mesh_of("2x4", kind), specs)


@pytest.mark.parametrize("spec", [P("data"), P("data", None, "model"), P(None, "model", "data")])
def test_stacked_layers(spec: Any) -> None:
    tx = gradtx.scale_by_muon(weight_dimension_numbers=STACK)
    params, grads = some({"w": (6, 16, 32)}), some({"w": (6, 16, 32)}, 1)
    wanted = step_of(tx)(grads, tx.init(params), params)
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = mesh_of("2x4", kind)
        placed = on(mesh, params, {"w": spec}), on(mesh, grads, {"w": spec})
        assert_close(step_of(tx)(placed[1], tx.init(placed[0]), placed[0]), wanted)


# -- transformations of the step -------------------------------------------------------------------


def sum_of_squares(rate: Any, grads: Any, params: Any) -> Any:
    tx = gradtx.muon(rate)
    updates, _ = tx.update(grads, tx.init(params), params)
    return sum(jnp.sum(x**2) for x in jax.tree.leaves(updates))


@pytest.mark.parametrize(
    "transform",
    [
        lambda f: jax.grad(f, argnums=(0, 1)),
        lambda f: lambda r, g, p: jax.vmap(f, (0, None, None))(r * jnp.arange(3.0), g, p),
        lambda f: (
            lambda r, g, p: jax.vmap(lambda s: f(r, jax.tree.map(lambda x: s * x, g), p))(
                jnp.arange(1.0, 4)
            )
        ),
        lambda f: (
            lambda r, g, p: lax.scan(lambda c, s: (c + f(s * r, g, p), None), 0.0, jnp.arange(3.0))[
                0
            ]
        ),
    ],
    ids=["grad", "vmap of rates", "vmap of gradients", "scan"],
)
def test_under_transformations(transform: Any) -> None:
    function = jax.jit(transform(sum_of_squares))
    specs, mesh = dict.fromkeys(LEAVES, P("data", "model")), mesh_of("2x4")
    params, grads = some(LEAVES), some(LEAVES, 1)
    made = function(0.1, on(mesh, grads, specs), on(mesh, params, specs))
    assert_close(made, function(0.1, grads, params), 2e-5)


@pytest.mark.slow
def test_an_eager_step_is_the_same() -> None:
    tx, specs = gradtx.scale_by_muon(), dict.fromkeys(LEAVES, P("data", "model"))
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = mesh_of("2x4", kind)
        params, grads = on(mesh, some(LEAVES), specs), on(mesh, some(LEAVES, 1), specs)
        made = gradtx.step(tx, grads, tx.init(params), params)
        assert_close(made, expected("scale_by_muon"))


def test_one_device_of_a_host_with_many_has_the_plain_program() -> None:
    tx, params = gradtx.scale_by_muon(), some(LEAVES)
    text = str(jax.make_jaxpr(tx.update)(params, tx.init(params)))
    assert "custom_partitioning" not in text
    assert "shard_map" not in text


# -- plans, also those that are never the best for small matrices ----------------------------------

ROLES = ("matrices", "columns", "none")
DIVISIONS = [
    Division([(), ("data",), ("model",)]),
    Division([(), ("model",), ("data",)]),
    Division([(), ("data", "model"), ()]),
    Division([(), (), ("model", "data")]),
    Division([(), ("model",), ()]),
    Division([(), (), ()]),
]


@pytest.mark.parametrize("roles", list(itertools.product(ROLES, ROLES)), ids="-".join)
def test_every_plan_computes_the_same(roles: Any) -> None:
    mesh, sizes = mesh_of("2x4"), MESHES["2x4"]
    x = some({"x": (8, 16, 32)})["x"]
    wanted = newton_schulz(x, (STANDARD,) * 5, "frobenius", 1e-8)
    for division in DIVISIONS:
        plan = Plan.of(division, sizes, dict(zip(sizes, roles, strict=True)))

        def run(shard: Any, plan: Plan = plan) -> Any:
            return plan.back(
                newton_schulz(plan.there(shard), (STANDARD,) * 5, "frobenius", 1e-8, over=plan.over)
            )

        made = jax.jit(
            jax.shard_map(
                run, mesh=mesh, in_specs=division.spec, out_specs=division.spec, check_vma=False
            )
        )(x)
        np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=2e-6)


def test_few_large_matrices_are_divided_by_columns() -> None:
    """As 80 layers of Llama 70B on 64 x 16 devices: no device has a whole one."""
    sizes = {"data": 64, "model": 16}
    division = Division([(), ("data",), ("model",)])
    plan = Plan.best(division, sizes, 80, (8192, 28672), NEWTON_SCHULZ)
    assert (plan.exchanged, plan.over, plan.takers) == (("data",), ("model",), 64)
    plan = Plan.best(Division([(), ("model",), ("data",)]), sizes, 80, (8192, 28672), NEWTON_SCHULZ)
    assert (plan.exchanged, plan.over) == (("data",), ("model",))


# -- where XLA does not say how arrays are divided, as on TPU --------------------------------------


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_tpu(*operands: Any, tpu: Any, default: Any) -> Any:
        return tpu(*operands)

    monkeypatch.setattr(partitioned, "lax", SimpleNamespace(platform_dependent=on_tpu))


@pytest.mark.usefixtures("unseen")
@pytest.mark.parametrize(
    "spec", [P("data", "model"), P("model", "data"), P(("data", "model"), None)], ids=str
)
def test_unseen_divisions_take_an_exchange_for_each_axis(spec: Any) -> None:
    shapes, mesh = {f"w{i}": (96, 128) for i in range(16)}, mesh_of("2x4")
    params = on(mesh, some(shapes), dict.fromkeys(shapes, spec))
    tx = gradtx.scale_by_muon()
    program = step_of(tx).lower(params, tx.init(params), params).compile()
    number, size = sent(program.as_text())
    assert number == 4
    np.testing.assert_allclose(size / (4 * 16 * 96 * 128), 4 / 8, rtol=1e-6)


@pytest.mark.usefixtures("unseen")
@pytest.mark.parametrize("mesh", MESHES)
def test_unseen_divisions_give_the_same_numbers(mesh: str) -> None:
    for spec in specs_of(tuple(MESHES[mesh]))[::3]:
        check("scale_by_muon", mesh_of(mesh), dict.fromkeys(LEAVES, spec))


# -- decompositions --------------------------------------------------------------------------------


def test_decompositions_are_divided_among_devices() -> None:
    """Each device decomposes one of eight; what is not of the matrix's shape is not divided."""
    rng = np.random.default_rng(0)
    x = [(lambda a: a + a.T)(rng.normal(size=(1, 32, 32))[0])[None] for _ in range(8)]
    matrices = [jnp.asarray(m, jnp.float32) for m in x]

    def decompose(x: jax.Array) -> jax.Array:
        values, vectors = jnp.linalg.eigh(x)
        return jnp.concatenate([vectors, values[:, :, None]], axis=2)

    mesh = mesh_of("2x4")
    placed = [jax.device_put(m, NamedSharding(mesh, P(None, "data", None))) for m in matrices]
    made = jax.jit(lambda x: in_batches(decompose, x))(placed)
    for given, found in zip(x, made, strict=True):
        assert found is not None
        vectors, values = np.asarray(found[0, :, :-1]), np.asarray(found[0, :, -1])
        np.testing.assert_allclose(vectors * values @ vectors.T, given[0], atol=2e-5)
