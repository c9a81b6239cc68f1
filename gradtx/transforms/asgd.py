"""SGD that also averages its iterates."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import cast, number_dtype, scalar_dtype
from gradtx.core.hyperparameters import NonNegative
from gradtx.core.numerics import times
from gradtx.core.rule import Rule
from gradtx.core.state import Count, Params, PastParams, Updates
from gradtx.core.step import Step

__all__ = ["ASGDState", "scale_by_asgd"]


class ASGDState(NamedTuple):
    """eta: the learning rate of the next step, a scalar; ax: the mean of the parameters since step
    t0 + 1, and until then the latest parameters; shaped like them."""

    count: Count
    eta: Array
    ax: PastParams


@per_tree
def scale_by_asgd(
    learning_rate: NonNegative,
    lambd: NonNegative = 1e-4,
    alpha: NonNegative = 0.75,
    t0: NonNegative = 1e6,
) -> Rule:
    """SGD with a decreasing learning rate and L2 regularisation, and the mean of its iterates.

        u   = -eta_t (g + lambd param)
        ax <- ax + (param + u - ax) / max(1, t - 1 - t0)
        eta_1 = learning_rate,  eta_(t+1) = learning_rate / (1 + lambd learning_rate t)^alpha

    as in PyTorch, where a scheduled rate takes effect one step later. The mean does not influence
    the steps; evaluate at it: `gradtx.tree.get(state, "ax")`, float32 or wider. The update is the
    full step: no learning rate follows. Polyak & Juditsky, 1992,
    https://doi.org/10.1137/0330046
    """

    def init(params: Params) -> ASGDState:
        eta = jnp.array(learning_rate, scalar_dtype())
        return ASGDState(count=None, eta=eta, ax=jax.tree.map(jnp.copy, params))

    def update(
        updates: Updates, state: ASGDState, params: Params, step: Step
    ) -> tuple[Updates, ASGDState]:
        time = cast(step.count, number_dtype(learning_rate))
        weight = 1 / jnp.maximum(time - 1 - t0, 1)

        def stepped(grad: Array, param: Array) -> Array:
            return times(-state.eta, grad + lambd * param)

        def averaged(ax: Array, param: Array, u: Array) -> Array:
            # With weight 1 this is exactly the new point, with no rounding error.
            new = param + u
            return jnp.where(weight == 1, new, ax + times(weight, new - ax))

        u = jax.tree.map(stepped, updates, params)
        eta = learning_rate / (1 + lambd * learning_rate * time) ** alpha
        return u, state._replace(eta=eta, ax=jax.tree.map(averaged, state.ax, params, u))

    return Rule(init, update)
