"""Dividing by how far the gradient was from what was expected: AdaBelief and ACProp."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from gradtx.core.decorators import per_leaf
from gradtx.core.dtypes import cast, number_dtype
from gradtx.core.kinds import Decay, NonNegative
from gradtx.core.numerics import (
    abs_sq,
    magnitude,
    over_root,
    real_full_like,
    running_mean,
    sqrt,
    times,
    zeros_like,
)
from gradtx.core.rule import Rule
from gradtx.core.state import Count, Updates
from gradtx.core.step import one_minus_power
from gradtx.transforms.adam import nesterov_mean

__all__ = ["ScaleByBeliefState", "scale_by_acprop", "scale_by_belief"]


class ScaleByBeliefState(NamedTuple):
    """The running means of the gradient (mu) and of its squared distance from that mean (nu)."""

    count: Count
    mu: Updates
    nu: Updates


def _init(param: Any, step: Any) -> ScaleByBeliefState:
    return ScaleByBeliefState(step.count, zeros_like(param), real_full_like(param, 0))


@per_leaf
def scale_by_belief(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
    *,
    nesterov: bool = False,
) -> Any:
    """Divide the running mean of the gradient by its running distance from that mean.

        mu <- b1 * mu + (1 - b1) * g
        nu <- b2 * nu + (1 - b2) * (g - mu)^2 + eps_root
        u   = m / (sqrt(nu / (1 - b2^t)) + eps),    m = mu / (1 - b1^t)

    nesterov: m as in `scale_by_adam`. Zhuang et al., 2020, https://arxiv.org/abs/2010.07468
    """

    def update(grad: Any, state: ScaleByBeliefState, step: Any) -> Any:
        mu = running_mean(state.mu, grad, b1)
        # The sum of two arrays comes last: XLA would compute a last `+ eps_root` again in the step,
        # from a copy of the old nu.
        nu = times(b2, state.nu) + (times(1 - b2, abs_sq(grad - mu)) + eps_root)
        m = step.debias(mu, b1)
        if nesterov:
            m = nesterov_mean(mu, grad, b1, step)
        return over_root(m, step.debias(nu, b2), eps), ScaleByBeliefState(step.count, mu, nu)

    return Rule(_init, update)


@per_leaf
def scale_by_acprop(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
) -> Any:
    """Divide the gradient by a running distance that it is not part of itself.

        u   = g / (sqrt(nu / (1 - b2^(t-1))) + eps)         u = g / (1 + eps) on the first step
        nu <- b2 * nu + (1 - b2) * (g - mu)^2 + eps_root
        mu <- b1 * mu + (1 - b1) * g

    in this order: the distance is from the mean of the gradients before, as in the authors'
    implementation. An element of which nu is still what eps_root alone makes of it, to one percent,
    because there were no gradients but zeros or none at all, has no distance to be divided by, and
    the first gradient would become a step of millions: there |g| is divided by if it is larger,
    |u| <= 1. Zhuang et al., 2021, https://arxiv.org/abs/2110.05454
    """

    def precompute(step: Any) -> Any:
        before = jnp.maximum(step.count - 1, 1)
        return one_minus_power(b2, cast(before, number_dtype(b2)))

    def update(grad: Any, state: ScaleByBeliefState, step: Any, precomputed: Any) -> Any:
        # Not mu == 0: beside nu, a loop of XLA:CPU would have to read mu too.
        distance, nothing = state.nu / precomputed, 1.01 * eps_root / (1 - b2)
        root = sqrt(distance)
        root = jnp.where(distance <= nothing, jnp.maximum(root, magnitude(grad)), root)
        root = jnp.where(step.count == 1, 1, root)
        nu = running_mean(state.nu, abs_sq(grad - state.mu), b2) + eps_root
        mu = running_mean(state.mu, grad, b1)
        return grad / (root + eps), ScaleByBeliefState(step.count, mu, nu)

    return Rule(_init, update, precompute)
