"""One second moment for each array: NovoGrad."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from gradtx.core.decorators import per_leaf
from gradtx.core.kinds import Decay, DType, NonNegative, NonNegativeOrOff, is_off
from gradtx.core.numerics import (
    abs_sq,
    over_root,
    running_mean,
    times,
    zeros_like,
    zeros_like_result,
)
from gradtx.core.rule import Rule
from gradtx.core.state import Count, Updates

__all__ = ["ScaleByNovogradState", "scale_by_novograd"]


class ScaleByNovogradState(NamedTuple):
    """The momentum mu, and for each array one number nu: the running mean of its squared norm."""

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
) -> Any:
    """Momentum of gradients that are divided by the running norm of their whole array.

        nu <- b2 * nu + (1 - b2) * ||g||^2          (the first nu is ||g||^2)
        mu <- b1 * mu + g / (sqrt(nu + eps_root) + eps) + weight_decay * param
        u   = mu

    weight_decay: a literal 0 leaves it out, and then no parameters are needed. mu_dtype: in which
    mu is stored; float32 or wider without it. Ginsburg et al., 2019,
    https://arxiv.org/abs/1905.11286
    """

    def init(param: Any, step: Any) -> ScaleByNovogradState:
        nu = zeros_like_result(lambda x: jnp.sum(abs_sq(x)), param)
        return ScaleByNovogradState(step.count, zeros_like(param, mu_dtype), nu)

    def plain(grad: Any, state: ScaleByNovogradState, step: Any) -> Any:
        square = jnp.sum(abs_sq(grad))
        nu = jnp.where(step.count == 1, square, running_mean(state.nu, square, b2))
        mu = times(b1, state.mu) + over_root(grad, nu, eps, eps_root)
        return mu, ScaleByNovogradState(step.count, mu, nu)

    def decayed(grad: Any, state: ScaleByNovogradState, param: Any, step: Any) -> Any:
        mu, new = plain(grad, state, step)
        mu = mu + times(weight_decay, param)
        return mu, new._replace(mu=mu)

    return Rule(init, plain if is_off(weight_decay) else decayed)
