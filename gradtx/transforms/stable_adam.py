"""StableAdamW: Adam whose steps, decay and all, shrink while the second moment lags behind."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from gradtx.core.decorators import per_leaf
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.norms import rms_of
from gradtx.core.numerics import (
    abs_sq,
    divide_by_rms,
    is_zero,
    real_full_like,
    running_mean,
    sqrt,
    zeros_like,
)
from gradtx.core.rule import Rule
from gradtx.core.step import Step
from gradtx.transforms.adam import ScaleByAdamState
from gradtx.transforms.decay import decayed

__all__ = ["scale_by_stable_adam"]


@per_leaf
def scale_by_stable_adam(
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegative = 0.0,
    *,
    cautious: bool = False,
) -> Rule:
    """Divide by a running root mean square, and shorten the steps of arrays that have outgrown it.

        mu <- b1 * mu + (1 - b1) * g,           m = mu / (1 - b1^t)
        nu <- b2 * nu + (1 - b2) * g^2,         n = nu / (1 - b2^t)
        u   = (m / (sqrt(n) + eps) + weight_decay * param) / max(1, rms(g / max(sqrt(n), eps)))

    The root mean square is over one array, and far above 1 when its gradients have grown faster
    than nu can follow, the cause of many loss spikes.

    Args:
        weight_decay: how much of each parameter is added to the step before it is shortened
        cautious: let an element decay only where the step, too, brings it nearer to 0

    State: mu and nu, 8 bytes a parameter.

    Example:
        >>> tx = gradtx.scale_by_stable_adam(b1=0.0)
        >>> state = tx.init(jnp.zeros(2))
        >>> for g in (0.01, 0.01, 100.0):  # Adam's third step would be 1.73
        ...     u, state = tx.update(jnp.array([g, -g]), state, jnp.zeros(2))
        ...     print(np.asarray(u).round(2))
        [ 1. -1.]
        [ 1. -1.]
        [ 1. -1.]

    See also: `stable_adamw`; `clip_by_block_rms`, which looks at the update itself.

    References: Wortsman et al., 2023, https://arxiv.org/abs/2304.13013
    """

    def init(param: Array) -> ScaleByAdamState:
        return ScaleByAdamState(None, zeros_like(param), real_full_like(param, 0))

    def update(
        grad: Array, state: ScaleByAdamState, param: Array, step: Step
    ) -> tuple[Array, ScaleByAdamState]:
        mu = running_mean(state.mu, grad, b1)
        nu = running_mean(state.nu, abs_sq(grad), b2)
        n = step.debias(nu, b2)
        u = divide_by_rms(step.debias(mu, b1), n, eps)
        if not is_zero(weight_decay):
            u = decayed(u, param, weight_decay, cautious)
        outgrown = rms_of(grad / jnp.maximum(sqrt(n), eps))
        return outgrown.shrinking_to(1).times(u), state._replace(mu=mu, nu=nu)

    return Rule(init, update)
