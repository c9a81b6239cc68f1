"""Muon and GaLore against NumPy float64, and what they are for: orthogonal steps, few products."""

import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import GaLoreDimensionNumbers, MuonDimensionNumbers
from gradtx.transforms.orthogonal import DION, STANDARD

from .replay import STEPS, assert_close, replay

Array = np.ndarray
RNG = np.random.default_rng(0)
GRADS = {"wide": RNG.standard_normal((STEPS, 3, 5)), "tall": RNG.standard_normal((STEPS, 5, 3))}
GRADS |= {"bias": RNG.standard_normal((STEPS, 4)), "square": RNG.standard_normal((STEPS, 4, 4))}
PARAMS = {name: RNG.standard_normal(g.shape) for name, g in GRADS.items()}
MATRICES = ("wide", "tall", "square")


def only(tree: Any, names: Any = MATRICES) -> Any:
    return {name: tree[name] for name in names}


# -- Muon: Jordan et al. 2024 -------------------------------------------------------------------


def newton_schulz(matrix: Array, table: Any, eps: float, how: str) -> Array:
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    if how == "frobenius":
        x = x / (np.linalg.norm(x) + eps)
    elif how == "spectral":
        x = x / (np.linalg.norm(x, 2) + eps)
    for i, (a, b, c) in enumerate(table):
        if i == 0 and how == "aol":
            x = np.diag(np.abs(x @ x.T).sum(1) ** -0.5) @ x
        if i == 0 and how == "schatten":
            x = x / np.sqrt(np.linalg.norm(x @ x.T))
        gram = x @ x.T
        x = a * x + b * gram @ x + c * gram @ gram @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def muon(
    grads: Array, table: Any, beta: float, eps: float, nesterov: bool, adaptive: bool, how: str
) -> Iterator[Array]:
    mu: Array | float = 0.0
    for t, g in enumerate(grads, start=1):
        mu = beta * mu + (1 - beta) * g
        mean = mu / (1 - beta**t)
        if nesterov:
            mean = beta * mu / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t)
        u = newton_schulz(mean, table, eps, how)
        yield np.sum(mean * u) * u if adaptive else u


@pytest.mark.parametrize(
    ("coeffs", "steps", "beta", "eps", "nesterov", "adaptive", "how"),
    [
        (STANDARD, 5, 0.95, 1e-8, True, False, "frobenius"),
        (STANDARD, 3, 0.5, 1e-2, False, True, "frobenius"),
        (DION, 5, 0.9, 1e-8, True, False, "spectral"),
        (DION, 5, 0.95, 1e-8, False, False, "aol"),
        ((2.0, -1.5, 0.5), 10, 0.95, 1e-8, True, False, "schatten"),
    ],
)
def test_muon(
    coeffs: Any, steps: int, beta: float, eps: float, nesterov: bool, adaptive: bool, how: str
) -> None:
    tx = gradtx.scale_by_muon(
        coeffs, steps, beta, eps, nesterov=nesterov, adaptive=adaptive, preconditioning=how
    )
    got = replay(tx, only(GRADS), only(PARAMS))
    table = coeffs if isinstance(coeffs[0], tuple) else (coeffs,) * steps
    for name in MATRICES:
        expected = list(muon(GRADS[name], table, beta, eps, nesterov, adaptive, how))
        assert_close(got[name], np.stack(expected), 1e-10, what=name)


@pytest.mark.parametrize("consistent", [None, 0.2])
def test_muon_is_its_parts(consistent: float | None) -> None:
    tx = gradtx.muon(0.1, weight_decay=0.01, adam_learning_rate=0.02, consistent_rms=consistent)
    got = replay(tx, GRADS, PARAMS)
    for name in MATRICES:
        rows, columns = GRADS[name].shape[1:]
        factor = max(1, columns / rows) ** 0.5
        if consistent is not None:
            factor = consistent * max(rows, columns) ** 0.5
        made = muon(GRADS[name], (STANDARD,) * 5, 0.95, 1e-8, True, False, "frobenius")
        pairs = zip(made, PARAMS[name], strict=True)
        expected = [-0.1 * (factor * u + 0.01 * p) for u, p in pairs]
        assert_close(got[name], np.stack(expected), 1e-10, what=name)
    nadam = replay(gradtx.nadam(0.02), only(GRADS, ["bias"]), only(PARAMS, ["bias"]))
    assert_close(got["bias"], nadam["bias"])


