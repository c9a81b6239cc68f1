"""For transformations that skip steps: whether a tree is finite, and what to emit instead of it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core.dtypes import cast, is_inexact
from gradtx.core.launches import Axes, reduce_each
from gradtx.core.state import Updates


def all_finite(tree: Any) -> jax.Array:
    """Whether no leaf of a tree holds a NaN or an infinity: a boolean scalar."""
    arrays = map(jnp.asarray, jax.tree.leaves(tree))
    return _are_zero(reduce_each(_sum_if_finite, [x for x in arrays if is_inexact(x)]))


def zero_if_finite(x: jax.Array) -> jax.Array:
    """0 where x is finite and NaN elsewhere; real, in x's shape."""
    difference = x - x
    return difference.real + difference.imag if jnp.iscomplexobj(x) else difference


def all_zero(arrays: Sequence[jax.Array]) -> jax.Array:
    """Whether arrays that hold only zeros and NaNs are all zero: a boolean scalar.

    Summing takes one vectorised pass over each array. Testing every element takes two passes, the
    first of which stores flags, and XLA:CPU's maximum of an array can lose a NaN.
    """
    return _are_zero(reduce_each(_sum, arrays))


def _sum(axes: Axes, x: jax.Array) -> jax.Array:
    return cast(lax.reduce_sum(x, axes), np.float32)


def _sum_if_finite(axes: Axes, x: jax.Array) -> jax.Array:
    # Computed on the stack itself: XLA would take the bare sum of a stack apart.
    return _sum(axes, zero_if_finite(x))


def _are_zero(sums: Sequence[jax.Array]) -> jax.Array:
    """Whether sums of zeros and NaNs, in vectors, are all zero."""
    totals = [lax.reduce_sum(x, (0,)) for x in sums]
    total = functools.reduce(lax.add, totals, jnp.zeros((), np.float32))
    # XLA recomputes a cheap scalar in the loop of every leaf that uses it, and this one is a sum
    # over all leaves. A square root counts as expensive, so it is computed once. No gradient flows
    # through it: its derivative at 0 is an infinity, which jax_debug_nans would trip over.
    return jnp.sqrt(lax.stop_gradient(total)) == 0


def idle_zeros(like: Updates, count: jax.Array) -> Updates:
    """Zeros like each leaf, which XLA cannot merge.

    Merging the zeros of leaves of equal shape costs a temporary and a copy per leaf, and zeros made
    distinct by constants would be compiled one by one. So each is a select on its own leaf, with a
    condition that XLA cannot decide: `count`, an integer scalar, is never negative.
    """

    def zero(x: Any) -> jax.Array:
        x = jnp.asarray(x)
        return lax.select(jnp.broadcast_to(count < 0, x.shape), x, lax.full_like(x, 0))

    return jax.tree.map(zero, like)


def untouched(updates: Updates, count: jax.Array) -> Updates:
    """The updates unchanged, behind a select that XLA cannot remove; `count`, an integer scalar, is
    never negative.

    For a branch of a conditional: arrays that a branch only passes through are copied by XLA ahead
    of the conditional, whichever branch is taken.
    """

    def same(x: Any) -> jax.Array:
        x = jnp.asarray(x)
        return lax.select(jnp.broadcast_to(count < 0, x.shape), lax.full_like(x, 0), x)

    return jax.tree.map(same, updates)
