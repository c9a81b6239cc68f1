"""L-BFGS: the gradient times an inverse Hessian estimated from the last few steps."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from gradtx import tree
from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import cast, compute_dtype, real_dtype
from gradtx.core.hyperparameters import PositiveInt
from gradtx.core.meshes.placing import seen_alike
from gradtx.core.norms import norm_of
from gradtx.core.rule import Rule
from gradtx.core.state import Count, LikeParams, Params, PastParams, Updates
from gradtx.core.step import Step

__all__ = ["ScaleByLBFGSState", "scale_by_lbfgs"]


class ScaleByLBFGSState(NamedTuple):
    """The previous params and gradients, and the last m differences of each.

    The leaves of diff_params_memory and diff_updates_memory have shape (m, *parameter shape) and
    are circular buffers; weights_memory, of shape (m,), holds rho = 1 / <dw, du> of each pair, 0
    for unused slots.
    """

    count: Count
    params: PastParams
    updates: LikeParams
    diff_params_memory: LikeParams
    diff_updates_memory: LikeParams
    weights_memory: Array


@per_tree
def scale_by_lbfgs(memory_size: PositiveInt = 10, scale_init_precond: bool = True) -> Rule:
    """Multiply the gradient by an estimate of the inverse Hessian.

        dw = w - w_before,  du = g - g_before,  rho = 1 / <dw, du>     (of the last m steps)
        q = g;        for i from the newest to the oldest:  a_i = rho_i <dw_i, q>,  q -= a_i du_i
        u = gamma q;  for i from the oldest to the newest:  u += (a_i - rho_i <du_i, u>) dw_i

    gamma = <dw, du> / <du, du> of the newest pair, and min(1, 1 / ||g||) on the first step; with
    scale_init_precond=False it is always 1. m is memory_size. The step is -u times a learning rate
    from a line search. It is meant for smooth objectives without noise.

    Args:
        memory_size: how many differences m are kept. More give a better estimate, up to a few
            dozen, and take more memory and time.
        scale_init_precond: begin with gamma, which gives u the length of a good step, rather than
            with 1.

    State: 2 m + 2 arrays like the parameter: 88 bytes a parameter at m = 10.

    Raises: ValueError for memory_size < 1.

    Example:
        >>> tx = gradtx.scale_by_lbfgs()
        >>> w, update = jnp.array([1.0, 1.0]), jax.jit(tx.update)
        >>> state = tx.init(w)
        >>> for _ in range(4):
        ...     u, state = update(jnp.array([1.0, 100.0]) * w, state, w)
        ...     w -= u
        >>> print(jnp.abs(w) < 0.01)  # the minimum of (w[0]^2 + 100 w[1]^2) / 2
        [ True  True]

    See also: `lbfgs`, `scale_by_zoom_linesearch`, `scale_by_backtracking_linesearch`.

    References: Nocedal & Wright, Numerical Optimization, 2nd edition, algorithm 7.4; Liu & Nocedal,
    1989, https://doi.org/10.1007/BF01589116
    """

    def init(params: Params) -> ScaleByLBFGSState:
        dtypes = [x.dtype for x in jax.tree.leaves(params)]
        return ScaleByLBFGSState(
            count=None,
            params=tree.zeros_like(params),
            updates=tree.zeros_like(params),
            diff_params_memory=_memory(params, memory_size),
            diff_updates_memory=_memory(params, memory_size),
            weights_memory=jnp.zeros(memory_size, real_dtype(compute_dtype(*dtypes))),
        )

    def update(
        updates: Updates, state: ScaleByLBFGSState, params: Params, step: Step
    ) -> tuple[Updates, ScaleByLBFGSState]:
        first = step.count == 1
        du = tree.sub(updates, state.updates)
        dw = tree.sub(params, state.params)
        product = jnp.where(first, 0, _inner(dw, du))
        # A product too small or too large to have a reciprocal is not from a usable step.
        usable = (jnp.abs(product) > np.finfo(product.dtype).tiny) & jnp.isfinite(product)
        weight = jnp.where(usable, 1 / jnp.where(usable, product, 1), 0)
        newest = (step.count - 2) % memory_size
        dws, dus, weights = jax.tree.map(
            lambda memory, x: jnp.asarray(memory).at[newest].set(cast(x, memory.dtype)),
            (state.diff_params_memory, state.diff_updates_memory, state.weights_memory),
            (_zero_if(first, dw), _zero_if(first, du), weight),
        )
        gamma: float | Array = 1.0
        if scale_init_precond:
            size = norm_of(jax.tree.leaves(du))  # on the first step, that of g: g_before is 0
            unknown = first | ~jnp.isfinite(product)
            ratio = size.square_below(jnp.where(unknown, 0, product), 1)
            gamma = jnp.where(unknown, 1 / size.at_least(1).value, ratio)
        oldest = newest + 1 + jnp.arange(memory_size, dtype=np.int32)
        u = _two_loops(updates, dws, dus, weights, gamma, oldest % memory_size)
        return u, state._replace(
            params=params,
            updates=updates,
            diff_params_memory=dws,
            diff_updates_memory=dus,
            weights_memory=weights,
        )

    return Rule(init, update)


def _memory(params: Params, size: int) -> Params:
    """Zeros of shape (size, *parameter shape), for the last `size` differences."""

    def zeros(x: Array) -> Array:
        return jnp.broadcast_to(seen_alike(jnp.zeros_like(x), x), (size, *x.shape))

    return jax.tree.map(zeros, params)


def _zero_if(condition: Array, x: Updates) -> Updates:
    return jax.tree.map(lambda leaf: jnp.where(condition, 0, leaf), x)


def _inner(x: Updates, y: Updates) -> Array:
    """Re <x, y>"""
    return tree.vdot(x, y).real


def _add_scaled(x: Updates, scalar: Array, y: Updates) -> Updates:
    """x + scalar * y"""
    return jax.tree.map(lambda a, b: a + cast(scalar, a.real.dtype) * b, x, y)


def _two_loops(
    gradient: Updates,
    dws: Params,
    dus: Updates,
    weights: Array,
    gamma: float | Array,
    indices: Array,
) -> Updates:
    """The product of the inverse Hessian estimate and the gradient.

    indices: the slots of the memory in order of age, the oldest first; shape (m,).
    """

    def at(memory: Updates, i: Array) -> Updates:
        return jax.tree.map(lambda x: x[i], memory)

    def downwards(q: Updates, i: Array) -> tuple[Updates, Array]:
        a = weights[i] * _inner(at(dws, i), q)
        return _add_scaled(q, -a, at(dus, i)), a

    def upwards(u: Updates, i_a: tuple[Array, Array]) -> tuple[Updates, None]:
        i, a = i_a
        b = weights[i] * _inner(at(dus, i), u)
        return _add_scaled(u, a - b, at(dws, i)), None

    q, a = lax.scan(downwards, gradient, indices, reverse=True)
    q = jax.tree.map(lambda x: cast(gamma, x.real.dtype) * x, q)
    return lax.scan(upwards, q, (indices, a))[0]
