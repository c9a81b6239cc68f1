"""Gradients that look ahead by what they last changed: optimistic gradient descent."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import cast
from gradtx.core.kinds import Real
from gradtx.core.leaves import Leaves, aligned_arrays
from gradtx.core.numerics import times
from gradtx.core.rule import Rule
from gradtx.core.state import Updates
from gradtx.tree import zeros_like

__all__ = ["ScaleByOptimisticGradientState", "scale_by_optimistic_gradient"]


class ScaleByOptimisticGradientState(NamedTuple):
    """The gradient before, and whether there was none yet."""

    is_initial_step: Any
    previous_gradient: Updates


@per_tree
def scale_by_optimistic_gradient(alpha: Real = 1.0, beta: Real = 1.0) -> Any:
    """Extrapolate the gradient.

        u = (alpha + beta) * g - beta * (the gradient before)           u = alpha * g at first

    Mokhtari et al., 2019, https://arxiv.org/abs/1901.08511
    """
    where = "scale_by_optimistic_gradient: the state's previous_gradient"

    def init(params: Any) -> ScaleByOptimisticGradientState:
        return ScaleByOptimisticGradientState(jnp.ones((), bool), zeros_like(params))

    def update(updates: Any, state: ScaleByOptimisticGradientState) -> Any:
        leaves = Leaves.of(updates)
        before = aligned_arrays(leaves, state.previous_gradient, where)

        def extrapolate(g: Any, old: Any) -> Any:
            old = jnp.where(state.is_initial_step, g, cast(old, g.dtype))
            return times(alpha + beta, g) - times(beta, old)

        pairs = list(zip(leaves.values, before, strict=True))
        u = leaves.tree(None if g is None else extrapolate(g, old) for g, old in pairs)
        kept = leaves.tree(old if g is None else g for g, old in pairs)
        return u, ScaleByOptimisticGradientState(jnp.zeros((), bool), kept)

    return Rule(init, update)
