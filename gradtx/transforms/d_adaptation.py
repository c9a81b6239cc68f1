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
from gradtx.core.state import Adapted, Count, LikeParams, Params, PastParams, Updates
from gradtx.core.step import Step

__all__ = ["DAdaptAdamWState", "ProdigyState", "dadapt_adamw", "prodigy"]


class DAdaptAdamWState(NamedTuple):
    """exp_avg, exp_avg_sq: Adam's moments, the first one of gradients times their rates; grad_sum:
    the running mean s of the same products. The scalars: the estimate d of the learning rate, and
    the numerator n that it is estimated from."""

    exp_avg: LikeParams
    exp_avg_sq: LikeParams
    grad_sum: LikeParams
    estim_lr: Adapted
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
    estim_lr: Adapted
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
    """Take AdamW steps at a learning rate estimated by D-Adaptation.

        rate = d learning_rate sqrt(1 - b2^t) / (1 - b1^t)
        n  <- sqrt(b2) n + (1 - sqrt(b2)) rate <g, s / (sqrt(nu) + eps)>
        mu <- b1 mu + (1 - b1) rate g                 nu <- b2 nu + (1 - b2) g^2
        s  <- sqrt(b2) s + (1 - sqrt(b2)) rate g      d  <- max(d, n / ((1 - sqrt(b2)) ||s||_1))
        u   = -weight_decay rate x - mu / (sqrt(nu) + eps)

    n is computed from the old s and nu. d starts at estim_lr0 and is kept while s is 0. It never
    falls. The update is the full step: no learning rate follows.

    Args:
        learning_rate: a factor on the estimate. Leave it at 1, or give a schedule that warms up to
            1 and decays; lower it where training is unstable.
        betas: the decays (b1, b2) of the running means of gradients and of their squares. n and s,
            from which d is estimated, decay by sqrt(b2).
        estim_lr0: the initial value of the estimate d. It has to be below the right learning rate;
            how far below hardly matters, but raise it if d does not grow.
        weight_decay: how strongly parameters are pulled towards 0: this fraction of each, times the
            rate, is subtracted at every step, independently of the gradient.

    State: mu, nu and s, 12 bytes a parameter, and the scalars d and n.

    Example:
        >>> tx = gradtx.dadapt_adamw()
        >>> params = jnp.array([10.0])
        >>> state = tx.init(params)
        >>> for _ in range(5):
        ...     updates, state = tx.update(jnp.sign(params), state, params)
        >>> print(f"{state.estim_lr:.0e}")  # from 1e-06
        3e-05

    See also: `prodigy`, `dog`, `adamw`.

    References: Defazio & Mishchenko, 2023, https://arxiv.org/abs/2301.07733
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
    """Take AdamW steps at a learning rate that is estimated faster than by D-Adaptation.

        rate = d learning_rate sqrt(1 - b2^t) / (1 - b1^t)
        mu <- b1 mu + (1 - b1) d g                    nu <- b2 nu + (1 - b2) (d g)^2
        n  <- b3 n + (d / d0) rate <g, x0 - x>        s  <- b3 s + (d / d0) rate g
        d  <- max(d, estim_lr_coef n / ||s||_1)
        u   = -weight_decay rate x - rate mu / (sqrt(nu) + d eps)        (with the new d)

    d starts at d0 = estim_lr0 and is kept while s is 0. It never falls. x0 are the params given to
    init. The update is the full step: no learning rate follows.

    Args:
        learning_rate: a factor on the estimate. Leave it at 1, or give a schedule that warms up to
            1 and decays; estim_lr_coef is the better way to scale the steps.
        betas: the decays (b1, b2) of the running means of gradients and of their squares.
        beta3: the decay b3 of n and s, from which d is estimated; None is sqrt(b2). A larger one
            averages over more steps and lets d grow more slowly.
        eps: a small number added to the denominator, in units of d, which bounds the step where
            gradients are tiny.
        estim_lr0: the initial value of the estimate d. It has to be below the right learning rate;
            how far below hardly matters, but raise it if d does not grow.
        estim_lr_coef: a factor on each new estimate before the maximum is taken. Smaller (0.5)
            takes shorter steps, larger (2) longer ones.
        weight_decay: how strongly parameters are pulled towards 0: this fraction of each, times the
            rate, is subtracted at every step, independently of the gradient.
        safeguard_warmup: let s grow by (d / d0) d g, without the learning rate, so that a warmup
            does not inflate d.

    State: mu, nu, s and x0, 16 bytes a parameter, and the scalars d and n.

    Example:
        >>> tx = gradtx.prodigy(estim_lr0=1e-3)
        >>> params = jnp.array([10.0])
        >>> state = tx.init(params)
        >>> for _ in range(9):
        ...     updates, state = tx.update(jnp.sign(params), state, params)
        ...     params = gradtx.apply_updates(params, updates)
        >>> print(f"{state.estim_lr:.2f}")  # from 0.001
        0.01

    See also: `dadapt_adamw`, `dog`, `adamw`.

    References: Mishchenko & Defazio, 2023, https://arxiv.org/abs/2306.06101
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
    """max(d, numerator / denominator), or d while there is no gradient to estimate from."""
    return jnp.maximum(d, quotient(numerator, denominator))