def test_muon_makes_matrices_nearly_orthogonal() -> None:
    """With the singular vectors of the gradient, and singular values around 1."""
    g = {"w": jnp.asarray(RNG.standard_normal((20, 12)))}
    tx = gradtx.scale_by_muon()
    u, _ = tx.update(g, tx.init(g))
    left, _, right = np.linalg.svd(g["w"], full_matrices=False)
    inner = left.T @ np.asarray(u["w"]) @ right.T
    assert np.max(np.abs(inner - np.diag(np.diag(inner)))) < 1e-10
    assert 0.6 < np.min(np.diag(inner)) <= np.max(np.diag(inner)) < 1.3
    exact = gradtx.scale_by_muon((15 / 8, -10 / 8, 3 / 8), 40)
    u, _ = exact.update(g, exact.init(g))
    assert_close(u["w"], left @ right, 1e-8)


def test_axes_are_taken_as_they_are_named() -> None:
    """An array as a batch of matrices gives what the matrices give."""
    x = RNG.standard_normal((2, 3, 4, 5))
    numbers = {"a": MuonDimensionNumbers((0, 2), 3), "b": MuonDimensionNumbers(-1, (1, 2))}
    tx = gradtx.scale_by_muon(eps=0.0, weight_dimension_numbers=numbers)
    g = {"a": jnp.asarray(x), "b": jnp.asarray(x)}
    u, _ = tx.update(g, tx.init(g))
    for j in range(3):
        expected = newton_schulz(x[:, j].reshape(8, 5), (STANDARD,) * 5, 0.0, "frobenius")
        assert_close(np.asarray(u["a"])[:, j].reshape(8, 5), expected, 1e-10)
    for i in range(2):
        expected = newton_schulz(x[i].reshape(12, 5).T, (STANDARD,) * 5, 0.0, "frobenius")
        assert_close(np.asarray(u["b"])[i].reshape(12, 5), expected.T, 1e-10)


def test_muon_takes_the_arrays_that_have_dimension_numbers() -> None:
    params = {"m": jnp.ones((3, 2)), "head": {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}}
    numbers = {"m": MuonDimensionNumbers(), "head": None}  # a prefix of the tree
    for given in (numbers, lambda params: numbers):
        tx = gradtx.muon(0.1, muon_weight_dimension_numbers=given)
        states = tx.init(params).inner_states
        assert isinstance(states["muon"].inner_state[0].mu["head"], dict)
        assert jax.tree.leaves(states["muon"].inner_state[0].mu["head"]) == []
        assert jax.tree.leaves(states["adam"].inner_state[0].mu["m"]) == []
        updates, _ = tx.update(params, tx.init(params), params)
        assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(updates))


@pytest.mark.parametrize("which", [gradtx.matching("body"), "body", ~gradtx.matching("embed|head")])
def test_muon_takes_the_matrices_that_a_pattern_selects(which: Any) -> None:
    params = {
        "embed": jnp.ones((3, 2)),
        "body": {"w": jnp.ones((3, 2)), "b": jnp.ones(2)},
        "head": jnp.ones((2, 3)),
    }
    tx = gradtx.muon(0.1, muon_weight_dimension_numbers=which)
    assert {path for path, label in tx.body.assignment(params).items() if label == "muon"} == {
        "body/w"
    }
    numbers = {"embed": None, "body": {"w": MuonDimensionNumbers(), "b": None}, "head": None}
    same = gradtx.muon(0.1, muon_weight_dimension_numbers=numbers)
    grads = jax.tree.map(lambda x: x * jnp.arange(1.0, x.shape[-1] + 1), params)
    got, _ = tx.update(grads, tx.init(params), params)
    expected, _ = same.update(grads, same.init(params), params)
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert gradtx.parse(repr(tx)) == tx


