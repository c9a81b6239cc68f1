"""SOAP, Shampoo and Kron on meshes: few collectives, the same numbers, a state that stays."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import gradtx
from gradtx.core.meshes.partitioned import Division
from gradtx.core.meshes.shares import Share

from .places import P, same_places
from .test_muon import MESHES, assert_close, mesh_of, on, sent, some, step_of

TRANSFORMATIONS: dict[str, Any] = {
    "soap": gradtx.soap(0.1, precondition_frequency=2),
    # With a large eps no root hangs on rounding.
    "shampoo": gradtx.shampoo(0.1, eps=0.1, merge_small_dims=False),
    "kron": gradtx.kron(0.1),
    "procrustes": gradtx.kron(0.1, method="procrustes"),
}
# Five, and two that lie the other way, which fill no mesh; a square one by itself, and a vector.
LEAVES: dict[str, tuple[int, ...]] = {f"w{i}": (8, 16) for i in range(5)} | {
    "x": (16, 8),
    "y": (16, 8),
    "z": (8, 8),
    "b": (8,),
}


@pytest.fixture(autouse=True)
def devices() -> None:
    if len(jax.devices()) < 8:
        pytest.skip("needs eight devices: XLA_FLAGS=--xla_force_host_platform_device_count=8")


def three_steps(name: str, place: Any) -> Any:
    """The parameters after them, the first and the last state, how often a step was compiled."""
    tx, params = TRANSFORMATIONS[name], place(some(LEAVES))
    step, first = step_of(tx), tx.init(params)
    state = first
    for seed in range(1, 4):
        params, state = step(place(some(LEAVES, seed)), state, params)
    return params, first, state, step._cache_size()


@functools.cache
def expected(name: str) -> Any:
    return three_steps(name, lambda tree: tree)[0]


def check(name: str, mesh: Any, spec: Any) -> None:
    vector = P(None) if AxisType.Explicit in mesh.axis_types else P()
    specs = dict.fromkeys(LEAVES, spec) | {"b": vector}
    params, first, last, times = three_steps(name, lambda tree: on(mesh, tree, specs))
    assert_close(params, expected(name), 2e-5)
    assert same_places(last, first) == []
    assert times == 1


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("soap", P(None, "model")),
        pytest.param("shampoo", P("data", "model"), marks=pytest.mark.slow),
        pytest.param("kron", P("model", "data"), marks=pytest.mark.slow),
        pytest.param("procrustes", P(), marks=pytest.mark.slow),
        pytest.param("soap", P(("data", "model")), marks=pytest.mark.slow),
    ],
)
def test_the_numbers_of_one_device(name: str, spec: Any) -> None:
    check(name, mesh_of("2x4"), spec)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_explicit_mode(name: str) -> None:
    check(name, mesh_of("2x4", AxisType.Explicit), P("data", "model"))


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["8", "2x2x2"])
def test_other_meshes(mesh: str) -> None:
    check("soap", mesh_of(mesh), P(*list(MESHES[mesh])[:2]))


@pytest.mark.parametrize(
    ("name", "share"),
    # Of the bytes of the parameters: what goes there and back, an eighth on each device. A matrix
    # of 32 x 64 has two of its size for each axis, 2 (1/2 + 2), and three arrays of its own shape;
    # PSGD one for each axis, and two.
    [("soap", 2.0), ("shampoo", 2.0), ("kron", 1.125)],
)
def test_collectives(name: str, share: float) -> None:
    shapes = {f"w{i}": (32, 64) for i in range(8)}
    params = on(mesh_of("2x4"), some(shapes), dict.fromkeys(shapes, P("data", "model")))
    tx = TRANSFORMATIONS[name]
    program = step_of(tx).lower(params, tx.init(params), params).compile()
    number, size = sent(program.as_text())
    # There and back: for the leaves, and for the matrices, which are divided in another order.
    assert number == 4
    np.testing.assert_allclose(size / (4 * 8 * 32 * 64), share, rtol=1e-6)


@pytest.mark.parametrize("number", [1, 3, 11])
@pytest.mark.parametrize("spec", [P("data", "model"), P(None, ("model", "data")), P()], ids=str)
def test_every_device_gets_its_leaves_whole_and_sends_them_back(number: int, spec: Any) -> None:
    mesh, sizes = mesh_of("2x4"), MESHES["2x4"]
    x = np.arange(number * 8 * 16, dtype=np.float32).reshape(number, 8, 16)
    division = Division.of((8, 16), (8, 16), spec, sizes)
    for k in range(len(sizes) + 1):
        for takers in itertools.combinations(sizes, k):
            share = Share(number, sizes, takers)

            def run(shards: Any, firsts: Any, share: Share = share) -> Any:
                def doubled(wholes: Any, seen: Any) -> Any:
                    (leaves,) = wholes
                    # Zeros fill up the last share.
                    inside = jnp.arange(128.0).reshape(1, 8, 16) * (leaves[:, -1:, -1:] != 0)
                    first = seen[:, None, None]
                    whole = jnp.all(leaves == first + inside)
                    return [jnp.where(whole, 2 * leaves, jnp.nan)]

                made = share.run(doubled, [[leaf] for leaf in shards], list(firsts), [division])
                return [leaf for (leaf,) in made]

            specs = [division.spec] * number
            made = jax.jit(
                jax.shard_map(
                    run,
                    mesh=mesh,
                    in_specs=(specs, [P()] * number),
                    out_specs=specs,
                    check_vma=False,
                )
            )(list(x), [jnp.asarray(leaf[0, 0]) for leaf in x])
            np.testing.assert_array_equal(np.stack(made), 2 * x)


def test_few_leaves_are_not_sent_to_all_of_many_devices() -> None:
    assert Share.best(80, {"data": 64, "model": 16}).takers == ("data",)
    assert Share.best(12, {"data": 2, "model": 4}).takers == ("data", "model")
    assert Share.best(1, {"data": 2, "model": 4}).takers == ()
