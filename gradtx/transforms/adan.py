"""Nesterov momentum from differences of gradients: Adan."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from gradtx.core.decorators import per_leaf
from gradtx.core.kinds import Decay, NonNegative
from gradtx.core.numerics import abs_sq, real_full_like, running_mean, sqrt, times, zeros_like
from gradtx.core.rule import Rule
from gradtx.core.state import Count, Updates

__all__ = ["ScaleByAdanState", "scale_by_adan"]


class ScaleByAdanState(NamedTuple):
    """Running means of gradients (m), of their differences (v) and of squares (n); the last g."""

    m: Updates
    v: Updates
    n: Updates
    g: Updates
    t: Count


@per_leaf
def scale_by_adan(
    b1: Decay = 0.98,
    b2: Decay = 0.92,
    b3: Decay = 0.99,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
) -> Any:
    """Adam with a running mean of the differences between gradients beside that of gradients.

        d  = g - (the gradient before)              (0 on the first step)
        m <- b1 * m + (1 - b1) * g
        v <- b2 * v + (1 - b2) * d
        n <- b3 * n + (1 - b3) * (g + b2 * d)^2
        u  = (m / (1 - b1^t) + b2 * v / (1 - b2^t)) / (sqrt(n / (1 - b3^t) + eps_root) + eps)

    The paper's betas are 1 - b1, 1 - b2 and 1 - b3. Xie et al., 2022,
    https://arxiv.org/abs/2208.06677
    """

    def init(param: Any, step: Any) -> ScaleByAdanState:
        m, v, g = zeros_like(param), zeros_like(param), zeros_like(param)
        return ScaleByAdanState(m, v, real_full_like(param, 0), g, step.count)

    def update(grad: Any, state: ScaleByAdanState, step: Any) -> Any:
        difference = jnp.where(step.count == 1, 0, grad - state.g)
        m = running_mean(state.m, grad, b1)
        v = running_mean(state.v, difference, b2)
        n = running_mean(state.n, abs_sq(grad + times(b2, difference)), b3)
        ahead = step.debias(m, b1) + times(b2, step.debias(v, b2))
        u = ahead / (sqrt(step.debias(n, b3) + eps_root) + eps)
        return u, ScaleByAdanState(m, v, n, grad, step.count)

    return Rule(init, update)
