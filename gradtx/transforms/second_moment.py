"""Dividing by the size of past gradients: sums and running means of their squares."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from gradtx.core.decorators import per_leaf
from gradtx.core.kinds import Decay, NonNegative
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
    """The sum of the squares of all gradients."""

    sum_of_squares: Updates


class ScaleByRmsState(NamedTuple):
    """The running mean of the squares."""

    nu: Updates


class ScaleByRmsWithCountState(NamedTuple):
    """The running mean of the squares, and the count that its bias correction needs."""

    count: Count
    nu: Updates


class ScaleByRStdDevState(NamedTuple):
    """The running means of the gradient and of its square."""

    mu: Updates
    nu: Updates


class ScaleByRStdDevWithCountState(NamedTuple):
    """The running means of the gradient and of its square, and the count to correct them."""

    count: Count
    mu: Updates
    nu: Updates


def _reciprocal_root(x: Any, eps: Any, eps_in_sqrt: bool) -> Any:
    """1 / sqrt(x + eps), or 1 / (sqrt(x) + eps)"""
    return lax.rsqrt(x + eps) if eps_in_sqrt else 1 / (sqrt(x) + eps)


@per_leaf
def scale_by_rss(
    initial_accumulator_value: NonNegative = 0.1,
    eps: NonNegative = 1e-7,
    *,
    eps_in_sqrt: bool = True,
) -> Any:
    """Divide by the root of the sum of all squared gradients.

        s <- s + g^2                                (s starts at initial_accumulator_value)
        u  = g / sqrt(s + eps)                      u = g / (sqrt(s) + eps) with eps_in_sqrt=False

    and u = 0 where s = 0. Duchi et al., 2011, https://jmlr.org/papers/v12/duchi11a.html
    """

    def init(param: Any) -> ScaleByRssState:
        return ScaleByRssState(real_full_like(param, initial_accumulator_value))

    def update(grad: Any, state: ScaleByRssState) -> Any:
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
) -> Any:
    """Divide by the root of the running mean of the squared gradient.

        nu <- decay * nu + (1 - decay) * g^2        (nu starts at initial_scale)
        u   = g / sqrt(nu + eps)                    u = g / (sqrt(nu) + eps) with eps_in_sqrt=False

    bias_correction: use nu / (1 - decay^t). Tieleman & Hinton, 2012,
    https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf
    """

    def init(param: Any) -> ScaleByRmsState:
        return ScaleByRmsState(real_full_like(param, initial_scale))

    def counted(param: Any, step: Any) -> ScaleByRmsWithCountState:
        return ScaleByRmsWithCountState(step.count, *init(param))

    def corrected(grad: Any, state: Any, step: Any) -> Any:
        nu = running_mean(state.nu, abs_sq(grad), decay)
        scaling = _reciprocal_root(step.debias(nu, decay), eps, eps_in_sqrt)
        return scaling * grad, ScaleByRmsWithCountState(step.count, nu)

    def plain(grad: Any, state: Any) -> Any:
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
) -> Any:
    """Divide by the running standard deviation of the gradient: centered RMSProp.

        mu  <- decay * mu + (1 - decay) * g
        nu  <- decay * nu + (1 - decay) * g^2       (nu starts at initial_scale)
        var  = max(nu - mu^2, 0)
        u    = g / sqrt(var + eps)                  u = g / (sqrt(var) + eps) with eps_in_sqrt=False

    bias_correction: use mu / (1 - decay^t) and nu / (1 - decay^t). Graves, 2013,
    https://arxiv.org/abs/1308.0850
    """

    def init(param: Any) -> ScaleByRStdDevState:
        return ScaleByRStdDevState(zeros_like(param), real_full_like(param, initial_scale))

    def counted(param: Any, step: Any) -> ScaleByRStdDevWithCountState:
        return ScaleByRStdDevWithCountState(step.count, *init(param))

    def moments(grad: Any, state: Any) -> Any:
        return running_mean(state.mu, grad, decay), running_mean(state.nu, abs_sq(grad), decay)

    def scaled(grad: Any, mu: Any, nu: Any) -> Any:
        # Rounding can take nu - mu^2 below zero, where the root would be NaN.
        variance = jnp.maximum(nu - abs_sq(mu), 0)
        return _reciprocal_root(variance, eps, eps_in_sqrt) * grad

    def corrected(grad: Any, state: Any, step: Any) -> Any:
        mu, nu = moments(grad, state)
        update = scaled(grad, step.debias(mu, decay), step.debias(nu, decay))
        return update, ScaleByRStdDevWithCountState(step.count, mu, nu)

    def plain(grad: Any, state: Any) -> Any:
        mu, nu = moments(grad, state)
        return scaled(grad, mu, nu), ScaleByRStdDevState(mu, nu)

    return Rule(counted, corrected) if bias_correction else Rule(init, plain)
