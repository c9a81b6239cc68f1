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
    return none([~jnp.isfinite(x) for x in arrays if is_inexact(x)])


def none(flags: list[Any]) -> Any:
    """Whether no element of any of these boolean arrays is true."""
    counts = [cast(jnp.any(x), np.float32) for x in flags]
    count = functools.reduce(lax.add, counts, jnp.zeros((), np.float32))
    # XLA copies a cheap scalar into the loop of every leaf that uses it, and this one is a sum over
    # all leaves. A square root is not cheap, so it is computed once.
    return jnp.sqrt(count) == 0


def idle_zeros(like: Updates, count: Any) -> Updates:
    """Zeros that XLA does not know to be equal: of one zero shared by leaves of equal shape it
    would make a temporary and a copy for each leaf. `count` is never negative."""
    leaves, treedef = jax.tree.flatten(like)
    zeros = [cast(count == -1 - i, x.dtype) for i, x in enumerate(leaves)]
    full = [jnp.broadcast_to(zero, x.shape) for zero, x in zip(zeros, leaves, strict=True)]
    return jax.tree.unflatten(treedef, full)
