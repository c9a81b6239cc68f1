"""Directions without a magnitude: the sign of the gradient, or of its running mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.decorators import per_leaf
from gradtx.core.hyperparameters import Decay, DType, Positive
from gradtx.core.numerics import running_mean, times, zeros_like
from gradtx.core.rule import Rule
from gradtx.core.state import Count, Updates

__all__ = ["ScaleByLionState", "scale_by_lion", "scale_by_sign"]


class ScaleByLionState(NamedTuple):
    """The running mean of the gradient, shaped like the parameter."""

    count: Count
    mu: Updates


@per_leaf
def scale_by_sign() -> Callable[..., Array]:
    """Replace every element by its sign.

        u = sign(g)                                 for complex g the phase g / |g|; 0 where g = 0

    State: none.

    Example:
        >>> grads = jnp.array([300.0, -0.1, 0.0])
        >>> tx = gradtx.scale_by_sign()
        >>> updates, state = tx.update(grads, tx.init(grads))
        >>> print(updates)
        [ 1. -1.  0.]

    See also: `sign_sgd` and `signum`, optimizers; `scale_by_lion`, the sign of a running mean.

    References: Bernstein et al., 2018, https://arxiv.org/abs/1802.04434
    """
    return lambda grad: jnp.sign(grad)


@per_leaf
def scale_by_lion(
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    mu_dtype: DType | None = None,
    *,
    mode: Literal["hard", "smooth", "refined"] = "hard",
    smooth_beta: Positive = 1.0,
) -> Rule:
    """Take the sign of a running mean interpolated towards the gradient.

        c  = b1 * mu + (1 - b1) * g
        mu <- b2 * mu + (1 - b2) * g

        u = sign(c)                                 mode="hard"
        u = tanh(smooth_beta * c)                   mode="smooth", for real parameters
        u = c where |c| < 1, else sign(c)           mode="refined"

    It has half of Adam's state. Signs are longer than Adam's steps: take a learning rate three to
    ten times smaller than for Adam, and weight decay larger by the same factor.

    Args:
        b1: how much the running mean counts in the update, relative to the gradient of this step.
            Larger is smoother and slower to turn
        b2: the decay of the running mean of gradients, which reaches back about 1 / (1 - b2) steps
        mode: how c becomes the update: its sign ("hard"), or something that goes to 0 with c, so
            that steps become short near a minimum ("smooth", "refined")
        smooth_beta: how steep tanh is at 0, for mode="smooth" only: the larger, the closer to the
            sign

    State: mu, 4 bytes a parameter, and the count.

    Raises: ValueError for any other mode, and for mode="smooth" and complex parameters.

    Example:
        >>> grads = jnp.array([30.0, 5.0, -0.1])
        >>> for mode in ("hard", "refined"):
        ...     tx = gradtx.scale_by_lion(mode=mode)
        ...     updates, state = tx.update(grads, tx.init(grads))
        ...     print(np.asarray(updates).round(3))
        [ 1.  1. -1.]
        [ 1.    0.5  -0.01]

    See also: `lion`, the optimizer; `scale_by_sign`.

    References: Chen et al., 2023, https://arxiv.org/abs/2302.06675
    """

    def init(param: Array) -> ScaleByLionState:
        return ScaleByLionState(count=None, mu=zeros_like(param, mu_dtype))

    def direction(c: Array) -> Array:
        if mode == "refined":
            return jnp.where(jnp.abs(c) < 1, c, jnp.sign(c))
        if mode == "hard":
            return jnp.sign(c)
        if jnp.iscomplexobj(c):
            raise TypeError("mode='smooth' has no meaning for complex numbers")
        return jnp.tanh(times(smooth_beta, c))

    def update(grad: Array, state: ScaleByLionState) -> tuple[Array, ScaleByLionState]:
        mu = running_mean(state.mu, grad, b2)
        if isinstance(b1, float) and isinstance(b2, float) and 0 < b2 >= b1:
            # The same c, computed from the new mu: b1 mu_old + (1 - b1) g with
            # mu_old = (mu - (1 - b2) g) / b2. If only the loop that writes mu reads the old one,
            # XLA:CPU updates it in place; otherwise it copies it first.
            c = running_mean(mu, grad, b1 / b2)
        else:
            c = running_mean(state.mu, grad, b1)
        return direction(c), state._replace(mu=mu)

    return Rule(init, update)
