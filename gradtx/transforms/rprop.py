"""Rprop: a step size per element, adapted by the signs of its gradients."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.decorators import per_leaf
from gradtx.core.hyperparameters import AtLeastOne, Fraction, NonNegative
from gradtx.core.numerics import number_beside, real_full_like, zeros_like
from gradtx.core.rule import Rule
from gradtx.core.state import Updates

__all__ = ["ScaleByRpropState", "scale_by_rprop"]


class ScaleByRpropState(NamedTuple):
    """The step sizes, and the last update, of which only the sign matters; shaped like the
    parameter."""

    step_sizes: Updates
    prev_updates: Updates


@per_leaf
def scale_by_rprop(
    learning_rate: NonNegative,
    eta_minus: Fraction = 0.5,
    eta_plus: AtLeastOne = 1.2,
    min_step_size: NonNegative = 1e-6,
    max_step_size: NonNegative = 50.0,
) -> Rule:
    """Follow the sign of the gradient: longer steps while it persists, shorter once it flips.

        turn  = sign(g) * sign(previous u)
        size <- clip(size * f, min_step_size, max_step_size)
        f     = eta_plus where turn > 0,    eta_minus where turn < 0,    1 where turn = 0
        u     = size * sign(g), and 0 where turn < 0

    It is for gradients of the whole data set: the signs of single batches flip by chance. There is
    no backtracking (iRprop-), as in PyTorch.

    Args:
        learning_rate: the first step size, of every element
        eta_minus: the factor on a size where the sign has flipped
        eta_plus: the factor on a size where the sign is the same as before
        min_step_size: the smallest size
        max_step_size: the largest size

    State: step_sizes and prev_updates, 8 bytes a parameter.

    Raises: ValueError for complex gradients.

    Example:
        >>> tx = gradtx.scale_by_rprop(0.5, eta_plus=2.0)
        >>> state = tx.init(jnp.zeros(2))
        >>> for grads in ([9.0, 1.0], [0.1, -3.0], [1.0, -3.0]):
        ...     updates, state = tx.update(jnp.array(grads), state)
        ...     print(updates)
        [0.5 0.5]
        [1. 0.]
        [ 2.   -0.25]

    See also: `rprop`, the optimizer; `scale_by_sign`, whose steps are all equal.

    References: Riedmiller & Braun, 1993, https://doi.org/10.1109/ICNN.1993.298623
    """

    def init(param: Array) -> ScaleByRpropState:
        return ScaleByRpropState(real_full_like(param, learning_rate), zeros_like(param))

    def update(grad: Array, state: ScaleByRpropState) -> tuple[Array, ScaleByRpropState]:
        if jnp.iscomplexobj(grad):
            raise TypeError("the sign of a complex gradient does not say whether it has turned")
        turn = jnp.sign(grad) * jnp.sign(state.prev_updates)
        longer, shorter, same = (number_beside(turn, x) for x in (eta_plus, eta_minus, 1))
        factor = jnp.where(turn > 0, longer, jnp.where(turn < 0, shorter, same))
        size = jnp.clip(state.step_sizes * factor, min_step_size, max_step_size)
        u = jnp.where(turn < 0, 0, size * jnp.sign(grad))
        return u, ScaleByRpropState(size, u)

    return Rule(init, update)
