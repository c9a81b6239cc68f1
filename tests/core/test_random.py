"""Random numbers of leaves: every leaf, state field, purpose and step has its own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.core.leaves import key_paths, path_words

N = 4096
# CRC-32 cannot tell these two apart.
TWINS = ("model/layers_14/experts_13/ln2/scale", "model/layers_17/experts_6/attn/k/bias")


def tree_of(paths: Any, leaf: Any) -> Any:
    """Nested dicts with the leaf at each of these paths."""
    tree: dict[str, Any] = {}
    for path in paths:
        node = tree
        *above, last = path.split("/")
        for key in above:
            node = node.setdefault(key, {})
        node[last] = leaf
    return tree


def first_step(tx: Any, gradients: Any, params: Any) -> Any:
    return jax.jit(lambda g, p: tx.update(g, tx.init(p), p))(gradients, params)


def noise(tx: Any, gradients: Any, params: Any) -> list[np.ndarray]:
    return [np.asarray(x).ravel() for x in jax.tree.leaves(first_step(tx, gradients, params)[0])]


def added(tree: Any) -> list[np.ndarray]:
    """The noise of `add_noise` in each leaf."""
    zeros = jax.tree.map(lambda x: jnp.zeros(N), tree)
    return noise(gradtx.add_noise(1.0, 0.0), zeros, zeros)


def private(tree: Any) -> list[np.ndarray]:
    """The noise of `differentially_private_aggregate`."""
    params = jax.tree.map(lambda x: jnp.zeros(N), tree)
    examples = jax.tree.map(lambda p: jnp.zeros((2, N)), params)
    return noise(gradtx.differentially_private_aggregate(1.0, 1.0), examples, params)


def rounded(tree: Any) -> list[np.ndarray]:
    """Which elements `stochastic_rounding` moved: a quarter of them."""
    params = jax.tree.map(lambda x: jnp.ones(N, jnp.bfloat16), tree)
    gradients = jax.tree.map(lambda p: jnp.full(N, 2.0**-9), params)
    return [x != 0 for x in noise(gradtx.stochastic_rounding(), gradients, params)]


def stored(tree: Any) -> list[np.ndarray]:
    """Which elements of the moments `store` rounded up: 0.1 and 0.001 are between two bfloat16."""
    ones = jax.tree.map(lambda x: jnp.ones(N), tree)
    _, state = first_step(gradtx.store(gradtx.scale_by_adam(), "bfloat16"), ones, ones)
    moments = (state.inner_state.mu, state.inner_state.nu)
    arrays = [np.asarray(x, np.float64) for x in jax.tree.leaves(moments)]
    return [x > x.min() for x in arrays]


def assert_independent(rows: list[np.ndarray]) -> None:
    correlations = np.corrcoef(np.asarray(rows, np.float64)) - np.eye(len(rows))
    assert np.max(np.abs(correlations)) < 5 / np.sqrt(N)


@pytest.mark.parametrize("draw", [added, private, rounded, stored])
def test_every_leaf_and_field_has_its_own(draw: Any) -> None:
    rows = draw(tree_of(TWINS, 0))
    assert len(rows) == (4 if draw is stored else 2)
    assert_independent(rows)


@pytest.mark.parametrize("draw", [added, private, rounded, stored])
def test_paths_that_are_printed_alike_are_told_apart(draw: Any) -> None:
    assert_independent(draw({"a/b": 0, "a": {"b": 0}, "c/0": 0, "c": [0]}))
    assert_independent([draw({"0": 0})[0], draw([0])[0]])


def test_transformations_of_one_seed_are_independent() -> None:
    tree = {"w": 0}
    assert_independent([*added(tree), *private(tree), *rounded(tree), *stored(tree)])


def test_the_leaves_of_a_large_model_are_told_apart() -> None:
    """A thousand experts in a hundred layers; of words of 32 bits about eighteen would be twins."""
    parts = ("attn/k/bias", "ln/scale", "up/kernel", "down/kernel")
    tree = {
        f"layers_{i}": {f"experts_{j}": dict.fromkeys(parts, 0) for j in range(1000)}
        for i in range(100)
    }
    words = [path_words(keys) for keys in key_paths(tree)]
    assert len(set(words)) == len(words) == 400_000
    assert {x.dtype for x in words[0]} == {np.dtype(np.uint32)}


def test_words_are_as_good_as_random() -> None:
    """Each of the 64 bits is set in half of the leaves, whatever another bit is."""
    words = np.asarray([path_words(keys) for keys in key_paths(list(range(N)))], "<u4")
    bits = np.unpackbits(words.view(np.uint8), axis=1).astype(np.float64)
    assert np.max(np.abs(bits.mean(axis=0) - 0.5)) < 5 * 0.5 / np.sqrt(N)
    assert np.max(np.abs(np.corrcoef(bits.T) - np.eye(64))) < 6 / np.sqrt(N)


def test_a_rule_of_ones_own_is_given_both_words() -> None:
    @gradtx.per_leaf
    def own() -> Any:
        def update(grad: Any, leaf: Any) -> Any:
            first, second = leaf
            return jnp.where(grad > 0, first, second).astype(jnp.float32)

        return update

    params = {"a": jnp.asarray([1.0, -1.0]), "b": [jnp.asarray([1.0, -1.0])]}
    for run in (own().update, jax.jit(own().update)):
        updates, _ = run(params, own().init(params))
        for keys, x in jax.tree_util.tree_leaves_with_path(updates):
            np.testing.assert_array_equal(x, np.asarray(path_words(keys), np.float32))


SEEDED: dict[str, Any] = {
    "add_noise": lambda seed: gradtx.add_noise(0.1, 0.5, key=seed),
    "noisy_sgd": lambda seed: gradtx.noisy_sgd(0.1, seed=seed),
    "kron": lambda seed: gradtx.kron(seed=seed, preconditioner_update_probability=1.0),
}


@pytest.mark.parametrize("name", SEEDED)
def test_every_seed_counts_or_is_refused(name: str) -> None:
    make, grads = SEEDED[name], jnp.array([[1.0, 2.0], [3.0, -5.0]])

    made = [
        np.asarray(second_of(make(seed), grads)) for seed in (0, 1, 2**31 - 1, 2**31, 2**32 - 1)
    ]
    assert len({x.tobytes() for x in made}) == len(made)
    # The value may be an argument of a program, whose whole numbers are of 32 bits.
    np.testing.assert_allclose(jax.jit(second_of)(make(2**31), grads), made[3], rtol=1e-5)
    for seed in (-1, 2**32, 2**40):
        with pytest.raises(
            ValueError, match=rf"{name}: .*must be a whole number in \[0, 2\*\*32\)"
        ):
            make(seed)


def second_of(tx: Any, grads: Any) -> Any:
    """The second update of a run."""
    _, state = tx.update(grads, tx.init(grads), grads)
    return tx.update(grads, state, grads)[0]
