"""Gradients extrapolated by their last change: optimistic gradient descent."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import cast
from gradtx.core.hyperparameters import Real
from gradtx.core.leaves import Leaves, aligned_arrays
from gradtx.core.numerics import times
from gradtx.core.rule import Rule
from gradtx.core.state import Params, Updates
from gradtx.tree import zeros_like

__all__ = ["ScaleByOptimisticGradientState", "scale_by_optimistic_gradient"]


class ScaleByOptimisticGradientState(NamedTuple):
    """The previous gradient, a tree like the params, and whether there is none yet, a scalar."""

    is_initial_step: Array
    previous_gradient: Updates


@per_tree
def scale_by_optimistic_gradient(alpha: Real = 1.0, beta: Real = 1.0) -> Rule:
    """Extrapolate the gradient by its last change.

        u = (alpha + beta) * g - beta * (the previous gradient)    (u = alpha * g on the first step)

    It guesses what the next gradient will be. In games, where two players descend against each
    other and plain gradient steps circle the equilibrium, it converges.

    Args:
        alpha: the factor on the gradient itself
        beta: the factor on its change since the last step; 0 leaves the extrapolation out

    State: previous_gradient, 4 bytes a parameter, and a boolean.

    Example:
        >>> tx = gradtx.scale_by_optimistic_gradient()
        >>> state = tx.init(jnp.zeros(1))
        >>> for grad in (1.0, 2.0, 2.0):
        ...     updates, state = tx.update(jnp.array([grad]), state)
        ...     print(updates)
        [1.]
        [3.]
        [2.]

    See also: `optimistic_gradient_descent`, `optimistic_adam`.

    References: Mokhtari et al., 2019, https://arxiv.org/abs/1901.08511
    """
    where = "scale_by_optimistic_gradient: the state's previous_gradient"

    def init(params: Params) -> ScaleByOptimisticGradientState:
        return ScaleByOptimisticGradientState(jnp.ones((), bool), zeros_like(params))

    def update(
        updates: Updates, state: ScaleByOptimisticGradientState
    ) -> tuple[Updates, ScaleByOptimisticGradientState]:
        leaves = Leaves.of(updates)
        before = aligned_arrays(leaves, state.previous_gradient, where)

        def extrapolate(g: Array, old: Array) -> Array:
            old = jnp.where(state.is_initial_step, g, cast(old, g.dtype))
            return times(alpha + beta, g) - times(beta, old)

        pairs = list(zip(leaves.values, before, strict=True))
        u = leaves.tree(None if g is None else extrapolate(g, old) for g, old in pairs)
        kept = leaves.tree(old if g is None else g for g, old in pairs)
        return u, ScaleByOptimisticGradientState(jnp.zeros((), bool), kept)

    return Rule(init, update)
