"""Nesterov's accelerated gradient has three forms here, and they are one sequence.

(a) classical (Sutskever et al. 2013): the gradient is taken at the look-ahead point,

        v <- mu v + g(theta - lr mu v)        theta <- theta - lr v

(b) shifted point (``nesterov=True``, Optax's and this library's): the parameters themselves are
    the look-ahead point, phi = theta - lr mu v,

        v <- mu v + g(phi)        phi <- phi - lr (g(phi) + mu v)

(c) PyTorch's, the same with the learning rate outside the buffer.

The problem is a quadratic with eigenvalues between 0.001 and 1.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
import gradtx.torch

from . import formulas
from .replay import assert_close

STEPS = 50
CURVATURE = np.logspace(-3, 0, 8)
TARGET = np.array([3.0, -1.0, 2.0, 0.5, -2.0, 1.0, -0.5, 4.0])
START = np.array([0.0, 1.0, -1.0, 2.0, 0.0, -3.0, 0.5, 1.0])

ROUGH = pytest.mark.parametrize(("rate", "decay"), [(0.1, 0.9), (0.5, 0.5), (1.0, 0.95), (0.3, 0)])


def gradient(x: Any) -> Any:
    return CURVATURE * (x - TARGET)


def classical(tx: Any, rate: float, decay: float) -> tuple[np.ndarray, np.ndarray]:
    """(a): theta after each step, and the look-ahead point of the step that follows."""

    @jax.jit
    def run(theta: Any) -> Any:
        def step(carry: Any, _: None) -> Any:
            theta, state = carry
            ahead = gradtx.lookahead_point(theta, state, rate, decay)
            updates, state = tx.update(gradient(ahead), state, theta)
            theta = gradtx.apply_updates(theta, updates)
            ahead = gradtx.lookahead_point(theta, state, rate, decay)
            return (theta, state), (theta, ahead)

        return jax.lax.scan(step, (theta, tx.init(theta)), length=STEPS)[1]

    thetas, aheads = run(jnp.asarray(START))
    return np.asarray(thetas), np.asarray(aheads)


def iterates(tx: Any) -> np.ndarray:
    """(b) and (c): the parameters after each step, the gradient taken where they are."""

    @jax.jit
    def run(phi: Any) -> Any:
        def step(carry: Any, _: None) -> Any:
            phi, state = carry
            updates, state = tx.update(gradient(phi), state, phi)
            phi = gradtx.apply_updates(phi, updates)
            return (phi, state), phi

        return jax.lax.scan(step, (phi, tx.init(phi)), length=STEPS)[1]

    return np.asarray(run(jnp.asarray(START)))


@ROUGH
def test_classical_form_follows_the_paper(rate: float, decay: float) -> None:
    thetas, aheads = formulas.classical_nag(gradient, START, rate, decay, STEPS)
    got_thetas, got_aheads = classical(gradtx.sgd(rate, momentum=decay), rate, decay)
    assert_close(got_thetas, np.stack(thetas), what="theta")
    assert_close(got_aheads, np.stack(aheads), what="look-ahead point")


@ROUGH
def test_shifted_point_is_the_look_ahead_point(rate: float, decay: float) -> None:
    aheads = classical(gradtx.sgd(rate, momentum=decay), rate, decay)[1]
    assert_close(iterates(gradtx.sgd(rate, momentum=decay, nesterov=True)), aheads)


@ROUGH
def test_pytorchs_form_is_the_shifted_point(rate: float, decay: float) -> None:
    if not decay:
        pytest.skip("PyTorch asks for a momentum where nesterov=True")
    pytorch = gradtx.torch.sgd(rate, momentum=decay, nesterov=True)
    shifted = gradtx.sgd(rate, momentum=decay, nesterov=True)
    assert_close(iterates(pytorch), iterates(shifted))


def test_the_forms_differ_from_plain_momentum() -> None:
    """So that the tests above cannot pass by all three ignoring the look-ahead."""
    heavy_ball = iterates(gradtx.sgd(0.1, momentum=0.9))
    thetas, aheads = classical(gradtx.sgd(0.1, momentum=0.9), 0.1, 0.9)
    assert np.max(np.abs(thetas - heavy_ball)) > 1e-2
    assert np.max(np.abs(thetas - aheads)) > 1e-2


@pytest.mark.parametrize(
    "build",
    [
        lambda: gradtx.trace(0.9),
        lambda: gradtx.scale_by_momentum(0.9),
        lambda: gradtx.sgd(0.1, momentum=0.9),
        lambda: gradtx.chain(gradtx.clip(10.0), gradtx.sgd(0.1, momentum=0.9)),
        lambda: gradtx.named_chain(("decay", gradtx.add_decayed_weights(0.0)),
                                   ("momentum", gradtx.trace(0.9))),
    ],
    ids=["trace", "scale_by_momentum", "sgd", "chain", "named_chain"],
)  # fmt: skip
def test_the_trace_is_found_in_any_state(build: Any) -> None:
    tx = build()
    params = {"w": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)}
    grads = {"w": jnp.array([0.5, -1.0]), "b": jnp.array(2.0)}
    state = tx.init(params)
    still = gradtx.lookahead_point(params, state, 0.1, 0.9)
    assert jax.tree.all(jax.tree.map(np.array_equal, still, params))
    _, state = tx.update(grads, state, params)
    ahead = gradtx.lookahead_point(params, state, 0.1, 0.9)
    for name, grad in grads.items():
        assert_close(ahead[name], params[name] - 0.1 * 0.9 * grad, what=name)


@pytest.mark.parametrize(
    ("build", "held"),
    [
        (lambda: gradtx.sgd(0.1), 0),
        (lambda: gradtx.adam(0.1), 0),
        (lambda: gradtx.chain(gradtx.trace(0.9), gradtx.trace(0.5)), 2),
    ],
    ids=["sgd", "adam", "two traces"],
)
def test_a_state_without_one_trace_is_refused(build: Any, held: int) -> None:
    params = jnp.ones(3)
    with pytest.raises(ValueError, match=f"lookahead_point: .* it holds {held}"):
        gradtx.lookahead_point(params, build().init(params), 0.1, 0.9)
