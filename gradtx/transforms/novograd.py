"""NovoGrad: a single second moment per array."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.decorators import per_leaf
from gradtx.core.hyperparameters import Decay, DType, NonNegative, NonNegativeOrOff, is_static_zero
from gradtx.core.numerics import (
    abs_sq,
    divide_by_rms,
    running_mean,
    times,
    zeros_like,
    zeros_like_result,
)
from gradtx.core.rule import Rule
from gradtx.core.state import Count, Updates
from gradtx.core.step import Step

__all__ = ["ScaleByNovogradState", "scale_by_novograd"]


class ScaleByNovogradState(NamedTuple):
    """The momentum mu, shaped like the parameter, and the running mean nu of the gradient's squared
    norm: one scalar per array."""

    count: Count
    mu: Updates
    nu: Updates


@per_leaf
def scale_by_novograd(
    b1: Decay = 0.9,
    b2: Decay = 0.25,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegativeOrOff = 0.0,
    mu_dtype: DType | None = None,
) -> Rule:
    """Keep momentum of gradients that are divided by a running norm of the whole array.

        nu <- b2 * nu + (1 - b2) * ||g||^2          (the first nu is ||g||^2)
        mu <- b1 * mu + g / (sqrt(nu + eps_root) + eps) + weight_decay * param
        u   = mu

    Every layer's update is about equally long, whatever the size of its gradients, with half of
    Adam's state.

    Args:
        b1: the decay of the running sum of normalised gradients. Their weights are 1, not 1 - b1,
            so that with 0.9 the sum is up to ten times as long as one of them
        b2: the decay of the running mean of each array's squared norm. 0.25 hardly remembers: the
            norm is mostly that of the last gradient
        weight_decay: how much of the parameter is added to the normalised gradient, and so to the
            momentum. A literal 0 turns it off, and then no params are needed
        mu_dtype: the dtype in which the running sum of gradients is kept; None keeps float32
            (float64 for float64 parameters). `store` narrows any optimizer's state

    State: mu, 4 bytes a parameter, nu, one scalar per array, and the count.

    Example:
        >>> grads = {"large": jnp.array([100.0, 0.0]), "small": jnp.array([0.0, -0.01])}
        >>> tx = gradtx.scale_by_novograd()
        >>> updates, state = tx.update(grads, tx.init(grads))
        >>> print(np.asarray(updates["large"]).round(4), np.asarray(updates["small"]).round(4))
        [1. 0.] [ 0. -1.]

    See also: `novograd`, the optimizer; `scale_by_trust_ratio`.

    References: Ginsburg et al., 2019, https://arxiv.org/abs/1905.11286
    """

    def init(param: Array) -> ScaleByNovogradState:
        nu = zeros_like_result(lambda x: jnp.sum(abs_sq(x)), param)
        return ScaleByNovogradState(count=None, mu=zeros_like(param, mu_dtype), nu=nu)

    def plain(
        grad: Array, state: ScaleByNovogradState, step: Step
    ) -> tuple[Array, ScaleByNovogradState]:
        square = jnp.sum(abs_sq(grad))
        nu = jnp.where(step.count == 1, square, running_mean(state.nu, square, b2))
        mu = times(b1, state.mu) + divide_by_rms(grad, nu, eps, eps_root)
        return mu, state._replace(mu=mu, nu=nu)

    def decayed(
        grad: Array, state: ScaleByNovogradState, param: Array, step: Step
    ) -> tuple[Array, ScaleByNovogradState]:
        mu, new = plain(grad, state, step)
        mu = mu + times(weight_decay, param)
        return mu, new._replace(mu=mu)

    return Rule(init, plain if is_static_zero(weight_decay) else decayed)
