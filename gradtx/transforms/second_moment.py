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

    and u = 0 where s = 0. Duchi et al., 2011, https://jmlr.org/papers/v12/duchi11a.html
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

    bias_correction: use nu / (1 - decay^t). Tieleman & Hinton, 2012,
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
    """Divide by the running standard deviation of the gradient: centered RMSProp.

        mu  <- decay * mu + (1 - decay) * g
        nu  <- decay * nu + (1 - decay) * g^2       (nu starts at initial_scale)
        var  = max(nu - mu^2, 0)
        u    = g / sqrt(var + eps)                  u = g / (sqrt(var) + eps) with eps_in_sqrt=False

    bias_correction: use mu / (1 - decay^t) and nu / (1 - decay^t). Graves, 2013,
    https://arxiv.org/abs/1308.0850
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
