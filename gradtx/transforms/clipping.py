"""Bounding the updates."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from gradtx.core.decorators import per_leaf
from gradtx.core.kinds import NonNegative
from gradtx.core.numerics import times
from gradtx.core.rule import Rule
from gradtx.tree import global_norm


@per_leaf
def clip(max_delta: NonNegative) -> Any:
    """u = min(max(g, -max_delta), max_delta), element by element."""
    return lambda grad: jnp.clip(grad, -max_delta, max_delta)


@per_leaf
def clip_by_global_norm(max_norm: NonNegative) -> Any:
    """Shrink the updates so that the norm of the whole tree is at most max_norm.

        u = g * min(1, max_norm / ||g||)

    The norm is one scalar for the tree, accumulated in float32 or wider; zero updates stay zero
    and keep a finite derivative. A NaN anywhere makes every update NaN. Pascanu et al., 2013,
    https://arxiv.org/abs/1211.5063
    """

    def gather(updates: Any) -> Any:
        # A quotient and not a choice of two: XLA copies a cheap scalar into the loop of each leaf.
        norm = jnp.maximum(global_norm(updates), max_norm)
        return max_norm / jnp.maximum(norm, np.finfo(norm.dtype).tiny)

    return Rule(None, lambda grad, gathered: times(gathered, grad), gather)
