"""What is tried in every house: optimizers, and the same run with nothing of the house in it."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

STEPS = 6
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(16, 4)), jnp.float32)
Y = jnp.asarray(RNG.normal(size=(16, 2)), jnp.float32)


def is_matrix(params: Any) -> Any:
    """A mask for any tree of arrays."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


# The same construction in either library: Optax's is the oracle.
TWINS: dict[str, Callable[[Any], Any]] = {
    "momentum": lambda lib: lib.sgd(0.05, momentum=0.9),
    "scheduled": lambda lib: lib.adamw(lib.cosine_decay_schedule(0.05, 10)),
    "clipped": lambda lib: lib.chain(lib.clip_by_global_norm(0.5), lib.adam(0.05)),
    "masked": lambda lib: lib.chain(
        lib.masked(lib.add_decayed_weights(0.1), is_matrix), lib.scale_by_learning_rate(0.1)
    ),
}
every_twin = pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)

# What Optax has not: its oracle is the run without the house.
OWN: dict[str, gradtx.GradientTransformation] = {
    "int8": gradtx.store(gradtx.adamw(0.05), "int8", min_size=1),
    "accumulated": gradtx.accumulate(gradtx.chain(gradtx.clip(1.0), gradtx.adam(0.05)), 2),
    "groups": gradtx.partition({"bias|/b$|^b$": gradtx.sgd(0.1), ".*": gradtx.adamw(0.05)}),
    "frozen": gradtx.chain(gradtx.adamw(0.05), gradtx.freeze("bias|/b$|^b$")),
}
every_own = pytest.mark.parametrize("tx", OWN.values(), ids=OWN)


def polyak(lib: Any) -> Any:
    """It needs `value=`."""
    return lib.polyak_sgd(max_learning_rate=0.1)


def by_hand(tx: Any, loss: Callable[[Any], Any], params: Any, steps: int = STEPS) -> Any:
    """The params after some steps of the loop that is in every introduction."""

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params, value=value)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params


def leaves(tree: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Path and values of every leaf; keys of random numbers as their data."""
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        known = hasattr(x, "dtype") and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        x = np.asarray(jax.random.key_data(x) if known else x)
        yield jax.tree_util.keystr(path), x.astype(np.float64) if x.dtype.kind in "fV" else x


def assert_near(got: Any, expected: Any, rtol: float = 2e-5) -> None:
    """Leaf by leaf, whatever holds them, relative to the largest of a leaf. Optax's `1 - b2**t` is
    1.3e-5 off in float32."""
    for (path, mine), (_, theirs) in zip(leaves(got), leaves(expected), strict=True):
        size = np.max(np.abs(theirs), initial=0)
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=rtol * size, err_msg=path)


def assert_same(got: Any, expected: Any) -> None:
    """Bit for bit, in the same structure, dtypes and classes."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for (path, mine), (_, theirs) in zip(leaves(got), leaves(expected), strict=True):
        assert mine.dtype == theirs.dtype, path
        np.testing.assert_array_equal(mine, theirs, err_msg=path)
    for mine, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert mine.dtype == theirs.dtype


def moved(before: Any, after: Any) -> bool:
    """Whether any leaf changed, so that equal runs are runs of something."""
    pairs = zip(leaves(before), leaves(after), strict=True)
    return any(not np.array_equal(x, y) for (_, x), (_, y) in pairs)
