"""Adam with Nesterov momentum that warms up: NAdam with its momentum schedule."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.decorators import per_leaf
from gradtx.core.dtypes import cast, number_dtype
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.numerics import abs_sq, divide_by_rms, real_full_like, running_mean, zeros_like
from gradtx.core.rule import Rule
from gradtx.core.state import Count, Updates
from gradtx.core.step import Step

__all__ = ["ScaleByNadamState"]


class ScaleByNadamState(NamedTuple):
    """Adam's state, and the product of all momenta so far: one scalar per array."""

    count: Count
    mu: Updates
    nu: Updates
    product: Updates


@per_leaf
def scale_by_nadam(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    momentum_decay: NonNegative = 4e-3,
) -> Rule:
    """Adam with Nesterov momentum that warms up, as in PyTorch.

        b(t)     = b1 * (1 - 0.96^(momentum_decay * t) / 2)
        mu      <- b1 * mu + (1 - b1) * g
        nu      <- b2 * nu + (1 - b2) * g^2
        product <- product * b(t)                   (starts at 1)
        m = b(t+1) * mu / (1 - product * b(t+1)) + (1 - b(t)) * g / (1 - product)
        u = m / (sqrt(nu / (1 - b2^t)) + eps)

    `scale_by_adam` with nesterov is the same with constant momentum.

    Args:
        b1: the decay of mu, and the momentum that b(t) approaches from b1 / 2
        momentum_decay: how fast b(t) approaches b1; with 0 it stays at b1 / 2

    State: mu and nu, 8 bytes a parameter, and one scalar per array.

    See also: `scale_by_adam`.

    References: Dozat, 2016, https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ
    """

    def init(param: Array) -> ScaleByNadamState:
        product = jnp.ones_like(jnp.sum(abs_sq(param)))  # placed where param is
        return ScaleByNadamState(
            count=None, mu=zeros_like(param), nu=real_full_like(param, 0), product=product
        )

    def momentum(count: Array) -> Array:
        t = cast(count, number_dtype(b1))
        return b1 * (1 - 0.5 * jnp.exp(math.log(0.96) * momentum_decay * t))

    def precompute(step: Step) -> tuple[Array, Array]:
        return momentum(step.count), momentum(step.next.count)

    def update(
        grad: Array, state: ScaleByNadamState, step: Step, precomputed: tuple[Array, Array]
    ) -> tuple[Array, ScaleByNadamState]:
        now, later = precomputed
        mu = running_mean(state.mu, grad, b1)
        nu = running_mean(state.nu, abs_sq(grad), b2)
        product = state.product * now
        m = later / (1 - product * later) * mu + (1 - now) / (1 - product) * grad
        u = divide_by_rms(m, step.debias(nu, b2), eps)
        return u, state._replace(mu=mu, nu=nu, product=product)

    return Rule(init, update, precompute)