@pytest.mark.parametrize("optimizer", [gradtx.muon, gradtx.normuon])
def test_dimension_numbers_by_pattern_are_those_of_a_tree(optimizer: Any) -> None:
    """Of layers stacked in one array."""
    stacked = MuonDimensionNumbers(1, 2)
    kernel, head = RNG.standard_normal((3, 4, 6)), RNG.standard_normal((4, 5))
    params = {"layers": {"kernel": kernel, "norm": np.ones((3, 4))}, "head": head}
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    by_path = {"layers/kernel": stacked}
    tree = {"layers": {"kernel": stacked, "norm": None}, "head": None}
    updates = [
        tx.update(params, tx.init(params), params)[0]
        for given in (by_path, tree)
        for tx in [optimizer(0.1, muon_weight_dimension_numbers=given)]
    ]
    jax.tree.map(np.testing.assert_array_equal, *updates)


def test_a_pattern_of_dimension_numbers_that_gets_nothing_is_refused() -> None:
    tx = gradtx.muon(0.1, muon_weight_dimension_numbers={"layrs": None, "w": None})
    with pytest.raises(ValueError, match="muon: the pattern 'layrs' gets no leaf"):
        tx.init({"w": jnp.ones((2, 2)), "b": jnp.ones(2)})


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("conv", "muon: 'conv' selects no array of two axes. .*MuonDimensionNumbers"),
        (~gradtx.matching("dense"), r"muon: ~matching\('dense'\) selects no array of two axes"),
        ("kernle", "muon: the pattern 'kernle' matches no leaf; the paths are: conv, dense"),
    ],
)
def test_a_pattern_that_selects_no_matrix_is_refused(which: Any, message: str) -> None:
    params = {"conv": jnp.ones((2, 2, 3)), "dense": jnp.ones((2, 2))}
    with pytest.raises(ValueError, match=f"^{message}"):
        gradtx.muon(0.1, muon_weight_dimension_numbers=which).init(params)


@pytest.mark.parametrize(("library", "products"), [(gradtx, 2 * 5 * 3), (optax.contrib, 6 * 5 * 3)])
def test_one_batched_product_for_all_matrices_of_a_shape(library: Any, products: int) -> None:
    """In the compiled program three in each of five iterations: of ours for each of the two shapes,
    a transposed one included, of Optax's for each of the six matrices."""
    shapes = {"a": (8, 4), "b": (8, 4), "c": (4, 8), "d": (8, 4), "e": (6, 6), "f": (6, 6)}
    params = {name: jnp.ones(shape) for name, shape in shapes.items()}
    tx = library.muon(0.1)
    program = jax.jit(tx.update).lower(params, tx.init(params), params).compile()
    assert len(re.findall(r"\bdot\(", program.as_text())) == products


def test_what_is_no_matrix_is_refused_by_path() -> None:
    params = {"layer": {"bias": jnp.ones(3)}}
    tx = gradtx.scale_by_muon()
    with pytest.raises(ValueError, match=r"scale_by_muon: at layer/bias: .*\(3,\) is not a matrix"):
        tx.update(params, tx.init(params))
    for numbers, message in (
        (MuonDimensionNumbers(0, 1), r"at layer/bias: .* has no axis 1"),
        (MuonDimensionNumbers(0, -1), r"at layer/bias: .* share an axis"),
        ({"other": None}, r"at layer/bias: .*\(3,\) is not a matrix"),
        ({"layer": 3}, "expected dimension numbers or None, got 3"),
    ):
        wrong = gradtx.scale_by_muon(weight_dimension_numbers=numbers)
        with pytest.raises((ValueError, TypeError), match=message):
            wrong.update(params, tx.init(params))


@pytest.mark.parametrize(
    "make",
    [
        lambda: gradtx.scale_by_muon(weight_dimension_numbers={"q": MuonDimensionNumbers()}),
        lambda: gradtx.scale_by_muon(split_outputs={"q": (1, 1)}),
        lambda: gradtx.scion(weight_dimension_numbers={"q": MuonDimensionNumbers()}),
        lambda: gradtx.galore(0.1, 1, weight_dimension_numbers={"q": GaLoreDimensionNumbers()}),
    ],
)
def test_a_pattern_that_gets_no_leaf_is_refused(make: Any) -> None:
    """Here the leaf would get the default, as if nothing had been given for it."""
    params = {"w": jnp.ones((2, 2))}
    tx = make()
    with pytest.raises(ValueError, match=r"the pattern 'q' gets no leaf .*: w"):
        tx.update(params, tx.init(params), params)


