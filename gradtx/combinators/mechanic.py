"""Mechanic: learn the scale of another optimizer's updates."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx import tree
from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import real_dtype_of
from gradtx.core.hyperparameters import NonNegative, Positive, PositiveInt
from gradtx.core.inner import Inner
from gradtx.core.numerics import sqrt
from gradtx.core.rule import Rule
from gradtx.core.state import Count, OptState, Params, PastParams, Updates
from gradtx.core.step import Step
from gradtx.core.transformation import TransformationLike

__all__ = ["MechanicState", "mechanize"]


class MechanicState(NamedTuple):
    """The base optimizer's state; the reward r, the bound m, the variance v and the scale s, one
    for each beta (num_betas,); and x0, the params where the run began."""

    base_optimizer_state: OptState
    count: Count
    r: jax.Array
    m: jax.Array
    v: jax.Array
    s: jax.Array
    x0: PastParams


@per_tree
def mechanize(
    base_optimizer: TransformationLike,
    weight_decay: NonNegative = 1e-2,
    eps: Positive = 1e-8,
    s_init: Positive = 1e-6,
    num_betas: PositiveInt = 6,
) -> Rule:
    """Learn the scale of a base optimizer's updates, which is its learning rate.

        delta = (x - x0) / (S + eps)            S = sum of s, before this step
        h   = <g + weight_decay S ||g|| / (||x|| + eps) x, -delta>
        m' <- max(beta m, |h| + eps)            v <- beta^2 v + h^2
        r  <- beta r + clip(h, -m, m) s
        s  <- (s_init m' / n + max(r, 0)) / (sqrt(v) + eps)
        u   = x0 + S (delta + base_optimizer(g)) - x        (with the new s)

    r, m, v and s are one number for each of the n = num_betas values beta = 0.9, 0.99, 0.999, ...
    x0 is the params at the first update.

    Args:
        base_optimizer: the optimizer whose updates are scaled, gradtx's or Optax's. Give it a
            learning rate around 1, which may be a schedule. It cannot hold a line search.
        weight_decay: how strongly the scale is held back where parameters grow. It is in units of
            the gradient's norm, and changes the scale alone: the base optimizer may decay the
            parameters too.
        eps: a small number that keeps denominators from being 0.
        s_init: the first scale. It is far below any learning rate; a larger one saves the first
            steps, in which the scale has to grow.
        num_betas: how many decay rates the scale is learned with; their scales are added up.

    State: x0, 4 bytes a parameter, four arrays of num_betas numbers, a count and that of
    base_optimizer.

    Raises: ValueError for num_betas < 1.

    Example:
        >>> params = jnp.array([1.0])
        >>> tx = gradtx.mechanize(gradtx.sgd(1.0))
        >>> state = tx.init(params)
        >>> step = jax.jit(gradtx.step)
        >>> for _ in range(60):  # the gradient of x^2 / 2 is x
        ...     params, state = step(tx, params, state, params)
        >>> print(abs(params) < 1e-3, jnp.sum(state.s) > 0.01)
        [ True] True

    See also: `schedule_free`, `prodigy`, `dadapt_adamw`.

    References: Cutkosky, Defazio & Mehta, 2023, https://arxiv.org/abs/2306.00144
    """

    def init(params: Params, base_optimizer: Inner) -> MechanicState:
        zeros = np.zeros(num_betas, real_dtype_of(params))
        return MechanicState(
            base_optimizer_state=base_optimizer.init(),
            count=None,
            r=jnp.array(zeros),
            m=jnp.array(zeros),
            v=jnp.array(zeros),
            s=jnp.array(zeros) + s_init,
            x0=jax.tree.map(jnp.copy, params),
        )

    def update(
        updates: Updates, state: MechanicState, params: Params, step: Step, base_optimizer: Inner
    ) -> tuple[Updates, MechanicState]:
        inner = base_optimizer.without_search("mechanize: base_optimizer")
        u, inner_state = inner(updates, state.base_optimizer_state)
        # Between init and the first update the params may have been replaced by a checkpoint's.
        x0 = tree.where(step.count == 1, params, state.x0)
        total = jnp.sum(state.s)
        decay = weight_decay * total * tree.norm(updates) / (tree.norm(params) + eps)
        delta = jax.tree.map(lambda x, x0: (x - x0) / (total + eps), params, x0)
        h = -jnp.real(tree.vdot(tree.add_scale(updates, decay, params), delta))
        betas = jnp.asarray(1 - 0.1 ** np.arange(1, num_betas + 1), state.s.dtype)
        clipped = jnp.clip(h, -state.m, state.m)
        m = jnp.maximum(betas * state.m, jnp.abs(h) + eps)
        v = betas**2 * state.v + h**2
        r = betas * state.r + clipped * state.s
        s = (s_init / num_betas * m + jnp.maximum(r, 0)) / (sqrt(v) + eps)
        scale = jnp.sum(s)
        u = jax.tree.map(lambda x0, x, d, u: x0 - x + scale * (d + u), x0, params, delta, u)
        return u, state._replace(base_optimizer_state=inner_state, r=r, m=m, v=v, s=s, x0=x0)

    return Rule(init, update)
