"""Learning rates from an estimate of the distance to the solution: D-Adaptation and Prodigy."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradtx import tree
from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import real_dtype_of
from gradtx.core.hyperparameters import Decay, NonNegative, Positive
from gradtx.core.numerics import abs_sq, quotient, real_full_like, running_mean, sqrt, zeros_like
from gradtx.core.rule import Rule
from gradtx.core.state import Count, LikeParams, Params, PastParams, Updates
from gradtx.core.step import Step

__all__ = ["DAdaptAdamWState", "ProdigyState", "dadapt_adamw", "prodigy"]


class DAdaptAdamWState(NamedTuple):
    """exp_avg, exp_avg_sq: Adam's moments, the first one of gradients times their rates; grad_sum:
    the running mean s of the same. The scalars: the estimate d of the learning rate, and the
    numerator n that it is estimated from."""

    exp_avg: LikeParams
    exp_avg_sq: LikeParams
    grad_sum: LikeParams
    estim_lr: Array
    numerator_weighted: Array
    count: Count


class ProdigyState(NamedTuple):
    """exp_avg, exp_avg_sq: the moments of d g; grad_sum: the weighted sum s of gradients; params0:
    the initial parameters. The scalars: the estimate d of the learning rate, and the numerator n
    that it is estimated from."""

    exp_avg: LikeParams
    exp_avg_sq: LikeParams
    grad_sum: LikeParams
    params0: PastParams
    estim_lr: Array
    numerator_weighted: Array
    count: Count


@per_tree
def dadapt_adamw(
    learning_rate: NonNegative = 1.0,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: NonNegative = 1e-8,
    estim_lr0: Positive = 1e-6,
    weight_decay: NonNegative = 0.0,
) -> Rule:
    """AdamW that estimates its learning rate, by D-Adaptation.

        rate = d learning_rate sqrt(1 - b2^t) / (1 - b1^t)
        n  <- sqrt(b2) n + (1 - sqrt(b2)) rate <g, s / (sqrt(nu) + eps)>
        mu <- b1 mu + (1 - b1) rate g                 nu <- b2 nu + (1 - b2) g^2
        s  <- sqrt(b2) s + (1 - sqrt(b2)) rate g      d  <- max(d, n / ((1 - sqrt(b2)) ||s||_1))
        u   = -weight_decay rate x - mu / (sqrt(nu) + eps)

    n is computed from the old s and nu. d starts at estim_lr0 and is kept while s is 0.
    learning_rate scales the estimate: 1, or a schedule around it. Defazio & Mishchenko, 2023,
    https://arxiv.org/abs/2301.07733
    """
    b1, b2 = betas
    root = b2**0.5

    def init(params: Params) -> DAdaptAdamWState:
        return DAdaptAdamWState(
            exp_avg=jax.tree.map(zeros_like, params),
            exp_avg_sq=jax.tree.map(lambda p: real_full_like(p, 0), params),
            grad_sum=jax.tree.map(zeros_like, params),
            estim_lr=jnp.asarray(estim_lr0, real_dtype_of(params)),
            numerator_weighted=jnp.zeros((), real_dtype_of(params)),
            count=None,
        )

    def update(
        updates: Updates, state: DAdaptAdamWState, params: Params, step: Step
    ) -> tuple[Updates, DAdaptAdamWState]:
        rate = state.estim_lr * learning_rate * _correction(step, b1, b2, state.estim_lr.dtype)
        scaled = jax.tree.map(_over_root(eps), state.grad_sum, state.exp_avg_sq)
        numerator = running_mean(
            state.numerator_weighted, rate * jnp.real(tree.vdot(updates, scaled)), root
        )
        mu = jax.tree.map(lambda m, g: running_mean(m, rate * g, b1), state.exp_avg, updates)
        nu = jax.tree.map(lambda n, g: running_mean(n, abs_sq(g), b2), state.exp_avg_sq, updates)
        s = jax.tree.map(lambda s, g: running_mean(s, rate * g, root), state.grad_sum, updates)
        d = _larger(state.estim_lr, numerator, (1 - root) * tree.norm(s, ord=1))
        steps = jax.tree.map(_over_root(eps), mu, nu)
        u = jax.tree.map(lambda p, m: -weight_decay * rate * p - m, params, steps)
        return u, state._replace(
            exp_avg=mu, exp_avg_sq=nu, grad_sum=s, estim_lr=d, numerator_weighted=numerator
        )

    return Rule(init, update)


@per_tree
def prodigy(
    learning_rate: NonNegative = 1.0,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    beta3: Decay | None = None,
    eps: NonNegative = 1e-8,
    estim_lr0: Positive = 1e-6,
    estim_lr_coef: NonNegative = 1.0,
    weight_decay: NonNegative = 0.0,
    safeguard_warmup: bool = False,
) -> Rule:
    """AdamW that estimates its learning rate, faster than D-Adaptation.

        rate = d learning_rate sqrt(1 - b2^t) / (1 - b1^t)
        mu <- b1 mu + (1 - b1) d g                    nu <- b2 nu + (1 - b2) (d g)^2
        n  <- b3 n + (d / d0) rate <g, x0 - x>        s  <- b3 s + (d / d0) rate g
        d  <- max(d, estim_lr_coef n / ||s||_1)
        u   = -weight_decay rate x - rate mu / (sqrt(nu) + d eps)        (with the new d)

    d starts at d0 = estim_lr0 and is kept while s is 0. b3 is beta3, sqrt(b2) by default.
    safeguard_warmup: s grows by (d / d0) d g, without the learning rate, so that a warmup does not
    inflate d. learning_rate scales the estimate: 1, or a schedule around it. Mishchenko & Defazio,
    2023, https://arxiv.org/abs/2306.06101
    """
    b1, b2 = betas
    b3 = b2**0.5 if beta3 is None else beta3

    def init(params: Params) -> ProdigyState:
        return ProdigyState(
            exp_avg=jax.tree.map(zeros_like, params),
            exp_avg_sq=jax.tree.map(lambda p: real_full_like(p, 0), params),
            grad_sum=jax.tree.map(zeros_like, params),
            params0=jax.tree.map(jnp.copy, params),
            estim_lr=jnp.asarray(estim_lr0, real_dtype_of(params)),
            numerator_weighted=jnp.zeros((), real_dtype_of(params)),
            count=None,
        )

    def update(
        updates: Updates, state: ProdigyState, params: Params, step: Step
    ) -> tuple[Updates, ProdigyState]:
        d = state.estim_lr
        rate = d * learning_rate * _correction(step, b1, b2, d.dtype)
        way = tree.sub(state.params0, params)
        weight = d / estim_lr0
        won = weight * rate * jnp.real(tree.vdot(updates, way))
        numerator = b3 * state.numerator_weighted + won
        mu = jax.tree.map(lambda m, g: running_mean(m, d * g, b1), state.exp_avg, updates)
        nu = jax.tree.map(
            lambda n, g: running_mean(n, abs_sq(d * g), b2), state.exp_avg_sq, updates
        )
        weight = weight * (d if safeguard_warmup else rate)
        s = jax.tree.map(lambda s, g: b3 * s + weight * g, state.grad_sum, updates)
        new_d = _larger(d, estim_lr_coef * numerator, tree.norm(s, ord=1))
        steps = jax.tree.map(_over_root(new_d * eps), mu, nu)
        u = jax.tree.map(lambda p, m: -weight_decay * rate * p - rate * m, params, steps)
        return u, state._replace(
            exp_avg=mu, exp_avg_sq=nu, grad_sum=s, estim_lr=new_d, numerator_weighted=numerator
        )

    return Rule(init, update)


def _correction(step: Step, b1: float | Array, b2: float | Array, dtype: DTypeLike) -> Array:
    """sqrt(1 - b2^t) / (1 - b1^t)"""
    return jnp.sqrt(step.bias(b2, dtype)) / step.bias(b1, dtype)


def _over_root(eps: float | Array) -> Callable[[Array, Array], Array]:
    """The function m, n -> m / (sqrt(n) + eps)"""
    return lambda m, n: m / (sqrt(n) + eps)


def _larger(d: Array, numerator: Array, denominator: Array) -> Array:
    """max(d, numerator / denominator), and d while there is no gradient to estimate from."""
    return jnp.maximum(d, quotient(numerator, denominator))
