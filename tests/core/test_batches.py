"""Equal shapes as one batch: the same numbers, in fewer products."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.core import batches
from gradtx.core.batches import in_batches
from gradtx.core.rule import Rule


@gradtx.per_tree
def rotate(*, batched: bool = True) -> Any:
    """u = g g^T g"""

    def cubed(x: jax.Array) -> jax.Array:
        return x @ x.mT @ x

    def update(updates: Any) -> Any:
        leaves, treedef = jax.tree.flatten(updates)
        stacks = [x[None] for x in leaves]
        made: Any = in_batches(cubed, stacks) if batched else list(map(cubed, stacks))
        return treedef.unflatten([x[0] for x in made])

    return Rule(None, update)


SHAPES = {"a": (20, 30), "b": (20, 30), "c": (20, 20), "d": (20, 30), "e": (20, 20)}


@pytest.fixture
def matrices() -> dict[str, jax.Array]:
    keys = jax.random.split(jax.random.key(0), len(SHAPES))
    return {k: jax.random.normal(key, s) for (k, s), key in zip(SHAPES.items(), keys, strict=True)}


def test_a_batch_computes_the_same(matrices: dict[str, jax.Array]) -> None:
    updates, _ = rotate().update(matrices, rotate().init(matrices))
    for name, x in matrices.items():
        g = np.asarray(x, np.float64)
        np.testing.assert_allclose(updates[name], g @ g.T @ g, rtol=1e-4, atol=1e-4)


def test_equal_shapes_are_one_product(matrices: dict[str, jax.Array]) -> None:
    def products(tx: Any) -> int:
        step = jax.jit(lambda p: tx.update(p, tx.init(p), p)[0])
        return step.lower(matrices).compile().as_text().count(" dot(")

    assert products(rotate(batched=False)) == 2 * 5
    assert products(rotate()) == 2 * 2


def test_a_batch_has_no_more_than_the_largest_number_of_elements(
    matrices: dict[str, jax.Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = []

    def doubled(x: jax.Array) -> jax.Array:
        lengths.append(x.shape)
        return 2 * x

    monkeypatch.setattr(batches, "LARGEST", 1200)  # two of the three matrices of 600 elements
    stacks = [x[None] for x in matrices.values()]
    for x, made in zip(stacks, in_batches(doubled, stacks), strict=True):
        np.testing.assert_array_equal(made, 2 * x)
    assert lengths == [(2, 20, 30), (1, 20, 30), (2, 20, 20)]
    lengths.clear()
    monkeypatch.setattr(batches, "LARGEST", 100)  # less than one
    in_batches(doubled, stacks)
    assert len(lengths) == len(stacks)


def test_masked_and_absent_leaves_do_not_join_a_batch(matrices: dict[str, jax.Array]) -> None:
    tx = gradtx.masked(rotate(), {"a": True, "b": False, "c": True, "d": True, "e": True})
    grads = matrices | {"e": None}
    updates, _ = tx.update(grads, tx.init(grads), matrices)
    alone, _ = rotate().update(matrices, rotate().init(matrices))
    np.testing.assert_array_equal(updates["b"], matrices["b"])
    assert updates["e"] is None
    for name in "acd":
        np.testing.assert_allclose(updates[name], alone[name], rtol=1e-5, atol=1e-4)


def test_operands_may_hold_several_and_none() -> None:
    operands = [jnp.ones((2, 3)), None, jnp.zeros((0, 3)), 2 * jnp.ones((1, 3)), jnp.ones((1, 4))]
    calls = []

    def double(x: jax.Array) -> jax.Array:
        calls.append(x.shape)
        return 2 * x

    made = in_batches(double, operands)
    assert calls == [(3, 3), (1, 4)]
    assert [None if x is None else x.shape for x in made] == [(2, 3), None, (0, 3), (1, 3), (1, 4)]
    np.testing.assert_array_equal(made[3], 4 * jnp.ones((1, 3)))


LAPACK = re.compile(r"@lapack_\w+\(.*: \(tensor<(?:(\d+)x)?\d+x\d+xf32>")
DECOMPOSING: dict[str, Callable[[Any], Any]] = {
    "soap": lambda rate: gradtx.soap(rate),
    "shampoo": lambda rate: gradtx.shampoo(rate, merge_small_dims=False),
    "galore": lambda rate: gradtx.chain(
        gradtx.scale_by_galore(rank=4), gradtx.scale_by_learning_rate(rate)
    ),
    "muon": lambda rate: gradtx.muon(rate, preconditioning="spectral"),
}


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="it is LAPACK on CPU alone")
@pytest.mark.parametrize(
    ("name", "swept"), [*((name, False) for name in DECOMPOSING), ("soap", True), ("shampoo", True)]
)
def test_lapack_has_one_matrix_at_a_time(name: str, swept: bool) -> None:
    """Two calls with batches wait for each other forever where XLA has two threads."""
    params = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in [(8, 12), (8, 8)] * 2]

    def step(rate: Any, grads: Any) -> Any:
        tx = DECOMPOSING[name](rate)
        return tx.update(grads, tx.init(grads), grads)

    rates = jax.ShapeDtypeStruct((3,) if swept else (), jnp.float32)
    program = jax.jit(jax.vmap(step, (0, None)) if swept else step).lower(rates, params).as_text()
    lengths = LAPACK.findall(program)
    assert lengths
    assert {length or "1" for length in lengths} == {"1"}


@pytest.mark.parametrize(("rows", "length"), [(64, "8"), (300, "1")])
def test_large_matrices_are_decomposed_one_after_another_on_a_gpu(rows: int, length: str) -> None:
    """jaxlib would hand them to the solver for batches of small ones."""

    def step(x: jax.Array) -> jax.Array:
        return batches.undifferentiated(lambda x: jnp.linalg.qr(x)[0], x)

    x = jax.ShapeDtypeStruct((8, rows, rows), jnp.float32)
    program = jax.jit(step).trace(x).lower(lowering_platforms=("cuda",)).as_text()
    found = re.findall(rf"@cusolver_geqrf_ffi.*?: \(tensor<(?:(\d+)x)?{rows}x{rows}xf32>", program)
    assert {one or "1" for one in found} == {length}


def test_decompositions_of_a_batch_are_those_of_its_matrices() -> None:
    x = jax.random.normal(jax.random.key(0), (2, 3, 5, 5))

    def function(matrices: jax.Array) -> jax.Array:
        return jnp.linalg.qr(matrices)[0]

    wanted = [[np.linalg.qr(matrix)[0] for matrix in batch] for batch in np.asarray(x)]
    made = jax.vmap(lambda batch: batches.undifferentiated(function, batch))(x)
    np.testing.assert_allclose(made, wanted, atol=1e-5)
    slope = jax.grad(lambda x: jnp.sum(batches.undifferentiated(function, x)))(x[0])
    assert not np.any(slope)
