"""Random trees."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.dtypes import is_random_key

__all__ = ["random_like", "split_key_like", "unwrap_random_key_data"]


def split_key_like(rng_key: jax.Array, target_tree: Any) -> Any:
    """A key for each leaf."""
    leaves, treedef = jax.tree.flatten(target_tree)
    return jax.tree.unflatten(treedef, jax.random.split(rng_key, len(leaves)))


def random_like(
    rng_key: jax.Array,
    target_tree: Any,
    sampler: Callable[..., Any] = jax.random.normal,
    dtype: Any = None,
) -> Any:
    """Random numbers in the shape of every leaf: sampler(key, shape, dtype).

    dtype: of the numbers; that of each leaf without it. A sampler that takes `out_sharding`, as
    those of JAX do, is told to place them as the leaf is placed.
    """
    placed = "out_sharding" in inspect.signature(sampler).parameters

    def sample(key: jax.Array, leaf: Any) -> Any:
        placement = {"out_sharding": jax.typeof(leaf).sharding} if placed else {}
        return sampler(key, jnp.shape(leaf), dtype or jnp.result_type(leaf), **placement)

    return jax.tree.map(sample, split_key_like(rng_key, target_tree), target_tree)


def unwrap_random_key_data(input_tree: Any) -> Any:
    """Typed random keys as the integers they hold; other leaves as they are."""

    def unwrap(x: Any) -> Any:
        return jax.random.key_data(x) if is_random_key(x) else x

    return jax.tree.map(unwrap, input_tree)
