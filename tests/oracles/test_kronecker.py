"""SOAP and Shampoo beside NumPy written from the equations.

The NumPy versions follow the authors' trajectories, and each of the conventions that ports get
wrong takes them off these: so the trajectories tell the conventions apart. They then are the oracle
for what the authors' code leaves undetermined.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.core.holding import anywhere
from gradtx.transforms.kronecker import Blocks
from tests.oracles.test_modern import RECORDED, SETTINGS

Array = np.ndarray
Steps = Iterator[Array]


def gram(g: Array, axis: int) -> Array:
    flat = np.moveaxis(g, axis, 0).reshape(g.shape[axis], -1)
    return flat @ flat.T


def along(g: Array, matrices: list[Array]) -> Array:
    for axis, m in enumerate(matrices):
        g = np.moveaxis(np.tensordot(g, m, (axis, 0)), -1, axis)
    return g


def first_basis(f: Array, rank: int) -> Array:
    n = len(f)
    known = np.linalg.eigh(f)[1][:, ::-1][:, :rank]
    rest = np.linalg.qr((np.eye(n) - known @ known.T)[:, : n - rank])[0]
    return np.concatenate([known, rest], 1)


def soap(
    p: Array,
    grads: Array,
    wrong: str = "",
    *,
    learning_rate: float,
    b1: float = 0.95,
    b2: float = 0.95,
    eps: float = 1e-8,
    precondition_frequency: int = 10,
    weight_decay: float = 0.0,
    shampoo_beta: float | None = None,
) -> Steps:
    """The array after each step."""
    s = b2 if shampoo_beta is None else shampoo_beta
    axes = range(p.ndim)
    m, v = np.zeros_like(p), np.zeros_like(p)
    factors = [(1 - s) * gram(grads[0], a) for a in axes]
    if wrong == "factors start unweighted":
        factors = [gram(grads[0], a) for a in axes]
    bases = [first_basis(f, min(len(f), p.size // len(f))) for f in factors]
    yield p
    for t, g in enumerate(grads[1:], 1):
        q = [x.T for x in bases]
        seen = along(g, bases)
        m = b1 * m + (1 - b1) * seen
        v = b2 * v + (1 - b2) * seen**2
        one, two = 1 - b1**t, 1 - b2**t
        root = np.sqrt(v)
        if wrong == "eps beside the corrected root":
            u = m / one / (root / np.sqrt(two) + eps)
        elif wrong == "eps inside of the root":
            u = m / np.sqrt(v + eps) * np.sqrt(two) / one
        else:
            u = m / (root + eps) * np.sqrt(two) / one
        if wrong == "no correction":
            u = u * one / np.sqrt(two)
        if wrong == "counted from the first call":
            u = u * one / np.sqrt(two) * np.sqrt(1 - b2 ** (t + 1)) / (1 - b1 ** (t + 1))
        p = p - learning_rate * along(u, q)
        if wrong != "factors without the newest gradient":
            factors = [s * f + (1 - s) * gram(g, a) for a, f in zip(axes, factors, strict=True)]
        if (t + (wrong == "a step early")) % precondition_frequency == 0:
            new = []
            for a, (f, old) in enumerate(zip(factors, bases, strict=True)):
                order = np.argsort(-np.diag(old.T @ f @ old))
                if wrong == "unsorted":
                    order = np.arange(len(f))
                if wrong != "second moment not permuted":
                    v = np.take(v, order, a)
                new.append(np.linalg.qr(f @ old[:, order])[0])
            if wrong != "momentum not rotated":
                m = along(along(m, q), new)
            bases = new
        if wrong == "factors without the newest gradient":
            factors = [s * f + (1 - s) * gram(g, a) for a, f in zip(axes, factors, strict=True)]
        yield p


def shampoo(
    p: Array,
    grads: Array,
    wrong: str = "",
    *,
    learning_rate: float,
    b1: float,
    b2: float,
    b3: float | None = None,
    eps: float,
    weight_decay: float = 0.0,
    precondition_frequency: int,
    start_preconditioning_step: int,
    grafting: str,
    grafting_b2: float,
    grafting_eps: float,
    merge_small_dims: bool,
) -> Steps:
    """The array, which is one block, after each step."""
    ahead = b1 if b3 is None else b3
    m, v = np.zeros_like(p), np.zeros_like(p)
    factors = [np.zeros((n, n)) for n in p.shape]
    roots = [np.eye(n) for n in p.shape]
    power = 1 / p.ndim if wrong == "another exponent" else 1 / (2 * p.ndim)
    for t, g in enumerate(grads, 1):
        filtered = (ahead * m + (1 - ahead) * g) / (1 - ahead * b1 ** (t - 1))
        if wrong == "the plain running mean":
            filtered = (b1 * m + (1 - b1) * g) / (1 - b1**t)
        m = b1 * m + (1 - b1) * g
        v = grafting_b2 * v + (1 - grafting_b2) * g**2
        factors = [b2 * f + (1 - b2) * gram(g, a) for a, f in enumerate(factors)]
        first, before = start_preconditioning_step, list(roots)
        if t == first or (t > first and t % precondition_frequency == 0):
            for a, f in enumerate(factors):
                bias = 1 if wrong == "no correction of the factors" else 1 - b2**t
                values, vectors = np.linalg.eigh(f / bias)
                values = values + eps + max(-values[0], 0)
                roots[a] = vectors * values**-power @ vectors.T
        square = v / (1 - grafting_b2**t) if grafting == "adam" else v
        if wrong == "grafting corrected":
            square = v / (1 - grafting_b2**t)
        graft = (g if wrong == "grafting on the gradient" else filtered) / (
            np.sqrt(square) + grafting_eps
        )
        d = along(filtered, before if wrong == "roots a step late" else roots)
        u = graft if t < first else d * np.linalg.norm(graft) / np.linalg.norm(d)
        if wrong == "preconditioned from the start":
            u = d * np.linalg.norm(graft) / np.linalg.norm(d)
        p = p - learning_rate * (u + weight_decay * p)
        yield p


ROWS = {row["name"]: row for row in SETTINGS["rows"]}
SOAP = ("soap/every_step", "soap/shampoo_beta")
SHAMPOO = ("shampoo/adam_grafting", "shampoo/late_start")


def off(name: str, oracle: Callable[..., Steps], wrong: str = "") -> float:
    """The largest distance from the authors' trajectory, in units of what is allowed."""
    row, kept = ROWS[name], SETTINGS["keep_steps"]
    worst = 0.0
    for leaf in ("square", "tensor"):
        start, wanted = RECORDED[f"params/{leaf}"], RECORDED[f"{name}/{leaf}"]
        made = list(oracle(start, RECORDED[f"grads/{leaf}"], wrong, **row["kwargs"]))
        errors = [np.linalg.norm(made[k - 1] - x) for k, x in zip(kept, wanted, strict=True)]
        worst = max(worst, max(errors) / np.linalg.norm(wanted[-1] - start))
    return worst / row["rtol"]


