"""Polyak step sizes: as long as the gap between the loss and its lower bound allows."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from gradtx import tree
from gradtx.core.decorators import per_leaf, per_tree
from gradtx.core.dtypes import real_dtype, real_dtype_of
from gradtx.core.kinds import Decay, NonNegative, Real
from gradtx.core.norms import norm_of
from gradtx.core.numerics import (
    abs_sq,
    real_full_like,
    running_mean,
    sqrt,
    where_positive,
    zeros_like,
)
from gradtx.core.rule import Rule
from gradtx.core.state import Count, LikeParams
from gradtx.transforms.plateau import as_loss

__all__ = ["MomoAdamState", "MomoState", "momo", "momo_adam", "scale_by_polyak"]

Variant = Literal["sps", "sps+"]


@per_leaf
def scale_by_polyak(
    f_min: Real = 0.0,
    max_learning_rate: NonNegative = 1.0,
    eps: NonNegative = 0.0,
    variant: Variant = "sps",
) -> Any:
    """Polyak's step size, of the loss that is given as `value`.

        u = min((value - f_min) / (||g||^2 + eps), max_learning_rate) g

    The norm is of the whole tree; u is 0 where it is 0 and eps is. f_min: a lower bound of the
    loss. variant: "sps+" takes a value below f_min as f_min; with "sps" the step then goes uphill.

    Raises: ValueError for another variant. Loizou et al., 2021, https://arxiv.org/abs/2002.10542;
    sps+: Garrigos et al., 2023, https://arxiv.org/abs/2307.14528
    """

    def precompute(updates: Any) -> Any:
        return norm_of(jax.tree.leaves(updates))

    def update(grad: Any, precomputed: Any, *, value: Any) -> Any:
        gap = as_loss(value, real_dtype(grad.dtype)) - f_min
        gap = jnp.maximum(gap, 0) if variant == "sps+" else gap
        return jnp.minimum(precomputed.square_below(gap, 0, eps), max_learning_rate) * grad

    return Rule(None, update, precompute)


class MomoState(NamedTuple):
    """The running means of the gradient, of the loss and of <g, x>, and the lower bound."""

    exp_avg: LikeParams
    barf: Any
    gamma: Any
    lb: Any
    count: Count


class MomoAdamState(NamedTuple):
    """The state of `momo`, and the running mean of the squared gradient."""

    exp_avg: LikeParams
    exp_avg_sq: LikeParams
    barf: Any
    gamma: Any
    lb: Any
    count: Count


@per_tree
def momo(
    learning_rate: NonNegative = 1.0,
    beta: Decay = 0.9,
    lower_bound: Real = 0.0,
    weight_decay: NonNegative = 0.0,
    adapt_lower_bound: bool = False,
) -> Any:
    """SGD with momentum and a Polyak step size, of the loss that is given as `value`.

        d <- beta d + (1 - beta) g            f <- beta f + (1 - beta) value
        c <- beta c + (1 - beta) <g, x>       (all start at their first value)
        r   = 1 + learning_rate weight_decay
        tau = min(learning_rate, max(r (f - lb - c) + <d, x>, 0) / ||d||^2)
        u   = (x - tau d) / r - x

    tau is 0 where d is. lb is lower_bound; with adapt_lower_bound it is estimated, never below
    lower_bound: halved towards the model's value before a step that it would forbid, then set to
    f + <d, x> - c - tau ||d||^2 / 2. Schaipp et al., 2023, https://arxiv.org/abs/2305.07583
    """

    def init(params: Any, step: Any) -> MomoState:
        f, c, lb = _first_scalars(params, lower_bound)
        return MomoState(jax.tree.map(zeros_like, params), f, c, lb, step.count)

    def update(updates: Any, state: MomoState, params: Any, step: Any, *, value: Any) -> Any:
        dtype = state.barf.dtype
        decay = jnp.where(step.count == 1, 0, jnp.asarray(beta, dtype))
        d = jax.tree.map(lambda m, g: running_mean(m, g, decay), state.exp_avg, updates)
        f = running_mean(state.barf, as_loss(value, dtype), decay)
        c = running_mean(state.gamma, _dot(updates, params), decay)
        model = _Model(f, c, _dot(d, params), tree.norm(d, squared=True), learning_rate)
        lb = _lower_bound(state.lb, lower_bound, adapt_lower_bound, step)
        tau, lb = model.step(lb, lower_bound, weight_decay, adapt_lower_bound, jnp.ones((), dtype))
        u = _proximal(params, d, tau, learning_rate * weight_decay)
        return u, MomoState(d, f, c, lb, step.count)

    return Rule(init, update)


@per_tree
def momo_adam(
    learning_rate: NonNegative = 1e-2,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    lower_bound: Real = 0.0,
    weight_decay: NonNegative = 0.0,
    adapt_lower_bound: bool = False,
) -> Any:
    """Adam with a Polyak step size, of the loss that is given as `value`.

        d <- b1 d + (1 - b1) g                f <- b1 f + (1 - b1) value
        c <- b1 c + (1 - b1) <g, x>           nu <- b2 nu + (1 - b2) g^2
        D   = eps + sqrt(nu / (1 - b2^t))     r = 1 + learning_rate weight_decay
        p   = 1 - b1^t
        tau = min(learning_rate / p, max(r (f - p lb - c) + <d, x>, 0) / <d, d / D>)
        u   = (x - tau d / D) / r - x

    tau is 0 where d is. lower_bound, adapt_lower_bound: as in `momo`. Schaipp et al., 2023,
    https://arxiv.org/abs/2305.07583
    """

    def init(params: Any, step: Any) -> MomoAdamState:
        f, c, lb = _first_scalars(params, lower_bound)
        nu = jax.tree.map(lambda p: real_full_like(p, 0), params)
        return MomoAdamState(jax.tree.map(zeros_like, params), nu, f, c, lb, step.count)

    def update(updates: Any, state: MomoAdamState, params: Any, step: Any, *, value: Any) -> Any:
        dtype = state.barf.dtype
        d = jax.tree.map(lambda m, g: running_mean(m, g, b1), state.exp_avg, updates)
        nu = jax.tree.map(lambda n, g: running_mean(n, abs_sq(g), b2), state.exp_avg_sq, updates)
        f = running_mean(state.barf, as_loss(value, dtype), b1)
        c = running_mean(state.gamma, _dot(updates, params), b1)
        scaled = jax.tree.map(lambda m, n: m / (eps + sqrt(step.debias(n, b2))), d, nu)
        model = _Model(f, c, _dot(d, params), _dot(d, scaled), learning_rate)
        lb = _lower_bound(state.lb, lower_bound, adapt_lower_bound, step)
        part = step.bias(b1, dtype)
        tau, lb = model.step(lb, lower_bound, weight_decay, adapt_lower_bound, part)
        u = _proximal(params, scaled, tau, learning_rate * weight_decay)
        return u, MomoAdamState(d, nu, f, c, lb, step.count)

    return Rule(init, update)


def _first_scalars(params: Any, lower_bound: Any) -> tuple[Any, Any, Any]:
    dtype = real_dtype_of(params)
    return jnp.zeros((), dtype), jnp.zeros((), dtype), jnp.asarray(lower_bound, dtype)


def _lower_bound(held: Any, given: Any, adapt: bool, step: Any) -> Any:
    """The bound that was estimated, or the one of this step, for it may be scheduled."""
    return held if adapt else jnp.where(step.count == 1, held, jnp.asarray(given, held.dtype))


def _dot(x: Any, y: Any) -> Any:
    """<x, y>, real for complex trees."""
    return jnp.real(tree.vdot(x, y))


class _Model(NamedTuple):
    """The running mean of the linear models of the loss, and the squared length of its slope."""

    f: Any
    c: Any
    slope_at_params: Any
    squared_norm: Any
    learning_rate: Any

    def step(self, lb: Any, lower: Any, decay: Any, adapt: bool, part: Any) -> tuple[Any, Any]:
        """The step size and the lower bound; `part` is the weight that the means have so far."""
        r = 1 + self.learning_rate * decay
        if adapt:
            cap = r * (self.f - self.c) + self.slope_at_params
            halved = jnp.maximum(cap / (2 * r * part), lower)
            lb = jnp.where(cap < r * part * lb, halved, lb)
        gap = jnp.maximum(r * (self.f - part * lb - self.c) + self.slope_at_params, 0)
        largest = self.learning_rate / part
        tau = where_positive(lambda norm: jnp.minimum(largest, gap / norm), self.squared_norm)
        if adapt:
            below = self.f + self.slope_at_params - self.c - tau * self.squared_norm / 2
            lb = jnp.maximum(below / part, lower)
        return tau, lb


def _proximal(params: Any, direction: Any, tau: Any, decay: Any) -> Any:
    """(x - tau d) / (1 + decay) - x"""
    return jax.tree.map(lambda x, d: -(tau * d + decay * x) / (1 + decay), params, direction)
