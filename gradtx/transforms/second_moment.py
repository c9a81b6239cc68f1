"""Dividing by the magnitude of past gradients: sums and running means of their squares."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from gradtx.core.decorators import per_leaf
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.numerics import (
    abs_sq,
    real_full_like,
    running_mean,
    sqrt,
    where_positive,
    zeros_like,
)
from gradtx.core.rule import Rule
from gradtx.core.state import Count, Updates
from gradtx.core.step import Step

__all__ = [
    "ScaleByRStdDevState",
    "ScaleByRStdDevWithCountState",
    "ScaleByRmsState",
    "ScaleByRmsWithCountState",
    "ScaleByRssState",
    "scale_by_rms",
    "scale_by_rss",
    "scale_by_stddev",
]


class ScaleByRssState(NamedTuple):
    """The sum of all squared gradients: real, shaped like the parameter."""

    sum_of_squares: Updates


class ScaleByRmsState(NamedTuple):
    """The running mean of the squared gradient: real, shaped like the parameter."""

    nu: Updates


class ScaleByRmsWithCountState(NamedTuple):
    """The running mean of the squared gradient, and the count that its bias correction needs."""

    count: Count
    nu: Updates


class ScaleByRStdDevState(NamedTuple):
    """The running means of the gradient and of its square (real), shaped like the parameter."""

    mu: Updates
    nu: Updates


class ScaleByRStdDevWithCountState(NamedTuple):
    """The running means of the gradient and of its square, and the count for their correction."""

    count: Count
    mu: Updates
    nu: Updates


def _reciprocal_root(x: Array, eps: float | Array, eps_in_sqrt: bool) -> Array:
    """1 / sqrt(x + eps), or 1 / (sqrt(x) + eps)"""
    return lax.rsqrt(x + eps) if eps_in_sqrt else 1 / (sqrt(x) + eps)


@per_leaf
def scale_by_rss(
    initial_accumulator_value: NonNegative = 0.1,
    eps: NonNegative = 1e-7,
    *,
    eps_in_sqrt: bool = True,
) -> Rule:
    """Divide by the root of the sum of all squared gradients.

        s <- s + g^2                                (s starts at initial_accumulator_value)
        u  = g / sqrt(s + eps)                      u = g / (sqrt(s) + eps) with eps_in_sqrt=False

    and u = 0 where s = 0. This is AdaGrad: steps shrink like 1 / sqrt(t), and elements whose
    gradient is mostly 0 keep long ones.

    Args:
        eps_in_sqrt: add eps under the square root (True) or outside it (False)

    State: sum_of_squares, 4 bytes a parameter.

    Example:
        >>> grads = jnp.array([2.0, -0.1])
        >>> tx = gradtx.scale_by_rss(initial_accumulator_value=0.0)
        >>> state = tx.init(grads)
        >>> for _ in range(4):
        ...     updates, state = tx.update(grads, state)
        >>> print(np.asarray(updates).round(3))  # 1 / sqrt(4)
        [ 0.5 -0.5]

    See also: `adagrad`, the optimizer; `scale_by_rms`, which forgets; `scale_by_sm3`, with less
    state.

    References: Duchi et al., 2011, https://jmlr.org/papers/v12/duchi11a.html
    """

    def init(param: Array) -> ScaleByRssState:
        return ScaleByRssState(real_full_like(param, initial_accumulator_value))

    def update(grad: Array, state: ScaleByRssState) -> tuple[Array, ScaleByRssState]:
        s = state.sum_of_squares + abs_sq(grad)
        scaling = where_positive(lambda s: _reciprocal_root(s, eps, eps_in_sqrt), s)
        return scaling * grad, ScaleByRssState(s)

    return Rule(init, update)


@per_leaf
def scale_by_rms(
    decay: Decay = 0.9,
    eps: NonNegative = 1e-8,
    initial_scale: NonNegative = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> Rule:
    """Divide by the root of the running mean of the squared gradient.

        nu <- decay * nu + (1 - decay) * g^2        (nu starts at initial_scale)
        u   = g / sqrt(nu + eps)                    u = g / (sqrt(nu) + eps) with eps_in_sqrt=False

    This is RMSProp: every element's steps are about equally long.

    Args:
        decay: the decay of the running mean, which reaches back about 1 / (1 - decay) steps. Raise
            it (0.99, 0.999) where gradients are noisy
        initial_scale: the initial value of the running mean of squares. 0 makes the first steps
            long, by up to 1 / sqrt(1 - decay); 1 makes them short where gradients are small
        eps_in_sqrt: add eps under the square root (True) or outside it (False)
        bias_correction: use nu / (1 - decay^t), since nu starts from 0. This keeps a count in the
            state

    State: nu, 4 bytes a parameter; with bias_correction the count too.

    Example:
        >>> grads = jnp.array([2.0, -0.1])
        >>> for corrected in (False, True):
        ...     tx = gradtx.scale_by_rms(bias_correction=corrected)
        ...     updates, state = tx.update(grads, tx.init(grads))
        ...     print(np.asarray(updates).round(3))
        [ 3.162 -3.162]
        [ 1. -1.]

    See also: `rmsprop`, the optimizer; `scale_by_stddev`; `scale_by_adam`, with momentum.

    References: Tieleman & Hinton, 2012,
    https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf
    """

    def init(param: Array) -> ScaleByRmsState:
        return ScaleByRmsState(real_full_like(param, initial_scale))

    def counted(param: Array) -> ScaleByRmsWithCountState:
        return ScaleByRmsWithCountState(None, *init(param))

    def corrected(
        grad: Array, state: ScaleByRmsWithCountState, step: Step
    ) -> tuple[Array, ScaleByRmsWithCountState]:
        nu = running_mean(state.nu, abs_sq(grad), decay)
        scaling = _reciprocal_root(step.debias(nu, decay), eps, eps_in_sqrt)
        return scaling * grad, state._replace(nu=nu)

    def plain(grad: Array, state: ScaleByRmsState) -> tuple[Array, ScaleByRmsState]:
        nu = running_mean(state.nu, abs_sq(grad), decay)
        return _reciprocal_root(nu, eps, eps_in_sqrt) * grad, ScaleByRmsState(nu)

    return Rule(counted, corrected) if bias_correction else Rule(init, plain)


@per_leaf
def scale_by_stddev(
    decay: Decay = 0.9,
    eps: NonNegative = 1e-8,
    initial_scale: NonNegative = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> Rule:
    """Divide by the running standard deviation of the gradient, as centered RMSProp does.

        mu  <- decay * mu + (1 - decay) * g
        nu  <- decay * nu + (1 - decay) * g^2       (nu starts at initial_scale)
        var  = max(nu - mu^2, 0)
        u    = g / sqrt(var + eps)                  u = g / (sqrt(var) + eps) with eps_in_sqrt=False

    Where the gradient keeps its sign and size, the standard deviation is small and steps are long.

    Args:
        decay: the decay of both running means, which reach back about 1 / (1 - decay) steps
        eps: a small number added to the variance (or to its root), which bounds the steps where the
            gradient is steady. Raise it (1e-6, 1e-3) if they are too long
        initial_scale: the initial value of the running mean of squares. A larger one makes the
            first steps shorter
        eps_in_sqrt: add eps under the square root (True) or outside it (False)
        bias_correction: use mu / (1 - decay^t) and nu / (1 - decay^t), since both start from 0.
            This keeps a count in the state

    State: mu and nu, 8 bytes a parameter; with bias_correction the count too.

    Example:
        >>> tx = gradtx.scale_by_stddev(eps=0.01, bias_correction=True)
        >>> state = tx.init(jnp.zeros(2))
        >>> for t in range(4):  # a steady gradient and one that alternates
        ...     updates, state = tx.update(jnp.array([1.0, (-1.0) ** t]), state)
        >>> print(np.asarray(updates).round(2))
        [10. -1.]

    See also: `rmsprop` with centered=True; `scale_by_belief`, which uses a similar variance.

    References: Graves, 2013, https://arxiv.org/abs/1308.0850
    """

    def init(param: Array) -> ScaleByRStdDevState:
        return ScaleByRStdDevState(zeros_like(param), real_full_like(param, initial_scale))

    def counted(param: Array) -> ScaleByRStdDevWithCountState:
        return ScaleByRStdDevWithCountState(None, *init(param))

    def moments(
        grad: Array, state: ScaleByRStdDevState | ScaleByRStdDevWithCountState
    ) -> tuple[Array, Array]:
        return running_mean(state.mu, grad, decay), running_mean(state.nu, abs_sq(grad), decay)

    def scaled(grad: Array, mu: Array, nu: Array) -> Array:
        # Rounding can make nu - mu^2 negative, and its root NaN.
        variance = jnp.maximum(nu - abs_sq(mu), 0)
        return _reciprocal_root(variance, eps, eps_in_sqrt) * grad

    def corrected(
        grad: Array, state: ScaleByRStdDevWithCountState, step: Step
    ) -> tuple[Array, ScaleByRStdDevWithCountState]:
        mu, nu = moments(grad, state)
        update = scaled(grad, step.debias(mu, decay), step.debias(nu, decay))
        return update, state._replace(mu=mu, nu=nu)

    def plain(grad: Array, state: ScaleByRStdDevState) -> tuple[Array, ScaleByRStdDevState]:
        mu, nu = moments(grad, state)
        return scaled(grad, mu, nu), ScaleByRStdDevState(mu, nu)

    return Rule(counted, corrected) if bias_correction else Rule(init, plain)
