"""Coin betting: every coordinate bets a fraction of what it has won so far."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.decorators import per_leaf
from gradtx.core.hyperparameters import NonNegative, Positive
from gradtx.core.numerics import magnitude, real_full_like, zeros_like
from gradtx.core.rule import Rule
from gradtx.core.state import PastParams, Updates

__all__ = ["COCOBState", "scale_by_cocob"]


class COCOBState(NamedTuple):
    """The initial parameters, the sum of -g, the largest |g|, the sum of |g|, and the reward; all
    shaped like the parameter, the last three real."""

    init_particles: PastParams
    cumulative_gradients: Updates
    scale: Updates
    subgradients: Updates
    reward: Updates


@per_leaf
def scale_by_cocob(alpha: NonNegative = 100.0, eps: Positive = 1e-8) -> Rule:
    """Bet on the sign of the next gradient, independently in every coordinate.

        L <- max(L, |g|)          G <- G + |g|          theta <- theta - g        (L starts at eps)
        R <- max(R - g (x - x0), 0)
        u  = x0 + theta / (L max(G + L, alpha L)) (L + R) - x

    x0 are the params given to init. The distance of x from x0 is a bet, paid out of what the
    coordinate has won so far: there is no learning rate to tune. The update is the full step: no
    learning rate follows. For a complex g, |g| is its magnitude and g (x - x0) the real part of
    conj(g) (x - x0).

    Args:
        alpha: the divisor of the first bets: the first step is 1 / alpha, whatever the gradient.
            Raise it where training is unstable in the beginning; lower it where steps are too
            small.
        eps: the initial largest |g|, which avoids a division by 0 while gradients are 0.

    State: x0, theta, L, G and R, 20 bytes a parameter.

    Example:
        >>> tx = gradtx.scale_by_cocob(alpha=50.0)
        >>> params = jnp.zeros(2)
        >>> grads = jnp.array([1000.0, -0.001])
        >>> updates, state = tx.update(grads, tx.init(params), params)
        >>> np.asarray(updates).round(4)
        array([-0.02,  0.02], dtype=float32)

    See also: `cocob`, `prodigy`.

    References: Orabona & Tommasi, 2017, algorithm 2, https://arxiv.org/abs/1705.07795
    """

    def init(param: Array) -> COCOBState:
        return COCOBState(
            init_particles=jnp.copy(param),
            cumulative_gradients=zeros_like(param),
            scale=real_full_like(param, eps),
            subgradients=real_full_like(param, 0),
            reward=real_full_like(param, 0),
        )

    def update(grad: Array, state: COCOBState, param: Array) -> tuple[Array, COCOBState]:
        start = state.init_particles
        largest = jnp.maximum(state.scale, magnitude(grad))
        total = state.subgradients + magnitude(grad)
        loss = jnp.real(jnp.conj(grad) * (param - start))
        # max(R - loss, 0), written to end in a difference of two arrays: see `scale_by_belief`.
        reward = state.reward - jnp.minimum(loss, state.reward)
        theta = state.cumulative_gradients - grad
        bet = theta / (largest * jnp.maximum(total + largest, alpha * largest))
        u = start - param + bet * (largest + reward)
        return u, COCOBState(start, theta, largest, total, reward)

    return Rule(init, update)
