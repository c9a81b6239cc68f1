"""Optimistix: `OptaxMinimiser`, which passes value, grad and value_fn, in a compiled loop."""

from typing import Any

import jax.numpy as jnp
import optax
import pytest

import gradtx

from .guests import OWN, TWINS, X, Y, assert_near, by_hand, moved, polyak

optx = pytest.importorskip("optimistix")

START = {"kernel": jnp.full((4, 2), 0.1), "bias": jnp.zeros(2)}


def loss(params: Any, args: Any = None) -> Any:
    return jnp.mean((X @ params["kernel"] + params["bias"] - Y) ** 2)


def minimised(tx: Any, steps: int = 6) -> Any:
    solver = optx.OptaxMinimiser(tx, rtol=0.0, atol=0.0)
    return optx.minimise(loss, solver, START, max_steps=steps, throw=False).value


CASES = {"momentum": TWINS["momentum"], "scheduled": TWINS["scheduled"], "polyak": polyak}


@pytest.mark.parametrize("twin", CASES.values(), ids=CASES)
def test_minimises_as_with_optax(twin: Any) -> None:
    got, expected = (minimised(twin(lib)) for lib in (gradtx, optax))
    assert moved(START, got)
    assert_near(got, expected)


@pytest.mark.parametrize("name", ["int8", "groups"])
def test_minimises_as_by_hand(name: str) -> None:
    assert_near(minimised(OWN[name]), by_hand(OWN[name], loss, START))


def test_the_value_passes_through_optax() -> None:
    inside = optax.chain(polyak(gradtx), optax.identity())
    assert_near(minimised(inside), minimised(polyak(optax)))


def test_a_line_search_finds_the_least_squares() -> None:
    import numpy as np

    columns = np.concatenate([X, np.ones((len(X), 1))], axis=1).astype(np.float64)
    expected = np.linalg.lstsq(columns, np.asarray(Y, np.float64))[0]
    got = minimised(gradtx.lbfgs(), 30)
    assert_near(got, {"kernel": expected[:4], "bias": expected[4]}, 1e-3)
