"""Gradient noise."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import cast, number_dtype
from gradtx.core.hyperparameters import NonNegative, RandomKey
from gradtx.core.leaves import Leaves, path_words
from gradtx.core.numerics import sqrt, times
from gradtx.core.opaque import opaque
from gradtx.core.rule import Rule
from gradtx.core.state import Count, Updates
from gradtx.core.step import Step

__all__ = ["AddNoiseState", "add_noise"]

# A seed, or the data of a key.
Key = int | Array


class AddNoiseState(NamedTuple):
    """The data of the random key from which the next noise is drawn."""

    count: Count
    rng_key: Array


def start_of(key: Key | None, seed: Key | None, where: str) -> Key:
    """The argument key, or seed, its older name; 0 without either."""
    if key is not None and seed is not None:
        raise ValueError(f"{where}: seed is the older name of key: give only one of them")
    return next((x for x in (key, seed) if x is not None), 0)


@per_tree
def add_noise(
    eta: NonNegative,
    gamma: NonNegative,
    key: RandomKey | None = None,
    *,
    seed: RandomKey | None = None,
) -> Rule:
    """Add normal noise whose variance decreases over time.

        u = g + sqrt(eta / t^gamma) * z,            z ~ N(0, 1) for every element

    It helps to train very deep networks and to escape poor starting points.

    On every step the key is split in two, one for this step and one for the next. A leaf's noise is
    drawn from the former with 64 bits of a hash of the leaf's path folded in, so that it depends
    neither on the other leaves nor on how the tree is sharded, and no two leaves share theirs. The
    variance of complex noise is that of both parts together.

    Args:
        eta: the variance of the noise on the first step. The paper tries 0.01, 0.3 and 1; 0 adds
            none
        gamma: how fast the variance falls; 0.55 in the paper, 0 keeps it
        key: the seed of the random numbers: a whole number or a key of `jax.random`; None means 0.
            Two add_noise with the same key in one chain draw the same noise: give each its own
        seed: the older name of key; give one of them

    State: the key, 8 bytes, and the count, for the whole tree.

    Raises: ValueError if both key and seed are given.

    Example:
        >>> params = {"a": jnp.zeros(3), "b": jnp.zeros(3)}
        >>> tx = gradtx.add_noise(eta=0.01, gamma=0.55, key=1)
        >>> noise, state = tx.update(params, tx.init(params))
        >>> print(bool((noise["a"] == noise["b"]).any()))  # no two leaves share their noise
        False

    See also: `noisy_sgd`; `differentially_private_aggregate`, which clips each example first.

    References: Neelakantan et al., 2015, https://arxiv.org/abs/1511.06807
    """
    first = start_of(key, seed, "add_noise")

    def init() -> AddNoiseState:
        return AddNoiseState(count=None, rng_key=fresh_key(first))

    def update(updates: Updates, state: AddNoiseState, step: Step) -> tuple[Updates, AddNoiseState]:
        deviation = sqrt(eta / cast(step.count, number_dtype(gamma)) ** gamma)
        rng_key, own = jax.random.split(state.rng_key)
        noise = normal_like(own, updates, "add_noise")
        noisy = jax.tree.map(lambda g, z: g + times(deviation, z), updates, noise)
        return noisy, state._replace(rng_key=rng_key)

    return Rule(init, update)


def fresh_key(key: Key) -> Array:
    """The data of a key, two uint32, in a buffer of its own."""
    return jax.random.PRNGKey(key) if np.ndim(key) == 0 else jnp.copy(key)


def normal_like(key: Array, tree: Updates, purpose: str) -> Updates:
    """Standard normal numbers shaped like every leaf, from the key with both words of the leaf's
    path folded in; independent for different purposes."""
    leaves = Leaves.of(tree)
    pairs = zip(leaves.values, leaves.key_paths, strict=True)
    return leaves.tree(
        None
        if x is None
        else jax.random.normal(_fold(key, path_words(keys, purpose), x), x.shape, x.dtype)
        for x, keys in pairs
    )


def _fold(key: Array, words: Sequence[Any], leaf: Array) -> Array:
    """The key of one leaf."""
    return functools.reduce(jax.random.fold_in, opaque(words, leaf), key)
