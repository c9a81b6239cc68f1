"""Optimizers descend."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

from .registry import Example, for_every
from .running import assert_close, given

CURVATURES = jnp.asarray([1.0, 3.0, 10.0])
STEPS = 200


def quadratic(params: Any) -> Any:
    """Condition number 10, minimum 0 at the origin."""
    return 0.5 * jnp.sum(CURVATURES * params["x"] ** 2) + 0.5 * jnp.sum(params["y"] ** 2)


def rosenbrock(params: Any) -> Any:
    """A curved valley with its minimum 0 at (1, 1)."""
    x, y = params["x"], params["y"]
    return jnp.sum((1 - x) ** 2 + 100 * (y - x**2) ** 2)


def descend(
    tx: Any,
    loss: Any,
    start: Any,
    steps: int,
    gradient: Any = None,
    extra: Any = (),
    of: Any = None,
) -> Any:
    """extra: the names of the extra arguments that update needs, which this knows how to make; of:
    the example, which says in what form it takes gradients."""
    gradient = gradient or jax.grad(loss)
    known = {
        "value": loss,
        "obj_fn": lambda params: loss,
        "grad_fn": lambda params: lambda other, i: gradient(other),
    }

    @jax.jit
    def run(tx: Any, start: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            params, state = carry
            more = {name: known[name](params) for name in extra}
            updates, state = tx.update(given(of, gradient(params)), state, params, **more)
            return (gradtx.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (start, tx.init(start)), length=steps)[0]

    return run(tx, start)


def with_rate(example: Example, which: int) -> Any:
    tx = example.make()
    names = ("lr", "learning_rate", "max_learning_rate")
    name = next(name for name in names if hasattr(tx, name))
    return tx.replace(**{name: example.rates[which]})


optimizers = for_every(where=lambda e: e.rates)


@optimizers
def test_converges_on_a_quadratic(example: Example) -> None:
    start = {"x": jnp.asarray([1.0, -1.0, 1.0]), "y": jnp.asarray([[1.0], [-1.0]])}
    params, _ = descend(
        with_rate(example, 0), quadratic, start, STEPS, extra=example.extra, of=example
    )
    assert quadratic(params) < 1e-3 * quadratic(start)


@optimizers
def test_converges_on_rosenbrock(example: Example) -> None:
    start = {"x": jnp.asarray(-0.5), "y": jnp.asarray(1.0)}
    params, _ = descend(
        with_rate(example, 1), rosenbrock, start, 2000, extra=example.extra, of=example
    )
    assert rosenbrock(params) < 0.05 * rosenbrock(start)


@optimizers
def test_bfloat16_tracks_float32(example: Example) -> None:
    """The state stays float32, and the params stay near, though they are rounded every step."""
    start = {"x": jnp.asarray([1.0, -1.0, 1.0]), "y": jnp.asarray([[1.0], [-1.0]])}
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), start)
    tx = with_rate(example, 0)
    wide, _ = descend(tx, quadratic, start, STEPS // 4, extra=example.extra, of=example)
    got, state = descend(tx, quadratic, narrow, STEPS // 4, extra=example.extra, of=example)
    assert {x.dtype for x in jax.tree.leaves(got)} == {np.dtype(jnp.bfloat16)}
    floating = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert {x.dtype for x in floating} <= {np.dtype(np.float32)}
    for name in start:
        drift = np.abs(np.asarray(got[name], np.float32) - wide[name])
        assert np.max(drift) < 0.05, f"{name} drifted by {np.max(drift)}"


@for_every(where=lambda e: e.rates and not e.real)
def test_complex_descent(example: Example) -> None:
    """|z - z0|^2 falls to its minimum; its direction of steepest ascent is z - z0."""
    target = {"x": jnp.asarray([1 + 1j, -1 + 0.5j]), "y": jnp.asarray(0.5 - 1j)}
    start = jax.tree.map(jnp.zeros_like, target)

    def distance(z: Any) -> Any:
        return sum(jnp.sum(jnp.abs(z[name] - target[name]) ** 2) for name in target)

    ascent = lambda z: jax.tree.map(lambda a, b: a - b, z, target)  # noqa: E731
    z, _ = descend(with_rate(example, 0), distance, start, STEPS, ascent, example.extra, example)
    assert distance(z) < 0.01 * distance(start)
    assert {x.dtype for x in jax.tree.leaves(z)} == {np.dtype(np.complex64)}


def test_ascent_with_maximize() -> None:
    start = {"x": jnp.asarray([1.0, -1.0, 1.0]), "y": jnp.asarray([[1.0], [-1.0]])}
    downhill, _ = descend(gradtx.sgd(0.1), quadratic, start, 50)
    uphill, _ = descend(gradtx.maximize(gradtx.sgd(0.1)), lambda p: -quadratic(p), start, 50)
    assert_close(uphill["x"], downhill["x"], 1e-6)


def test_a_rate_that_is_too_large_diverges() -> None:
    """So that the bounds above are known to fail."""
    start = {"x": jnp.asarray([1.0, -1.0, 1.0]), "y": jnp.asarray([[1.0], [-1.0]])}
    params, _ = descend(gradtx.sgd(0.5), quadratic, start, 10)
    with pytest.raises(AssertionError):
        assert quadratic(params) < 1e-3 * quadratic(start)