def test_a_pattern_to_none_may_be_of_other_leaves() -> None:
    """Those of another optimizer."""
    given = {"w": MuonDimensionNumbers(1, 0), "b": None}
    matrices = gradtx.scion(weight_dimension_numbers=given)
    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
    tx = gradtx.partition({"w": matrices, "b": gradtx.sgd(0.1)})
    tx.update(params, tx.init(params), params)


def test_a_frozen_leaf_needs_no_matrix() -> None:
    params = {"w": jnp.eye(2), "b": jnp.ones(2)}
    tx = gradtx.chain(gradtx.freeze("b"), gradtx.scale_by_muon(split_outputs={"w": (1, 1)}))
    updates, _ = tx.update(params, tx.init(params))
    np.testing.assert_array_equal(updates["b"], 0)


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match=r"preconditioning must be one of 'frobenius'.*got 'none'"):
        gradtx.scale_by_muon(preconditioning="none")
    with pytest.raises(ValueError, match="ns_steps must be a whole number >= 0, got -1"):
        gradtx.scale_by_muon(ns_steps=-1)
    for wrong in ((), (1.0, 2.0), ((1.0, 2.0, 3.0), (1.0, 2.0)), "muno"):
        with pytest.raises(ValueError, match="muon: ns_coeffs must be"):
            gradtx.muon(0.1, wrong)
    for name in ("rank", "update_proj_gap"):
        with pytest.raises(ValueError, match=f"galore: {name} must be a whole number >= 1"):
            gradtx.scale_by_galore(**{name: 0})
        with pytest.raises(ValueError, match=f"scale_by_galore: {name} must be a whole number"):
            gradtx.scale_by_galore(**{name: 2.5})
    params = {"w": jnp.ones((2, 3, 4))}
    with pytest.raises(ValueError, match=r"at w: .* must be all the axes"):
        gradtx.scale_by_galore(weight_dimension_numbers=GaLoreDimensionNumbers()).init(params)


def test_the_coefficients_are_numbers() -> None:
    """They can be scheduled and differentiated like any other."""
    assert gradtx.muon(0.1, "dion") == gradtx.muon(0.1, DION)
    g = {"w": jnp.asarray(RNG.standard_normal((3, 2)))}

    def size(tx: Any) -> Any:
        return jnp.sum(tx.update(g, tx.init(g))[0]["w"] ** 2)

    slope = jax.grad(size)(gradtx.scale_by_muon((3.0, -4.0, 2.0)))
    assert all(np.isfinite(x) and x != 0 for x in slope.ns_coeffs)


# -- GaLore: Zhao et al. 2024 -------------------------------------------------------------------


def galore(grads: Array, rank: int, gap: int, scale: float) -> Iterator[Array]:
    """Adam in the subspace of the last decomposition."""
    tall = grads.shape[1] >= grads.shape[2]
    m: Array | float = 0.0
    v: Array | float = 0.0
    for t, g in enumerate(grads, start=1):
        matrix = g if tall else g.T
        if (t - 1) % gap == 0:
            basis = np.linalg.svd(matrix, full_matrices=False)[0][:, :rank]
        small = basis.T @ matrix
        m, v = 0.9 * m + 0.1 * small, 0.999 * v + 0.001 * small**2
        u = basis @ (m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8))
        yield scale * (u if tall else u.T)


@pytest.mark.parametrize(("rank", "gap", "scale"), [(1, 200, 1.0), (2, 1, 0.5), (2, 7, 1.0)])
def test_galore(rank: int, gap: int, scale: float) -> None:
    """A sign of a singular vector is free from one decomposition to the next: with momentum it
    shows, so each is compared up to the first step of the second decomposition."""
    got = replay(gradtx.scale_by_galore(rank, gap, scale), GRADS, PARAMS)
    for name in MATRICES:
        expected = np.stack(list(galore(GRADS[name], rank, gap, scale)))[:gap]
        assert_close(np.asarray(got[name])[:gap], expected, 1e-9, what=name)
    adam = replay(gradtx.scale_by_adam(), only(GRADS, ["bias"]), only(PARAMS, ["bias"]))
    assert_close(got["bias"], adam["bias"])


