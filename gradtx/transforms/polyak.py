"""Polyak step sizes: set by the gap between the loss and a lower bound on it."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx import tree
from gradtx.core.decorators import per_leaf, per_tree
from gradtx.core.dtypes import real_dtype, real_dtype_of
from gradtx.core.hyperparameters import Decay, NonNegative, Real
from gradtx.core.norms import Norm, norm_of
from gradtx.core.numerics import (
    abs_sq,
    real_full_like,
    running_mean,
    sqrt,
    where_positive,
    zeros_like,
)
from gradtx.core.rule import Rule
from gradtx.core.state import Count, LikeParams, Params, Updates
from gradtx.core.step import Step
from gradtx.transforms.plateau import as_loss

__all__ = ["MomoAdamState", "MomoState", "momo", "momo_adam", "scale_by_polyak"]

Variant = Literal["sps", "sps+"]


@per_leaf
def scale_by_polyak(
    f_min: Real = 0.0,
    max_learning_rate: NonNegative = 1.0,
    eps: NonNegative = 0.0,
    variant: Variant = "sps",
) -> Rule:
    """Multiply the updates by Polyak's step size, computed from the loss passed as `value`.

        u = min((value - f_min) / (||g||^2 + eps), max_learning_rate) g

    The norm is of the whole tree; if it and eps are 0, u is 0. The step is the one that would bring
    a linear loss down to f_min. It suits models that can fit the data perfectly, so that the lowest
    loss is known. Give update the loss of the same batch: `tx.update(grads, state, params,
    value=loss)`.

    Args:
        f_min: a lower bound on the loss, 0 for most losses. Too low a bound makes steps too long
        max_learning_rate: the largest step size
        eps: a number added to the squared norm, which shortens steps where gradients are small
        variant: if value is below f_min, "sps+" uses f_min instead, while "sps" steps uphill

    State: none.

    Raises: ValueError for any other variant.

    Example:
        >>> params, loss = jnp.array([4.0, -2.0]), lambda x: jnp.sum(x**2)
        >>> value, grads = jax.value_and_grad(loss)(params)
        >>> tx = gradtx.scale_by_polyak()
        >>> updates, state = tx.update(grads, tx.init(params), value=value)
        >>> print(updates)  # 20 / 80 of the gradient
        [ 2. -1.]

    See also: `polyak_sgd`, the optimizer; `momo`, with momentum.

    References: Loizou et al., 2021, https://arxiv.org/abs/2002.10542; "sps+": Garrigos et al.,
    2023, https://arxiv.org/abs/2307.14528
    """

    def precompute(updates: Updates) -> Norm:
        return norm_of(jax.tree.leaves(updates))

    def update(grad: Array, precomputed: Norm, *, value: ArrayLike) -> Array:
        gap = as_loss(value, real_dtype(grad.dtype)) - f_min
        gap = jnp.maximum(gap, 0) if variant == "sps+" else gap
        return jnp.minimum(precomputed.square_below(gap, 0, eps), max_learning_rate) * grad

    return Rule(None, update, precompute)


class MomoState(NamedTuple):
    """exp_avg: the running mean of the gradient, a tree like the params. The scalars barf, gamma:
    the running means f of the loss and c of <g, x>; lb: the lower bound."""

    exp_avg: LikeParams
    barf: Array
    gamma: Array
    lb: Array
    count: Count


class MomoAdamState(NamedTuple):
    """The state of `momo`, and the running mean of the squared gradient: real, like the params."""

    exp_avg: LikeParams
    exp_avg_sq: LikeParams
    barf: Array
    gamma: Array
    lb: Array
    count: Count


@per_tree
def momo(
    learning_rate: NonNegative = 1.0,
    beta: Decay = 0.9,
    lower_bound: Real = 0.0,
    weight_decay: NonNegative = 0.0,
    adapt_lower_bound: bool = False,
) -> Rule:
    """Take SGD's steps with momentum and a Polyak step size, from the loss passed as `value`.

        d <- beta d + (1 - beta) g            f <- beta f + (1 - beta) value
        c <- beta c + (1 - beta) <g, x>       (all three start at their first value)
        r   = 1 + learning_rate weight_decay
        tau = min(learning_rate, max(r (f - lb - c) + <d, x>, 0) / ||d||^2)
        u   = (x - tau d) / r - x

    x are the params. If d = 0, tau is 0. The learning rate is an upper bound only: too large a one
    does little harm. Give update the loss of the same batch: `tx.update(grads, state, params,
    value=loss)`.

    Args:
        learning_rate: the largest step size
        beta: the decay of the running means of gradients and losses, which reach back about 1 / (1
            - beta) steps
        lower_bound: a lower bound lb on the loss, 0 for most losses
        adapt_lower_bound: estimate lb, never below lower_bound: if it is too high to allow a step,
            it is first lowered to half the highest one that does; then it is set to f + <d, x> - c
            - tau ||d||^2 / 2

    State: exp_avg (d), 4 bytes a parameter; the scalars barf (f), gamma (c) and lb; and the count.

    Example:
        >>> params, loss = jnp.array([4.0, -2.0]), lambda x: jnp.sum(x**2)
        >>> value, grads = jax.value_and_grad(loss)(params)
        >>> tx = gradtx.momo(learning_rate=1.0)
        >>> updates, state = tx.update(grads, tx.init(params), params, value=value)
        >>> print(updates)  # 20 / 80 of the gradient; 1.0 is the upper bound
        [-2.  1.]

    See also: `momo_adam`, `polyak_sgd`.

    References: Schaipp et al., 2023, https://arxiv.org/abs/2305.07583
    """

    def init(params: Params) -> MomoState:
        f, c, lb = _first_scalars(params, lower_bound)
        return MomoState(
            exp_avg=jax.tree.map(zeros_like, params), barf=f, gamma=c, lb=lb, count=None
        )

    def update(
        updates: Updates, state: MomoState, params: Params, step: Step, *, value: ArrayLike
    ) -> tuple[Updates, MomoState]:
        dtype = state.barf.dtype
        decay = jnp.where(step.count == 1, 0, jnp.asarray(beta, dtype))
        d = jax.tree.map(lambda m, g: running_mean(m, g, decay), state.exp_avg, updates)
        f = running_mean(state.barf, as_loss(value, dtype), decay)
        c = running_mean(state.gamma, _dot(updates, params), decay)
        model = _Model(f, c, _dot(d, params), tree.norm(d, squared=True), learning_rate)
        lb = _lower_bound(state.lb, lower_bound, adapt_lower_bound, step)
        tau, lb = model.step(lb, lower_bound, weight_decay, adapt_lower_bound, jnp.ones((), dtype))
        u = _proximal(params, d, tau, learning_rate * weight_decay)
        return u, state._replace(exp_avg=d, barf=f, gamma=c, lb=lb)

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
) -> Rule:
    """Take Adam's steps with a Polyak step size, from the loss passed as `value`.

        d <- b1 d + (1 - b1) g                f <- b1 f + (1 - b1) value
        c <- b1 c + (1 - b1) <g, x>           nu <- b2 nu + (1 - b2) g^2
        D   = eps + sqrt(nu / (1 - b2^t))     r = 1 + learning_rate weight_decay
        p   = 1 - b1^t
        tau = min(learning_rate / p, max(r (f - p lb - c) + <d, x>, 0) / <d, d / D>)
        u   = (x - tau d / D) / r - x

    x are the params, lb is the lower bound. If d = 0, tau is 0. Far from the lower bound the steps
    are Adam's; near it they become shorter by themselves. Give update the loss of the same batch:
    `tx.update(grads, state, params, value=loss)`.

    Args:
        learning_rate: the largest step size
        b1: the decay of the running means of gradients and losses, which reach back about 1 / (1 -
            b1) steps
        lower_bound: a lower bound lb on the loss, 0 for most losses
        adapt_lower_bound: estimate lb, never below lower_bound, as in `momo`

    State: exp_avg (d) and exp_avg_sq (nu), 8 bytes a parameter; the scalars barf (f), gamma (c) and
    lb; and the count.

    Example:
        >>> params, grads = jnp.array([4.0, -2.0]), jnp.array([8.0, -4.0])
        >>> tx = gradtx.momo_adam(learning_rate=0.5)
        >>> for value in (20.0, 3.0, 0.0):  # far from the lower bound, nearer, there
        ...     updates, state = tx.update(grads, tx.init(params), params, value=value)
        ...     print(abs(np.asarray(updates)).round(4))
        [0.5 0.5]
        [0.25 0.25]
        [0. 0.]

    See also: `momo`, `adam`.

    References: Schaipp et al., 2023, https://arxiv.org/abs/2305.07583
    """

    def init(params: Params) -> MomoAdamState:
        f, c, lb = _first_scalars(params, lower_bound)
        nu = jax.tree.map(lambda p: real_full_like(p, 0), params)
        return MomoAdamState(
            exp_avg=jax.tree.map(zeros_like, params),
            exp_avg_sq=nu,
            barf=f,
            gamma=c,
            lb=lb,
            count=None,
        )

    def update(
        updates: Updates, state: MomoAdamState, params: Params, step: Step, *, value: ArrayLike
    ) -> tuple[Updates, MomoAdamState]:
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
        return u, state._replace(exp_avg=d, exp_avg_sq=nu, barf=f, gamma=c, lb=lb)

    return Rule(init, update)


def _first_scalars(params: Params, lower_bound: float | Array) -> tuple[Array, Array, Array]:
    """f, c and lb before the first step, in the dtype of the params' real parts."""
    dtype = real_dtype_of(params)
    return jnp.zeros((), dtype), jnp.zeros((), dtype), jnp.asarray(lower_bound, dtype)


def _lower_bound(held: Array, given: float | Array, adapt: bool, step: Step) -> Array:
    """The bound for this step: the estimated one, or the given one, which may be scheduled."""
    return held if adapt else jnp.where(step.count == 1, held, jnp.asarray(given, held.dtype))


def _dot(x: Updates, y: Updates) -> Array:
    """<x, y>; for complex trees its real part."""
    return jnp.real(tree.vdot(x, y))


class _Model(NamedTuple):
    """The running mean of linear models of the loss: scalars.

    f, c: as in `momo`; slope_at_params: <d, x>; squared_norm: ||d||^2, in `momo_adam`
    <d, d / D>.
    """

    f: Array
    c: Array
    slope_at_params: Array
    squared_norm: Array
    learning_rate: float | Array

    def step(
        self, lb: Array, lower: float | Array, decay: float | Array, adapt: bool, part: Array
    ) -> tuple[Array, Array]:
        """The step size and the lower bound; `part` is the total weight of the means so far."""
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


def _proximal(params: Params, direction: Updates, tau: Array, decay: float | Array) -> Updates:
    """(x - tau d) / (1 + decay) - x"""
    return jax.tree.map(lambda x, d: -(tau * d + decay * x) / (1 + decay), params, direction)
