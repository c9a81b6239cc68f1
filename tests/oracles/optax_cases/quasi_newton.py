"""L-BFGS and line searches."""

from typing import Any

import jax
import jax.numpy as jnp

from .case import LINEAR, Args, Both, args


def inner(x: Any, y: Any) -> Any:
    return sum(jnp.sum(a * b) for a, b in zip(*map(jax.tree.leaves, (x, y)), strict=True))


def objective(params: Any, grads: Any) -> dict[str, Any]:
    """A quadratic of curvature 0.5 that has this gradient at these params."""
    push = jax.tree.map(lambda g, p: g - 0.5 * p, grads, params)

    def value_fn(q: Any) -> Any:
        return 0.25 * inner(q, q) + inner(push, q)

    return {"value": value_fn(params), "grad": grads, "value_fn": value_fn}


def mirrored(params: Any, grads: Any) -> dict[str, Any]:
    """The same mirrored at params: it falls along the gradient, which a bare search is given."""
    given = objective(params, grads)

    def value_fn(q: Any) -> Any:
        return given["value_fn"](jax.tree.map(lambda p, x: 2 * p - x, params, q))

    grad = jax.tree.map(jnp.negative, grads)
    return {"value": given["value"], "grad": grad, "value_fn": value_fn}


def search(text: str) -> Both:
    return Both(text, lambda lib: eval(text, {"lib": lib}))


# The gradients of these runs are noisy: differences of them may have any curvature, which magnifies
# rounding from step to step. In the eighth search of the defaults Optax loses the lowest point of a
# parabola to rounding, see test_quasi_newton.py.
NOISY = {"steps": 6, "rtol": 1e-9, "narrow_rtol": 1e-3, "why": "rounding grows in noisy curvatures"}

TRANSFORMATIONS: dict[str, list[Args]] = {
    "scale_by_lbfgs": [
        args().but(**NOISY),
        args(3).but(**NOISY),
        args(1, False).but(**NOISY),
        args(memory_size=2, scale_init_precond=False).but(**NOISY),
    ],
    "scale_by_backtracking_linesearch": [
        case.but(extra=mirrored, steps=12, why="each of Optax's steps is slow to compile")
        for case in (
            args(15),
            args(10, 0.3, 0.5, 2.0, 20.0),
            args(5, store_grad=True, max_learning_rate=8.0, decrease_factor=0.4),
            args(15, 0.1, 0.7, float("inf"), 30.0, 1e-2, 1e-3),
        )
    ],
    "scale_by_zoom_linesearch": [
        case.but(
            extra=mirrored,
            steps=12,
            states=case.named.get("curv_rtol") == 0.1 or not case.named,
            why="slow to compile; near the lowest point the gradient that is left is all rounding",
        )
        for case in (
            args(15),
            args(10, 1.5, curv_rtol=0.1),
            args(20, None, 1e-3, 3.0, 0.2, 0.3, None, initial_guess_strategy="one"),
            args(max_linesearch_steps=4, curv_rtol=1e-3, increase_factor=1.1),
        )
    ],
}

OPTIMIZERS: dict[str, list[Args]] = {
    "lbfgs": [
        args().but(extra=objective, **NOISY),
        args(0.1, 3, linesearch=None).but(**NOISY),
        args(LINEAR, scale_init_precond=False, linesearch=None).but(**NOISY),
        args(memory_size=2, linesearch=search("lib.scale_by_backtracking_linesearch(10)")).but(
            extra=objective, **NOISY
        ),
    ],
}
