"""Gradient noise: its size, its independence, where it comes from."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

from .replay import assert_close, replay

N = 20_000
ZEROS = {"a": jnp.zeros(N), "b": jnp.zeros((N // 100, 100))}


def noise(tx: Any, steps: int, zeros: Any = ZEROS) -> Any:
    many = jax.tree.map(lambda x: np.zeros((steps, *x.shape), x.dtype), zeros)
    return jax.tree.map(np.asarray, replay(tx, many, many))


@pytest.mark.parametrize(("eta", "gamma"), [(0.01, 0.55), (1.0, 0.0), (4.0, 2.0)])
def test_the_noise_is_normal_and_falls(eta: float, gamma: float) -> None:
    """Mean 0 and variance eta / t^gamma to five standard errors, and normal tails."""
    made = noise(gradtx.add_noise(eta, gamma, 3), 4)
    for name in ZEROS:
        for t, x in enumerate(made[name], start=1):
            z = x.ravel() / np.sqrt(eta / t**gamma)
            assert abs(np.mean(z)) < 5 / np.sqrt(N)
            assert abs(np.mean(z**2) - 1) < 5 * np.sqrt(2 / N)
            assert abs(np.mean(z**4) - 3) < 5 * np.sqrt(96 / N)
            assert abs(np.mean(np.abs(z) > 2) - 0.0455) < 5 * np.sqrt(0.0455 / N)


def test_leaves_steps_and_keys_are_independent() -> None:
    made, other = (noise(gradtx.add_noise(1.0, 0.0, key), 3) for key in (3, 4))
    rows = [x.ravel() for x in (*made["a"], *made["b"], *other["a"], *other["b"])]
    correlations = np.corrcoef(rows) - np.eye(len(rows))
    assert np.max(np.abs(correlations)) < 5 / np.sqrt(N)


def test_the_noise_of_a_leaf_is_its_own() -> None:
    """From the leaf's path: the other leaves, and one that is absent, do not change it."""
    tx = gradtx.add_noise(1.0, 0.0, 3)
    whole = noise(tx, 3)
    assert_close(noise(tx, 3, {"b": ZEROS["b"]})["b"], whole["b"])
    state = tx.init(ZEROS)
    updates, _ = tx.update({**ZEROS, "a": None}, state)
    assert_close(updates["b"], whole["b"][0])


def test_a_key_is_a_number_or_a_key() -> None:
    """And seed is its older name; a sweep over keys is one map."""
    expected = noise(gradtx.add_noise(1.0, 0.0, 3), 2)
    for key in (jax.random.key(3), jax.random.PRNGKey(3), np.int32(3)):
        assert_close(noise(gradtx.add_noise(1.0, 0.0, key), 2)["a"], expected["a"])
    assert_close(noise(gradtx.noisy_sgd(1.0, 1.0, 0.0, seed=3), 2)["a"], -expected["a"])
    none, zero = (noise(gradtx.add_noise(1.0, 0.0, *key), 2)["a"] for key in ((), (0,)))
    assert_close(none, zero)
    keys = jax.vmap(jax.random.PRNGKey)(jnp.arange(4))
    sweep = gradtx.add_noise(jnp.ones(4), jnp.zeros(4), keys)
    states = jax.vmap(lambda tx: tx.init(ZEROS))(sweep)
    updates, _ = jax.vmap(lambda tx, s: tx.update(ZEROS, s))(sweep, states)
    assert_close(updates["a"][3], expected["a"][0])
    with pytest.raises(ValueError, match="add_noise: seed is the older name of key"):
        gradtx.add_noise(1.0, 0.0, 3, seed=3)
    with pytest.raises(TypeError, match="add_noise: key must be a whole number or a random key"):
        gradtx.add_noise(1.0, 0.0, "3")


def test_complex_noise_has_its_variance_in_both_parts() -> None:
    made = noise(gradtx.add_noise(1.0, 0.0), 1, {"z": jnp.zeros(N, complex)})["z"][0]
    for part in (made.real, made.imag):
        assert abs(np.mean(part**2) - 0.5) < 5 * 0.5 * np.sqrt(2 / N)