def test_galore_takes_singular_vectors_with_the_signs_of_optax() -> None:
    few, at = ({name: x[:12] for name, x in tree.items()} for tree in (GRADS, PARAMS))
    # After some fifty steps rounding turns one.
    got = replay(gradtx.scale_by_galore(2, 3), few, at)
    theirs = gradtx.GradientTransformation(*optax.contrib.scale_by_galore(2, 3))
    expected = replay(theirs, few, at)
    for name in MATRICES:
        assert_close(got[name], expected[name], 1e-3, what=name)  # in part it is in float32


def test_galore_of_full_rank_without_memory_changes_nothing() -> None:
    tx = gradtx.scale_by_galore(10, 3, base_optimizer=gradtx.identity())
    got = replay(tx, only(GRADS), only(PARAMS))
    for name in ("square",):
        assert_close(got[name], GRADS[name], 1e-10, what=name)


def test_galore_keeps_little() -> None:
    params = {"w": jnp.zeros((64, 32)), "b": jnp.zeros(32)}
    state = gradtx.scale_by_galore(4).init(params)
    held = {jax.tree_util.keystr(k): x.shape for k, x in jax.tree_util.tree_leaves_with_path(state)}
    assert held[".projector['w']"] == (64, 4)
    assert held[".base_optimizer_state.mu['w']"] == (4, 32)
    assert state.projector["b"] is None  # an array without elements could not be saved by Orbax


def test_galore_goes_on_with_optax_placeholders() -> None:
    """Which are arrays without elements, and stay."""
    params = {"w": jnp.asarray(GRADS["square"][0]), "b": jnp.asarray(GRADS["bias"][0])}
    old = optax.contrib.galore(0.1, rank=2).init(params)
    updates, new = gradtx.galore(0.1, rank=2).update(params, old, params)
    assert new[0].projector["b"].shape == (0, 0)
    expected, _ = optax.contrib.galore(0.1, rank=2).update(params, old, params)
    for name in params:
        assert_close(updates[name], expected[name], 1e-4, what=name)
    wrong = old[0]._replace(projector=old[0].projector | {"b": params["w"]})
    with pytest.raises(ValueError, match=r"at b: updates float\d+\[\d+\] do not fit the state"):
        gradtx.scale_by_galore(2).update(params, wrong)


def test_galore_projects_a_leaf_whose_first_gradient_comes_late() -> None:
    tx = gradtx.scale_by_galore(10, 100, base_optimizer=gradtx.identity())
    params = {"a": jnp.ones((6, 4)), "b": jnp.ones((6, 4))}
    state = tx.init(params)
    _, state = tx.update(params | {"b": None}, state)
    late = jnp.asarray(GRADS["square"][0])[:6, :4]
    late = {"a": params["a"], "b": jnp.resize(late, (6, 4))}
    updates, state = tx.update(late, state)
    assert_close(updates["b"], late["b"], 1e-4, what="b")


# -- complex arrays as pairs ----------------------------------------------------------------------


def test_a_complex_array_is_two_real_ones() -> None:
    rng = np.random.default_rng(2)
    parts = {k: rng.standard_normal((STEPS, 3)) for k in ("real", "imaginary", "other")}
    grads = {"z": parts["real"] + 1j * parts["imaginary"], "x": parts["other"]}
    got = replay(gradtx.split_real_and_imaginary(gradtx.adamw(0.1)), grads, grads)
    apart = replay(gradtx.adamw(0.1), parts, parts)
    assert_close(got["z"], np.asarray(apart["real"]) + 1j * np.asarray(apart["imaginary"]))
    assert_close(got["x"], apart["other"])
    first = {k: jnp.asarray(g[0]) for k, g in grads.items()}
    ours = gradtx.split_real_and_imaginary(gradtx.adam(0.1)).init(first)
    theirs = optax.contrib.split_real_and_imaginary(optax.adam(0.1)).init(first)
    assert jax.tree.map(jnp.shape, jax.tree.leaves(ours)) == jax.tree.map(
        jnp.shape, jax.tree.leaves(theirs)
    )
    keys = [
        [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(s)]
        for s in (ours, theirs)
    ]
    assert keys[0] == keys[1]
