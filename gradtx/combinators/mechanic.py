"""Mechanic: learning the scale of another optimizer's updates."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx import tree
from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import real_dtype_of
from gradtx.core.inner import Inner
from gradtx.core.kinds import NonNegative, Positive, PositiveInt
from gradtx.core.numerics import sqrt
from gradtx.core.rule import Rule
from gradtx.core.state import Count, OptState, PastParams
from gradtx.core.transformation import GradientTransformation

__all__ = ["MechanicState", "mechanize"]


class MechanicState(NamedTuple):
    """The base optimizer's state; for each beta the reward r, the bound m, the variance v and the
    scale s; and where the run began."""

    base_optimizer_state: OptState
    count: Count
    r: Any
    m: Any
    v: Any
    s: Any
    x0: PastParams


@per_tree
def mechanize(
    base_optimizer: GradientTransformation,
    weight_decay: NonNegative = 1e-2,
    eps: Positive = 1e-8,
    s_init: Positive = 1e-6,
    num_betas: PositiveInt = 6,
) -> Any:
    """Learn the scale of a base optimizer's updates, its learning rate.

        delta = (x - x0) / (S + eps)            S = sum of s; with the x and s before this step
        h   = <g + weight_decay S ||g|| / (||x|| + eps) x, -delta>
        m' <- max(beta m, |h| + eps)            v <- beta^2 v + h^2
        r  <- beta r + clip(h, -m, m) s
        s  <- (s_init m' / n + max(r, 0)) / (sqrt(v) + eps)
        u   = x0 + S (delta + base_optimizer(g)) - x        (with the new s)

    r, m, v and s are one number for each of the n = num_betas values beta = 0.9, 0.99, 0.999, ...
    x0 are the params of the first update. The base optimizer's learning rate is a schedule around
    1, not a line search. Raises: ValueError for num_betas < 1. Cutkosky, Defazio & Mehta, 2023,
    https://arxiv.org/abs/2306.00144
    """

    def init(params: Any, step: Any, base_optimizer: Inner) -> MechanicState:
        zeros = np.zeros(num_betas, real_dtype_of(params))
        return MechanicState(
            base_optimizer_state=base_optimizer.init(),
            count=step.count,
            r=jnp.array(zeros),
            m=jnp.array(zeros),
            v=jnp.array(zeros),
            s=jnp.array(zeros) + s_init,
            x0=jax.tree.map(jnp.copy, params),
        )

    def update(
        updates: Any, state: MechanicState, params: Any, step: Any, base_optimizer: Inner
    ) -> Any:
        inner = base_optimizer.without_search("mechanize: base_optimizer")
        u, inner_state = inner(updates, state.base_optimizer_state)
        # The params may have been replaced, by a checkpoint's, between init and the first update.
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
        return u, MechanicState(inner_state, step.count, r, m, v, s, x0)

    return Rule(init, update)
