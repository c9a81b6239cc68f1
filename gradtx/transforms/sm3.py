"""SM3: AdaGrad that stores one number per slice of an array."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from gradtx.core.decorators import per_leaf
from gradtx.core.hyperparameters import Decay, Fraction, NonNegative
from gradtx.core.numerics import abs_sq, running_mean, where_positive, zeros_like, zeros_like_result
from gradtx.core.rule import Rule
from gradtx.core.state import Updates

__all__ = ["ScaleBySM3State", "scale_by_sm3"]


class ScaleBySM3State(NamedTuple):
    """mu: for each array a list with the accumulator of each axis, real and of its length; nu: the
    momentum, shaped like the parameter."""

    mu: Updates
    nu: Updates


@per_leaf
def scale_by_sm3(b1: Decay = 0.9, b2: Fraction = 1.0, eps: NonNegative = 1e-8) -> Rule:
    """Divide by the root of an upper bound on the sum of all squared gradients.

        v  = b2 * min(mu_1[i], mu_2[j], ...) + (1 - b2) * g^2       (+ g^2 where b2 = 1)
        mu_1[i] <- max(v[i, :, ...]),   mu_2[j] <- max(v[:, j, ...]),   ...
        nu <- b1 * nu + (1 - b1) * g / sqrt(v + eps)                (g / sqrt is 0 where v is 0)
        u  = nu

    It is AdaGrad (SM3-II in the paper) that keeps one number per row, column, and so on, in place
    of one per element. A scalar parameter has a single scalar accumulator.

    Args:
        b1: the decay of the momentum, a running mean of scaled gradients. Larger is smoother and
            slower to turn
        b2: the decay of the bounds. 1 makes them sums, which never shrink, as in AdaGrad; below 1
            they are running means

    State: for each array mu, a list with one number for each index of each axis, and nu, the
    momentum: about 4 bytes a parameter for a matrix, 8 for a vector.

    Example:
        >>> grads = jnp.array([[1.0, 2.0], [0.0, 4.0]])
        >>> tx = gradtx.scale_by_sm3()
        >>> updates, state = tx.update(grads, tx.init(grads))
        >>> print(*state.mu)  # the largest square of each row, and of each column
        [ 4. 16.] [ 1. 16.]

    See also: `sm3`, the optimizer; `scale_by_rss`, with the exact sum; `scale_by_factored_rms`.

    References: Anil et al., 2019, https://arxiv.org/abs/1901.11150
    """

    def init(param: Array) -> ScaleBySM3State:
        mu = zeros_like_result(lambda x: _largest(abs_sq(x)), param)
        return ScaleBySM3State(mu, zeros_like(param))

    def update(grad: Array, state: ScaleBySM3State) -> tuple[Array, ScaleBySM3State]:
        weight = jnp.where(b2 == 1, 1, 1 - b2) if not isinstance(b2, int | float) else 1 - b2 or 1
        bounds = [_along(axis, grad.shape, mu) for axis, mu in enumerate(state.mu)]
        v = b2 * functools.reduce(jnp.minimum, bounds) + weight * abs_sq(grad)
        scaled = where_positive(lambda v: lax.rsqrt(v + eps), v) * grad
        nu = running_mean(state.nu, scaled, b1)
        return nu, ScaleBySM3State(_largest(v), nu)

    return Rule(init, update)


def _along(axis: int, shape: tuple[int, ...], mu: Array) -> Array:
    """The accumulator of an axis, reshaped to broadcast over the others."""
    if not shape:
        return mu
    if mu.shape != shape[axis : axis + 1]:
        raise ValueError(f"the accumulator of axis {axis} is of length {mu.size}")
    return jnp.reshape(mu, [n if i == axis else 1 for i, n in enumerate(shape)])


def _largest(v: Array) -> list[Array]:
    """For each axis the maximum over all other axes."""
    if not v.shape:
        return [v]
    others = [tuple(i for i in range(v.ndim) if i != axis) for axis in range(v.ndim)]
    return [jnp.max(v, axis=axes, initial=0) for axes in others]
