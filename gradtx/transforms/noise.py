"""Gradient noise."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import cast, number_dtype
from gradtx.core.kinds import NonNegative, RandomKey
from gradtx.core.leaves import Leaves, words_of
from gradtx.core.numerics import sqrt, times
from gradtx.core.opaque import opaque
from gradtx.core.rule import Rule
from gradtx.core.state import Count

__all__ = ["AddNoiseState", "add_noise"]


class AddNoiseState(NamedTuple):
    """The data of the random key from which the next noise is made."""

    count: Count
    rng_key: Any


def start_of(key: Any, seed: Any, where: str) -> Any:
    """The key or its older name, or 0."""
    if key is not None and seed is not None:
        raise ValueError(f"{where}: seed is the older name of key, give one of them")
    return next((x for x in (key, seed) if x is not None), 0)


@per_tree
def add_noise(
    eta: NonNegative,
    gamma: NonNegative,
    key: RandomKey | None = None,
    *,
    seed: RandomKey | None = None,
) -> Any:
    """Add normal noise whose variance falls with time.

        u = g + sqrt(eta / t^gamma) * z,            z ~ N(0, 1) for every element

    key: a whole number or a key of jax.random, 0 without one; seed is its older name. On every step
    the key is split in two, one for the next step and one for this; the noise of a leaf is made
    from the latter with 64 bits of a hash of the leaf's path folded in, so that it does not depend
    on the other leaves, nor on how the tree is sharded, and no two leaves share theirs. Two of the
    same key in one chain make the same noise: give each its own. Complex noise has its variance in
    both parts together.

    Raises: ValueError for both key and seed. Neelakantan et al., 2015,
    https://arxiv.org/abs/1511.06807
    """
    first = start_of(key, seed, "add_noise")

    def init(step: Any) -> AddNoiseState:
        return AddNoiseState(step.count, fresh_key(first))

    def update(updates: Any, state: AddNoiseState, step: Any) -> Any:
        deviation = sqrt(eta / cast(step.count, number_dtype(gamma)) ** gamma)
        rng_key, own = jax.random.split(state.rng_key)
        noise = normal_like(own, updates, "add_noise")
        noisy = jax.tree.map(lambda g, z: g + times(deviation, z), updates, noise)
        return noisy, AddNoiseState(step.count, rng_key)

    return Rule(init, update)


def fresh_key(key: Any) -> jax.Array:
    """The data of a key, in a buffer of its own."""
    return jax.random.PRNGKey(key) if np.ndim(key) == 0 else jnp.copy(key)


def normal_like(key: Any, tree: Any, purpose: str) -> Any:
    """Normal numbers for every leaf, from the key with both words of the leaf folded in; other
    ones for each purpose."""
    leaves = Leaves.of(tree)
    pairs = zip(leaves.values, leaves.key_paths, strict=True)
    return leaves.tree(
        None
        if x is None
        else jax.random.normal(_fold(key, words_of(keys, purpose), x), x.shape, x.dtype)
        for x, keys in pairs
    )


def _fold(key: Any, words: Sequence[Any], leaf: Any) -> Any:
    """The key of one leaf."""
    return functools.reduce(jax.random.fold_in, opaque(words, leaf), key)
