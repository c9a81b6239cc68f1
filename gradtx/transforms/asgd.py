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
    """Take steps of SGD at a decreasing rate, with L2 regularisation, and average the iterates.

        u   = -eta_t (g + lambd param)
        ax <- ax + (param + u - ax) / max(1, t - 1 - t0)
        eta_1 = learning_rate,  eta_(t+1) = learning_rate / (1 + lambd learning_rate t)^alpha

    as in PyTorch, where a scheduled rate takes effect one step later. The mean does not influence
    the steps; evaluate at it: `gradtx.tree.get(state, "ax")`, float32 or wider. The update is the
    full step: no learning rate follows.

    Args:
        learning_rate: the length of the first step, as a multiple of the gradient.
        lambd: the strength of the L2 regularisation, and of the decrease of the learning rate.
            Larger pulls parameters harder towards 0 and shortens the steps sooner; 0 switches both
            off.
        alpha: the power with which the learning rate decreases: 0 keeps it constant, larger
            shortens the steps sooner.
        t0: the step after which averaging begins; until then ax is the latest point. The default
            hardly ever averages: set it to about where the loss levels off.

    State: ax, 4 bytes a parameter.

    Example:
        >>> tx = gradtx.scale_by_asgd(0.5, lambd=0.0, t0=0)
        >>> params = jnp.array(1.0)
        >>> state = tx.init(params)
        >>> for g in (1.0, -1.0, 1.0, -1.0):  # between 0.5 and 1.0
        ...     updates, state = tx.update(jnp.array(g), state, params)
        ...     params = gradtx.apply_updates(params, updates)
        >>> print(params, f"{gradtx.tree.get(state, 'ax'):.3f}")
        1.0 0.833

    See also: `gradtx.torch.asgd`, `ema`.

    References: Polyak & Juditsky, 1992, https://doi.org/10.1137/0330046
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
