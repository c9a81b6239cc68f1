"""MADGRAD: dual averaging with the cube root of the squared gradients."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.decorators import per_leaf
from gradtx.core.dtypes import cast, scalar_dtype
from gradtx.core.hyperparameters import Fraction, NonNegative
from gradtx.core.numerics import abs_sq, over_size, real_full_like, where_positive, zeros_like
from gradtx.core.rule import Rule
from gradtx.core.state import Count, PastParams, Updates
from gradtx.core.step import Step

__all__ = ["MadgradState", "scale_by_madgrad"]


class MadgradState(NamedTuple):
    """The weighted sums of g^2 (real) and of g, and the initial parameters; all shaped like the
    parameter."""

    count: Count
    grad_sum_sq: Updates
    s: Updates
    x0: PastParams


@per_leaf
def scale_by_madgrad(
    learning_rate: NonNegative, momentum: Fraction = 0.9, eps: NonNegative = 1e-6
) -> Rule:
    """Take steps of dual averaging around the initial parameters, with momentum.

        weight = (learning_rate + eps) sqrt(t)
        nu <- nu + weight g^2          s <- s + weight g
        z   = x0 - s / (cbrt(nu) + eps)
        u   = (1 - momentum) (z - x)

    x0 are the params given to init; z = x0 where nu and eps are 0. All gradients so far count,
    later ones more; weight decay, which pulls x away from z, should be small or 0. The update is
    the full step: no learning rate follows.

    Args:
        learning_rate: the weight of a gradient, which sets the length of the steps: they grow with
            its power 2/3. The first number to tune.
        momentum: how much of x remains in each step: the params move 1 - momentum of the way to z.
            0 goes all the way; larger values average over more points.
        eps: a small number added to the denominator, which bounds the step where gradients are
            tiny, and to the learning rate. Raise it to damp elements with little signal.

    State: nu, s and x0, 12 bytes a parameter.

    Example:
        >>> tx = gradtx.scale_by_madgrad(1.0, momentum=0.5, eps=0.0)
        >>> params = jnp.zeros(2)
        >>> grads = jnp.array([1.0, 8.0])
        >>> updates, state = tx.update(grads, tx.init(params), params)
        >>> print(updates.round(2))  # a gradient 8 times as large moves twice as far
        [-0.5 -1. ]

    See also: `madgrad`, `scale_by_rss`.

    References: Defazio & Jelassi, 2021, https://arxiv.org/abs/2101.11075
    """

    def init(param: Array) -> MadgradState:
        nu = real_full_like(param, 0)
        return MadgradState(count=None, grad_sum_sq=nu, s=zeros_like(param), x0=jnp.copy(param))

    def precompute(step: Step) -> Array:
        return jnp.sqrt(cast(step.count, scalar_dtype()))

    def update(
        grad: Array, state: MadgradState, param: Array, precomputed: Array
    ) -> tuple[Array, MadgradState]:
        weight = (learning_rate + eps) * precomputed
        nu = state.grad_sum_sq + weight * abs_sq(grad)
        s = state.s + weight * grad
        z = state.x0 - over_size(s, where_positive(jnp.cbrt, nu) + eps)
        return (1 - momentum) * (z - param), state._replace(grad_sum_sq=nu, s=s)

    return Rule(init, update, precompute)
