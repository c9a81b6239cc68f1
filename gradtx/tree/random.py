"""Random trees."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from gradtx.core.dtypes import is_random_key
from gradtx.tree.types import Tree

__all__ = ["random_like", "split_key_like", "unwrap_random_key_data"]


def split_key_like(rng_key: jax.Array, target_tree: Tree) -> Tree:
    """A random key for each leaf."""
    leaves, treedef = jax.tree.flatten(target_tree)
    return jax.tree.unflatten(treedef, jax.random.split(rng_key, len(leaves)))


def random_like(
    rng_key: jax.Array,
    target_tree: Tree,
    sampler: Callable[..., jax.Array] = jax.random.normal,
    dtype: DTypeLike | None = None,
) -> Tree:
    """Random numbers in the shape of every leaf: sampler(key, shape, dtype).

    dtype: that of the numbers; by default that of each leaf. A sampler that takes `out_sharding`,
    as JAX's do, is asked to shard the numbers like the leaf.
    """
    placed = "out_sharding" in inspect.signature(sampler).parameters

    def sample(key: jax.Array, leaf: ArrayLike) -> jax.Array:
        placement = {"out_sharding": jax.typeof(leaf).sharding} if placed else {}
        return sampler(key, jnp.shape(leaf), dtype or jnp.result_type(leaf), **placement)

    return jax.tree.map(sample, split_key_like(rng_key, target_tree), target_tree)


def unwrap_random_key_data(input_tree: Tree) -> Tree:
    """Typed random keys as the integers that they hold; other leaves as they are."""

    def unwrap(x: jax.Array) -> jax.Array:
        return jax.random.key_data(x) if is_random_key(x) else x

    return jax.tree.map(unwrap, input_tree)
