"""SGD that also averages the points it has been at."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import cast, number_dtype, scalar_dtype
from gradtx.core.kinds import NonNegative
from gradtx.core.numerics import times
from gradtx.core.rule import Rule
from gradtx.core.state import Count, PastParams

__all__ = ["ASGDState", "scale_by_asgd"]


class ASGDState(NamedTuple):
    """eta: the rate of the next step; ax: the mean of the parameters since step t0 + 1, before
    which it is the last parameters."""

    count: Count
    eta: Any
    ax: PastParams


@per_tree
def scale_by_asgd(
    learning_rate: NonNegative,
    lambd: NonNegative = 1e-4,
    alpha: NonNegative = 0.75,
    t0: NonNegative = 1e6,
) -> Any:
    """Steps of a falling rate, with decay, and the mean of where they lead.

        u   = -eta_t (g + lambd param)
        ax <- ax + (param + u - ax) / max(1, t - 1 - t0)
        eta_1 = learning_rate,  eta_(t+1) = learning_rate / (1 + lambd learning_rate t)^alpha

    as PyTorch does it, where a scheduled rate acts one step later. The mean does not act on the
    steps: `gradtx.tree.get(state, "ax")` reads it, in float32 or wider, and it is what to evaluate
    with. The update is a whole step: no learning rate follows. Polyak & Juditsky, 1992,
    https://doi.org/10.1137/0330046
    """

    def init(params: Any, step: Any) -> ASGDState:
        eta = jnp.array(learning_rate, scalar_dtype())
        return ASGDState(step.count, eta, jax.tree.map(jnp.copy, params))

    def update(updates: Any, state: ASGDState, params: Any, step: Any) -> Any:
        time = cast(step.count, number_dtype(learning_rate))
        weight = 1 / jnp.maximum(time - 1 - t0, 1)

        def stepped(grad: Any, param: Any) -> Any:
            return times(-state.eta, grad + lambd * param)

        def averaged(ax: Any, param: Any, u: Any) -> Any:
            # With the weight 1 it is the new point itself, without a rounding.
            new = param + u
            return jnp.where(weight == 1, new, ax + times(weight, new - ax))

        u = jax.tree.map(stepped, updates, params)
        eta = learning_rate / (1 + lambd * learning_rate * time) ** alpha
        return u, ASGDState(step.count, eta, jax.tree.map(averaged, state.ax, params, u))

    return Rule(init, update)
