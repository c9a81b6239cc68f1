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
    """Split a random key into one for each leaf of a tree.

    Args:
        rng_key: a key of `jax.random`.
        target_tree: a tree of any leaves, of which only the structure matters.

    Example:
        >>> keys = gradtx.tree.split_key_like(jax.random.key(0), {"a": 1, "b": 2})
        >>> print(keys["a"].shape, keys["a"] == keys["b"])
        () False

    See also: `tree.random_like`.
    """
    leaves, treedef = jax.tree.flatten(target_tree)
    return jax.tree.unflatten(treedef, jax.random.split(rng_key, len(leaves)))


def random_like(
    rng_key: jax.Array,
    target_tree: Tree,
    sampler: Callable[..., jax.Array] = jax.random.normal,
    dtype: DTypeLike | None = None,
) -> Tree:
    """Draw random numbers in the shape of every leaf of a tree.

        sampler(key, shape, dtype), with a different key for each leaf

    Args:
        rng_key: a key of `jax.random`.
        target_tree: a tree of arrays, of which shapes and dtypes matter.
        sampler: the function that draws. One that takes `out_sharding`, as JAX's do, is asked to
            shard the numbers like the leaf.
        dtype: the dtype of the numbers; None means that of each leaf.

    Example:
        >>> params = {"w": jnp.zeros((2, 3)), "b": jnp.zeros(3, jnp.bfloat16)}
        >>> noise = gradtx.tree.random_like(jax.random.key(0), params)
        >>> print(noise["w"].shape, noise["b"].dtype)
        (2, 3) bfloat16

    See also: `tree.split_key_like`, `add_noise`.
    """
    placed = "out_sharding" in inspect.signature(sampler).parameters

    def sample(key: jax.Array, leaf: ArrayLike) -> jax.Array:
        placement = {"out_sharding": jax.typeof(leaf).sharding} if placed else {}
        return sampler(key, jnp.shape(leaf), dtype or jnp.result_type(leaf), **placement)

    return jax.tree.map(sample, split_key_like(rng_key, target_tree), target_tree)


def unwrap_random_key_data(input_tree: Tree) -> Tree:
    """Replace typed random keys by the integers that they hold; other leaves stay as they are.

    For code that takes arrays only, such as some that save checkpoints.

    Args:
        input_tree: any tree, usually a state.

    Example:
        >>> gradtx.tree.unwrap_random_key_data({"key": jax.random.key(7)})
        {'key': Array([0, 7], dtype=uint32)}
    """

    def unwrap(x: jax.Array) -> jax.Array:
        return jax.random.key_data(x) if is_random_key(x) else x

    return jax.tree.map(unwrap, input_tree)