@pytest.mark.parametrize("name", SOAP + SHAMPOO)
def test_the_oracle_follows_the_authors(name: str) -> None:
    assert off(name, soap if name in SOAP else shampoo) <= 1


@pytest.mark.parametrize(
    "wrong",
    [
        "factors start unweighted",
        "eps beside the corrected root",
        "eps inside of the root",
        "no correction",
        "counted from the first call",
        "factors without the newest gradient",
        "a step early",
        "unsorted",
        "second moment not permuted",
        "momentum not rotated",
    ],
)
def test_trajectories_of_soap_tell_conventions_apart(wrong: str) -> None:
    assert max(off(name, soap, wrong) for name in SOAP) > 10


@pytest.mark.parametrize(
    "wrong",
    [
        "another exponent",
        "the plain running mean",
        "no correction of the factors",
        "roots a step late",
        "grafting corrected",
        "grafting on the gradient",
        "preconditioned from the start",
    ],
)
def test_trajectories_of_shampoo_tell_conventions_apart(wrong: str) -> None:
    assert max(off(name, shampoo, wrong) for name in SHAMPOO) > 2


def test_soap_on_matrices_that_are_not_square(x64: None) -> None:
    start, grads = RECORDED["params/matrix"], RECORDED["grads/matrix"]
    settings = {"learning_rate": 0.01, "weight_decay": 0.0, "precondition_frequency": 3}
    tx = gradtx.soap(**settings)
    p = jnp.asarray(start)
    state, step = tx.init(p), jax.jit(gradtx.step, static_argnums=0)
    for g, wanted in zip(grads, soap(start, grads, **settings), strict=True):
        p, state = step(tx, jnp.asarray(g), state, p)
        assert np.linalg.norm(p - wanted) <= 1e-9 * max(np.linalg.norm(wanted - start), 1e-9)


