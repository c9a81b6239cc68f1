"""Running transformations over recorded gradients, and comparing what comes out."""

from typing import Any

import jax
import numpy as np

STEPS = 50


@jax.jit
def replay(tx: Any, grads: Any, params: Any) -> Any:
    """The updates for ``grads`` at ``params``, both with a leading axis of steps.

    ``tx`` is an argument, so new values of its hyperparameters do not compile again.
    """
    first = jax.tree.map(lambda p: p[0], params)

    def step(state: Any, now: Any) -> tuple[Any, Any]:
        updates, state = tx.update(now[0], state, now[1])
        return state, updates

    return jax.lax.scan(step, tx.init(first), (grads, params))[1]


def assert_close(got: Any, expected: Any, rtol: float = 1e-12, what: str = "") -> None:
    """Equal to ``rtol`` of each element, and to a hundredth of that of the largest in its array.

    The second part is for elements that are small because larger terms cancelled. Arrays carry
    all steps, so what is largest is largest of the whole run.
    """
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, expected {expected.shape}"
    assert np.all(np.isfinite(expected)), f"{what}: the expected values are not finite"
    if not expected.size:
        return
    if expected.dtype == bool:
        assert np.array_equal(got, expected), f"{what}: got {got}, expected {expected}"
        return
    allowed = rtol * (np.abs(expected) + 0.01 * np.max(np.abs(expected)))
    error = np.abs(got - expected)
    if np.all(error <= allowed):  # False for NaN
        return
    at = np.unravel_index(np.argmax(~(error <= allowed)), error.shape)
    raise AssertionError(
        f"{what}: first differs at {tuple(map(int, at))}: "
        f"got {got[at]!r}, expected {expected[at]!r}; "
        f"worst error {np.max(error):.3g} where {np.max(np.abs(expected)):.3g} is the largest value"
    )


def assert_trees_close(got: Any, expected: Any, rtol: float = 1e-12, what: str = "") -> None:
    paths = jax.tree_util.tree_flatten_with_path(expected)[0]
    leaves = jax.tree.leaves(got)
    assert len(leaves) == len(paths), f"{what}: {len(leaves)} leaves, expected {len(paths)}"
    for leaf, (path, value) in zip(leaves, paths, strict=True):
        assert_close(leaf, value, rtol, what + jax.tree_util.keystr(path))
