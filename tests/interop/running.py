"""A tree of parameters with gradients for every step, and runs over it."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradtx

_RNG = np.random.default_rng(0)
SHAPES = {"dense": {"kernel": (3, 2), "bias": (2,)}, "head": (4,)}


def _is_shape(x: object) -> bool:
    return isinstance(x, tuple)


def params(dtype: Any = np.float32) -> Any:
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.uniform(0.5, 2, shape), dtype), SHAPES, is_leaf=_is_shape
    )


def grads(step: int, like: Any) -> Any:
    """Numbers that depend on the step and on the place in the leaf only."""

    def grad(x: Any) -> Any:
        i = np.arange(x.size).reshape(x.shape)
        return jnp.asarray(jnp.sin(1.7 * step + 0.9 * i + x.ndim), x.dtype)

    return jax.tree.map(grad, like)


def run(tx: Any, state: Any, tree: Any, steps: Iterable[int]) -> tuple[Any, Any]:
    """(params, state) after these steps, operation by operation."""
    with jax.disable_jit():
        for i in steps:
            updates, state = tx.update(grads(i, tree), state, tree)
            tree = (
                gradtx.apply_updates(tree, updates)
                if isinstance(tx, gradtx.GradientTransformation)
                else optax.apply_updates(tree, updates)
            )
    return tree, state


def begun(tx: Any, steps: int = 3, tree: Any = None) -> tuple[Any, Any]:
    """(params, state) after the first steps from the beginning."""
    tree = params() if tree is None else tree
    with jax.disable_jit():
        state = tx.init(tree)
    return run(tx, state, tree, range(steps))


def assert_equal(got: Any, expected: Any, rtol: float = 0.0) -> None:
    """The same structure, dtypes and weak types; values to `rtol`."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    pairs = zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected), strict=True)
    for (path, x), y in pairs:
        where = jax.tree_util.keystr(path)
        assert jax.typeof(x).weak_type == jax.typeof(y).weak_type, where
        assert x.dtype == y.dtype, where
        x, y = (np.asarray(z, np.float64) for z in (x, y))
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol, err_msg=where)