def test_blocks_are_cut_and_joined() -> None:
    x = jnp.arange(math.prod((12, 8, 3)), dtype=jnp.float32).reshape(12, 8, 3)
    blocks = Blocks.of(x.shape, 5, merge=False)
    groups = blocks.split(x)
    assert [g.shape for g in groups] == [(2, 5, 5, 3), (2, 5, 3, 3), (1, 2, 5, 3), (1, 2, 3, 3)]
    assert [(len(g), g.shape[1:]) for g in groups] == blocks.groups
    np.testing.assert_array_equal(groups[0][1], x[5:10, :5])
    np.testing.assert_array_equal(blocks.join(groups), x)


# -- a conditional in a batch ----------------------------------------------------------------------


def test_anywhere_is_whether_any_of_a_batch_is_due() -> None:
    due = jnp.array([[False, True], [False, False]])
    assert not anywhere(due[0, 0])
    np.testing.assert_array_equal(jax.vmap(anywhere)(due[0]), [True, True])
    np.testing.assert_array_equal(jax.vmap(jax.vmap(anywhere))(due), np.ones((2, 2), bool))


@pytest.mark.parametrize("name", ["soap", "shampoo"])
def test_decompositions_stay_in_a_branch_in_a_sweep(name: str) -> None:
    tx = getattr(gradtx, name)(1e-3, precondition_frequency=4)
    params = jnp.ones((2, 4, 4))
    states = jax.vmap(tx.init)(params)
    step = jax.vmap(lambda g, s, p: tx.update(g, s, p))
    jaxpr = jax.make_jaxpr(step)(params, states, params)
    assert not _outside_of_branches(jaxpr.jaxpr, {"eigh", "qr", "householder_product", "geqrf"})


def _outside_of_branches(jaxpr: Any, names: set[str]) -> set[str]:
    """Those of the operations that run in every step: not in a conditional or a loop."""
    found = {e.primitive.name for e in jaxpr.eqns} & names
    for equation in jaxpr.eqns:
        if equation.primitive.name not in ("cond", "while"):
            for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns")):
                if hasattr(inner, "eqns"):
                    found |= _outside_of_branches(inner, names)
    return found


@pytest.mark.parametrize("name", ["soap", "shampoo"])
def test_one_decomposition_for_each_size_of_factor(name: str) -> None:
    options = {"merge_small_dims": False} if name == "shampoo" else {}
    tx = getattr(gradtx, name)(1e-3, **options)
    shapes = {"a": (4, 6), "b": (6, 4), "c": (6, 6), "d": (4, 4)}
    params = {k: jnp.ones(shape) for k, shape in shapes.items()}
    traced = jax.jit(tx.update).trace(params, tx.init(params), params)
    text = traced.lower(lowering_platforms=("cpu",)).as_text()
    assert text.count("syevd_ffi(") == 2  # of 4 x 4 and of 6 x 6
