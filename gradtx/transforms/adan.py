"""Nesterov momentum from differences of gradients: Adan."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.decorators import per_leaf
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.numerics import abs_sq, real_full_like, running_mean, sqrt, times, zeros_like
from gradtx.core.rule import Rule
from gradtx.core.state import Count, Updates
from gradtx.core.step import Step

__all__ = ["ScaleByAdanState", "scale_by_adan"]


class ScaleByAdanState(NamedTuple):
    """The running means of the gradient (m), of the differences between successive gradients (v)
    and of squares (n, real), and the previous gradient (g); shaped like the parameter."""

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
) -> Rule:
    """Scale by Adam's rule plus a running mean of the differences between successive gradients.

        d  = g - (the previous gradient)            (0 on the first step)
        m <- b1 * m + (1 - b1) * g
        v <- b2 * v + (1 - b2) * d
        n <- b3 * n + (1 - b3) * (g + b2 * d)^2
        u  = (m / (1 - b1^t) + b2 * v / (1 - b2^t)) / (sqrt(n / (1 - b3^t) + eps_root) + eps)

    The differences show where gradients are heading: this is Nesterov momentum that does not need
    the gradient at another point. Where gradients do not change, u equals Adam's.

    Args:
        b1: the decay of the running mean of gradients; 1 - beta_1 of the paper.
        b2: the decay of the running mean of differences, and how far to look ahead along it; 1 -
            beta_2 of the paper. 0 leaves the differences out.
        b3: the decay of the running mean of squares; 1 - beta_3 of the paper.

    State: m, v, n and the previous gradient, 16 bytes a parameter.

    Example:
        >>> tx = gradtx.scale_by_adan()
        >>> state = tx.init(jnp.zeros(3))
        >>> updates, state = tx.update(jnp.array([1.0, 1.0, 1.0]), state)
        >>> updates, state = tx.update(jnp.array([0.5, 1.0, 1.5]), state)
        >>> np.asarray(updates).round(2)  # a falling, a steady and a growing gradient
        array([0.72, 1.  , 0.96], dtype=float32)

    See also: `adan`, `scale_by_adam`.

    References: Xie et al., 2022, https://arxiv.org/abs/2208.06677
    """

    def init(param: Array) -> ScaleByAdanState:
        m, v, g = zeros_like(param), zeros_like(param), zeros_like(param)
        return ScaleByAdanState(m=m, v=v, n=real_full_like(param, 0), g=g, t=None)

    def update(grad: Array, state: ScaleByAdanState, step: Step) -> tuple[Array, ScaleByAdanState]:
        difference = jnp.where(step.count == 1, 0, grad - state.g)
        m = running_mean(state.m, grad, b1)
        v = running_mean(state.v, difference, b2)
        n = running_mean(state.n, abs_sq(grad + times(b2, difference)), b3)
        ahead = step.debias(m, b1) + times(b2, step.debias(v, b2))
        u = ahead / (sqrt(step.debias(n, b3) + eps_root) + eps)
        return u, state._replace(m=m, v=v, n=n, g=grad)

    return Rule(init, update)
