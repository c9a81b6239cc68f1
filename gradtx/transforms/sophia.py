"""Sophia: momentum divided by a running estimate of the Hessian's diagonal, then clipped."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from gradtx import tree
from gradtx.core.decorators import per_tree
from gradtx.core.holding import now_and_then
from gradtx.core.hyperparameters import (
    Decay,
    DType,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    RandomKey,
)
from gradtx.core.inner import Inner
from gradtx.core.leaves import Leaves, at, describe, map_leaves
from gradtx.core.numerics import running_mean, zeros_like
from gradtx.core.rule import Rule
from gradtx.core.state import Count, LikeParams, OptState, Params, Updates
from gradtx.core.step import Step
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.noise import fresh_key

__all__ = ["HutchinsonState", "SophiaState", "hutchinson_estimator_diag_hessian", "scale_by_sophia"]


class HutchinsonState(NamedTuple):
    """The data of the key from which the next random signs are drawn."""

    key: Array


class SophiaState(NamedTuple):
    """The running means of the gradient (mu) and of the Hessian's diagonal (nu), trees like the
    params, and the state of hessian_diagonal_fn."""

    count: Count
    mu: LikeParams
    nu: LikeParams
    hessian_fn_state: OptState


@per_tree
def hutchinson_estimator_diag_hessian(random_seed: RandomKey | None = None) -> Rule:
    """Replace the updates by an estimate of the diagonal of the Hessian H of `obj_fn(params)`.

        u = r * (H r)               (r = 1 or -1 at random in each element)

    Its expectation over r is the diagonal; if H is diagonal, it is exact. One estimate costs about
    as much as two gradients. update needs params and obj_fn: `tx.update(grads, state, params,
    obj_fn=loss)`, a function from params (in float32 or wider) to the loss.

    Args:
        random_seed: the seed of the random numbers: a whole number or a key of `jax.random`; None
            means 0

    State: the key, 8 bytes for the whole tree.

    Raises: TypeError for complex leaves.

    Example:
        >>> params, loss = jnp.array([1.0, -1.0]), lambda x: x[0] ** 2 + 50 * x[1] ** 2
        >>> tx = gradtx.hutchinson_estimator_diag_hessian()
        >>> diagonal, state = tx.update(params, tx.init(params), params, obj_fn=loss)
        >>> print(diagonal)
        [  2. 100.]

    See also: `scale_by_sophia`, which divides by it.

    References: Hutchinson, 1990; Liu et al., 2023, https://arxiv.org/abs/2305.14342
    """

    def init() -> HutchinsonState:
        return HutchinsonState(fresh_key(0 if random_seed is None else random_seed))

    def update(
        state: HutchinsonState, params: Params, *, obj_fn: Callable[[Params], Array]
    ) -> tuple[Array, HutchinsonState]:
        _refuse_complex("hutchinson_estimator_diag_hessian", params)
        key, own = jax.random.split(state.key)
        leaves, treedef = jax.tree.flatten(params)
        keys = jax.random.split(own, max(len(leaves), 1))
        signs = jax.tree.unflatten(
            treedef, [_signs(k, x) for k, x in zip(keys, leaves, strict=False)]
        )
        product = jax.jvp(jax.grad(obj_fn), (params,), (signs,))[1] if leaves else signs
        return tree.mul(signs, product), HutchinsonState(key)

    return Rule(init, update)


def _signs(key: Array, like: Array) -> Array:
    """1 or -1 at random, shaped like this array."""
    # Not `jax.random.rademacher`, which under x64 draws in float64 even for a float32 array.
    up = jax.random.bernoulli(key, np.asarray(0.5, like.dtype), like.shape)
    return jnp.where(up, jnp.ones_like(like), -jnp.ones_like(like))


_HUTCHINSON = hutchinson_estimator_diag_hessian()


@per_tree
def scale_by_sophia(
    b1: Decay = 0.965,
    b2: Decay = 0.99,
    eps: Positive = 1e-8,
    gamma: NonNegative = 0.01,
    clip_threshold: NonNegative | None = 1.0,
    update_interval: PositiveInt = 10,
    hessian_diagonal_fn: GradientTransformation = _HUTCHINSON,
    mu_dtype: DType | None = None,
    verbose: bool = False,
    print_win_rate_every_n_steps: NonNegativeInt = 0,
    *,
    nu_dtype: DType | None = None,
) -> Rule:
    """Divide the running mean of the gradient by that of the Hessian's diagonal h, then clip.

        mu <- b1 mu + (1 - b1) g
        u   = clip(mu / (1 - b1^t) / max(gamma nu, eps), clip_threshold)
        nu <- b2 nu + (1 - b2) h                (on the first of every update_interval steps)

    h is the output of hessian_diagonal_fn for the gradients, params and extra arguments: by default
    Hutchinson's estimate, for which update needs obj_fn: `tx.update(grads, state, params,
    obj_fn=loss)`, with a function from params to the loss.

    Args:
        b2: the decay of the running mean of h. It counts estimates, not steps
        eps: the smallest denominator; where gamma nu is below it or negative, the update is usually
            clipped
        gamma: the factor on nu. Larger makes steps shorter and clips fewer elements
        clip_threshold: the largest absolute value of an element of the update; None does not clip
        update_interval: how many steps pass from one estimate of h to the next. Larger is cheaper,
            with an older nu
        hessian_diagonal_fn: the transformation that estimates h, in place of Hutchinson's, such as
            one that uses squared gradients
        nu_dtype: the dtype in which the running mean of h is kept; None keeps float32 (float64 for
            float64 parameters). `store` narrows any optimizer's state
        verbose: print the fraction of elements that were not clipped, a guide to gamma: ideally it
            is between 0.1 and 0.5
        print_win_rate_every_n_steps: how many steps pass from one print to the next, with verbose;
            0 prints nothing

    State: mu and nu, 8 bytes a parameter, the count, and the state of hessian_diagonal_fn (a key).

    Raises: ValueError for update_interval < 1, TypeError for complex leaves.

    Example:
        >>> params, loss = jnp.array([0.375, -0.375]), lambda x: x[0] ** 2 + 50 * x[1] ** 2
        >>> grads = jax.grad(loss)(params)
        >>> tx = gradtx.scale_by_sophia(b2=0.5, gamma=1.0, update_interval=1)
        >>> state = tx.init(params)
        >>> for _ in range(3):
        ...     updates, state = tx.update(grads, state, params, obj_fn=loss)
        >>> print(np.asarray(updates).round(3), state.nu)  # before this step nu was [1.5, 75]
        [ 0.5 -0.5] [ 1.75 87.5 ]

    See also: `sophia`, the optimizer; `hutchinson_estimator_diag_hessian`.

    References: Liu et al., 2023, https://arxiv.org/abs/2305.14342
    """

    def init(params: Params, hessian_diagonal_fn: Inner) -> SophiaState:
        mu = map_leaves("scale_by_sophia", lambda p: zeros_like(p, mu_dtype), params)
        nu = map_leaves("scale_by_sophia", lambda p: zeros_like(p, nu_dtype), params)
        return SophiaState(count=None, mu=mu, nu=nu, hessian_fn_state=hessian_diagonal_fn.init())

    def update(
        updates: Updates, state: SophiaState, params: Params, step: Step, hessian_diagonal_fn: Inner
    ) -> tuple[Updates, SophiaState]:
        _refuse_complex("scale_by_sophia", params)
        mu = jax.tree.map(lambda m, g: running_mean(m, g, b1), state.mu, updates)
        u = jax.tree.map(
            lambda m, n: step.debias(m, b1) / jnp.maximum(gamma * n, eps), mu, state.nu
        )
        if clip_threshold is not None:
            if verbose and print_win_rate_every_n_steps:
                _print_win_rate(u, clip_threshold, step.count % print_win_rate_every_n_steps == 0)
            u = jax.tree.map(lambda x: jnp.clip(x, -clip_threshold, clip_threshold), u)

        def look(held: tuple[Updates, OptState]) -> tuple[None, tuple[Updates, OptState]]:
            nu, inner = held
            h, inner = hessian_diagonal_fn(updates, inner)
            return None, (jax.tree.map(lambda n, h: running_mean(n, h, b2), nu, h), inner)

        due = (step.count - 1) % update_interval == 0
        held = (state.nu, state.hessian_fn_state)
        _, (nu, inner) = now_and_then(due, look, lambda held: None, held)
        return u, state._replace(mu=mu, nu=nu, hessian_fn_state=inner)

    return Rule(init, update)


def _print_win_rate(u: Updates, threshold: float | Array, due: Array) -> None:
    inside = [jnp.sum(jnp.abs(x) < threshold) for x in jax.tree.leaves(u)]
    rate = sum(inside, start=jnp.zeros((), np.int32)) / max(tree.size(u), 1)
    lax.cond(due, lambda: jax.debug.print("Sophia optimizer win rate: {}", rate), lambda: None)


def _refuse_complex(name: str, params: Params) -> None:
    leaves = Leaves.of(params)
    for i, x in enumerate(leaves.values):
        if x is not None and jnp.iscomplexobj(x):
            raise TypeError(
                f"{name}: {at(leaves.paths[i])}: {describe(x)} is complex, and the diagonal of a "
                "Hessian has no meaning for it"
            )
