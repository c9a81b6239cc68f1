"""Dividing by how far gradients have been from their running mean: AdaBelief and ACProp."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.decorators import per_leaf
from gradtx.core.dtypes import cast, number_dtype
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.numerics import (
    abs_sq,
    divide_by_rms,
    magnitude,
    real_full_like,
    running_mean,
    sqrt,
    times,
    zeros_like,
)
from gradtx.core.rule import Rule
from gradtx.core.state import Count, Updates
from gradtx.core.step import Step, one_minus_power
from gradtx.transforms.adam import nesterov_mean

__all__ = ["ScaleByBeliefState", "scale_by_acprop", "scale_by_belief"]


class ScaleByBeliefState(NamedTuple):
    """The running means of the gradient (mu) and of its squared distance from that mean (nu, real),
    shaped like the parameter."""

    count: Count
    mu: Updates
    nu: Updates


def _init(param: Array) -> ScaleByBeliefState:
    return ScaleByBeliefState(count=None, mu=zeros_like(param), nu=real_full_like(param, 0))


@per_leaf
def scale_by_belief(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
    *,
    nesterov: bool = False,
) -> Rule:
    """Divide the running mean of the gradient by the RMS distance of gradients from that mean.

        mu <- b1 * mu + (1 - b1) * g
        nu <- b2 * nu + (1 - b2) * (g - mu)^2 + eps_root
        u   = m / (sqrt(nu / (1 - b2^t)) + eps),    m = mu / (1 - b1^t)

        m   = b1 * mu / (1 - b1^(t+1)) + (1 - b1) * g / (1 - b1^t)                   (with nesterov)

    Steps are long where gradients agree with their mean, longer than Adam's, and short where they
    do not.

    Args:
        b2: the decay of the running mean of squared distances, which reaches back about 1 / (1 -
            b2) steps. Larger is steadier; smaller follows changes of the noise.
        eps: a small number added to the denominator, which bounds the step where gradients are all
            but constant. The steps are sensitive to it: raise it (1e-8) where they are too long.
        eps_root: a number added to nu at every step, so that nu / (1 - b2^t) is never below
            eps_root / (1 - b2).

    State: mu and nu, 8 bytes a parameter.

    Example:
        >>> tx = gradtx.scale_by_belief(b1=0.5)
        >>> state = tx.init(jnp.zeros(2))
        >>> for grads in (jnp.array([1.0, 1.0]), jnp.array([1.0, -1.0]), jnp.array([1.0, 1.0])):
        ...     updates, state = tx.update(grads, state)
        >>> np.asarray(updates).round(1)  # steady gradients, and gradients that change their sign
        array([3. , 0.7], dtype=float32)

    See also: `adabelief`, `scale_by_acprop`, `scale_by_adam`.

    References: Zhuang et al., 2020, https://arxiv.org/abs/2010.07468
    """

    def update(
        grad: Array, state: ScaleByBeliefState, step: Step
    ) -> tuple[Array, ScaleByBeliefState]:
        mu = running_mean(state.mu, grad, b1)
        # Written to end in a sum of two arrays: XLA would recompute a trailing `+ eps_root` in the
        # loop of the step, from a copy of the old nu.
        nu = times(b2, state.nu) + (times(1 - b2, abs_sq(grad - mu)) + eps_root)
        m = step.debias(mu, b1)
        if nesterov:
            m = nesterov_mean(mu, grad, b1, step)
        return divide_by_rms(m, step.debias(nu, b2), eps), state._replace(mu=mu, nu=nu)

    return Rule(_init, update)


@per_leaf
def scale_by_acprop(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
) -> Rule:
    """Divide the gradient by the RMS distance of the earlier gradients from their running mean.

        u   = g / (sqrt(nu / (1 - b2^(t-1))) + eps)         u = g / (1 + eps) on the first step
        nu <- b2 * nu + (1 - b2) * (g - mu)^2 + eps_root
        mu <- b1 * mu + (1 - b1) * g

    in this order: the distance is measured from the mean of the earlier gradients, as in the
    authors' implementation. If all gradients of an element so far were zero or absent, its nu is,
    to within one percent, what eps_root alone accumulates to, and its first nonzero gradient would
    produce a step in the millions. There the gradient is divided by |g| if that is larger, so that
    |u| <= 1.

    Args:
        b1: the decay of the running mean that distances are measured from. It does not smooth the
            updates, which are not averaged.
        b2: the decay of the running mean of squared distances, which reaches back about 1 / (1 -
            b2) steps. Larger is steadier; smaller follows changes of the noise.
        eps: a small number added to the denominator, which bounds the step where gradients are all
            but constant.
        eps_root: a number added to nu at every step, so that nu / (1 - b2^(t-1)) is never below
            eps_root / (1 - b2).

    State: mu and nu, 8 bytes a parameter.

    Example:
        >>> tx = gradtx.scale_by_acprop()
        >>> state = tx.init(jnp.zeros(2))
        >>> for grads in (jnp.array([1.0, 4.0]), jnp.array([0.5, 8.0])):
        ...     updates, state = tx.update(grads, state)
        ...     print(updates.round(2))  # the gradient itself; then relative to the first one
        [1. 4.]
        [0.5 2. ]

    See also: `acprop`, `scale_by_belief`, `scale_by_adopt`.

    References: Zhuang et al., 2021, https://arxiv.org/abs/2110.05454
    """

    def precompute(step: Step) -> Array:
        before = jnp.maximum(step.count - 1, 1)
        return one_minus_power(b2, cast(before, number_dtype(b2)))

    def update(
        grad: Array, state: ScaleByBeliefState, step: Step, precomputed: Array
    ) -> tuple[Array, ScaleByBeliefState]:
        # The test reads nu, not mu == 0: XLA:CPU's loop over nu would have to read mu as well.
        distance, nothing = state.nu / precomputed, 1.01 * eps_root / (1 - b2)
        root = sqrt(distance)
        root = jnp.where(distance <= nothing, jnp.maximum(root, magnitude(grad)), root)
        root = jnp.where(step.count == 1, 1, root)
        nu = running_mean(state.nu, abs_sq(grad - state.mu), b2) + eps_root
        mu = running_mean(state.mu, grad, b1)
        return grad / (root + eps), state._replace(mu=mu, nu=nu)

    return Rule(_init, update, precompute)
