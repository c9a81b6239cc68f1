"""JAXopt: `OptaxSolver`, compiled, step by step, and differentiated at its solution."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

from .guests import OWN, TWINS, X, Y, assert_near, by_hand, moved

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
jaxopt = pytest.importorskip("jaxopt")

START = {"kernel": jnp.full((4, 2), 0.1), "bias": jnp.zeros(2)}


def loss(params: Any, ridge: Any = 0.0) -> Any:
    squares = jnp.sum(params["kernel"] ** 2)
    return jnp.mean((X @ params["kernel"] + params["bias"] - Y) ** 2) + ridge * squares


def solved(tx: Any) -> Any:
    return jaxopt.OptaxSolver(loss, tx, maxiter=6, tol=0.0).run(START)


@pytest.mark.parametrize("name", ["scheduled", "clipped"])
def test_solves_as_with_optax(name: str) -> None:
    got, expected = (solved(TWINS[name](lib)) for lib in (gradtx, optax))
    assert moved(START, got.params)
    assert_near(got.params, expected.params)
    assert_near(got.state.internal_state, expected.state.internal_state, 1e-5)


@pytest.mark.parametrize("name", ["int8", "accumulated"])
def test_solves_as_by_hand(name: str) -> None:
    assert_near(solved(OWN[name]).params, by_hand(OWN[name], loss, START))


def test_the_solution_has_a_derivative() -> None:
    """By the implicit function theorem; the oracle is ridge regression in NumPy."""

    def size(ridge: Any) -> Any:
        solver = jaxopt.OptaxSolver(loss, gradtx.adam(0.1), maxiter=300, tol=1e-6)
        return jnp.sum(solver.run(START, ridge).params["kernel"] ** 2)

    def exact(ridge: float) -> float:
        x, y = (np.asarray(a - a.mean(0), np.float64) for a in (X, Y))
        # The mean is over both columns of Y: each has half of the weight.
        kernel = np.linalg.solve(x.T @ x / (2 * len(x)) + ridge * np.eye(4), x.T @ y / (2 * len(x)))
        return float(np.sum(kernel**2))

    value, slope = jax.value_and_grad(size)(0.1)
    np.testing.assert_allclose(value, exact(0.1), rtol=1e-3)
    np.testing.assert_allclose(slope, (exact(0.1 + 1e-5) - exact(0.1 - 1e-5)) / 2e-5, rtol=1e-2)
