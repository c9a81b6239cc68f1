"""What transformations that skip a step share: is everything finite, and what to emit instead."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core.dtypes import cast, is_inexact
from gradtx.core.state import Updates


def all_finite(tree: Any) -> Any:
    """Whether no leaf holds a NaN or an infinity."""
    arrays = map(jnp.asarray, jax.tree.leaves(tree))
    return all_zero([zero_if_finite(x) for x in arrays if is_inexact(x)])


def zero_if_finite(x: jax.Array) -> jax.Array:
    """0 where x is finite, NaN where it is not; real."""
    difference = x - x
    return difference.real + difference.imag if jnp.iscomplexobj(x) else difference


def all_zero(arrays: list[jax.Array]) -> Any:
    """Whether arrays of zeros and NaNs are all zero.

    Their sum says it in one vectorised pass over each. To ask every element takes two passes, the
    first of which stores flags; and the maximum of an array loses a NaN in XLA:CPU.
    """
    sums = [cast(lax.reduce_sum(x, tuple(range(x.ndim))), np.float32) for x in arrays]
    total = functools.reduce(lax.add, sums, jnp.zeros((), np.float32))
    # XLA copies a cheap scalar into the loop of every leaf that uses it, and this one is a sum over
    # all leaves. A square root is not cheap, so it is computed once.
    # Its derivative at 0, which nobody uses, would be an infinity for jax_debug_nans to trip over.
    return jnp.sqrt(lax.stop_gradient(total)) == 0


def idle_zeros(like: Updates, count: Any) -> Updates:
    """Zeros, each made from its own leaf in a way that XLA does not see through. `count` is never
    negative. Of one zero shared by leaves of equal shape XLA would make a temporary and a copy for
    each leaf, and zeros told apart by constants would be compiled one by one."""

    def zero(x: Any) -> Any:
        x = jnp.asarray(x)
        return lax.select(jnp.broadcast_to(count < 0, x.shape), x, lax.full_like(x, 0))

    return jax.tree.map(zero, like)


def untouched(updates: Updates, count: Any) -> Updates:
    """The updates as they are, in a way that XLA does not see through; `count` is never negative.
    A branch of a conditional that only hands on what it got XLA for GPU copies, and the state with
    it; of one that computes something it makes a select."""

    def same(x: Any) -> Any:
        x = jnp.asarray(x)
        return lax.select(jnp.broadcast_to(count < 0, x.shape), lax.full_like(x, 0), x)

    return jax.tree.map(same, updates)
