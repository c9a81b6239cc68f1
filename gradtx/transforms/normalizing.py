"""Normalising updates, and keeping NaNs and other unwanted values out of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core.decorators import per_leaf
from gradtx.core.hyperparameters import AtLeastOne, NonNegative, Real
from gradtx.core.norms import Factor
from gradtx.core.numerics import zeros_like, zeros_like_result
from gradtx.core.rule import Rule
from gradtx.core.state import Count, Updates
from gradtx.core.step import Step
from gradtx.tree.arithmetic import length

__all__ = [
    "ApplyEvery",
    "ZeroNansState",
    "apply_every",
    "centralize",
    "keep_params_nonnegative",
    "normalize",
    "normalize_by_update_norm",
    "zero_nans",
]


class ZeroNansState(NamedTuple):
    """Whether the last update of each array had a NaN: one boolean scalar per array."""

    found_nan: Updates


class ApplyEvery(NamedTuple):
    """The sum of the updates in this cycle, shaped like the parameter."""

    count: Count
    grad_acc: Updates


@per_leaf
def normalize() -> Rule:
    """Divide the updates by the norm of the whole tree.

        u = g / ||g||

    The updates then have norm 1, whatever the gradients' size; zero updates stay zero.

    State: none.

    Example:
        >>> grads = {"a": jnp.array([30.0, 0.0]), "b": jnp.array([-40.0])}
        >>> tx = gradtx.normalize()
        >>> updates, state = tx.update(grads, tx.init(grads))
        >>> print(np.asarray(updates["a"]).round(4), np.asarray(updates["b"]).round(4))
        [0.6 0. ] [-0.8]

    See also: `clip_by_global_norm`, which shortens long updates only; `normalize_by_update_norm`,
    which has an eps; `scale_by_trust_ratio`, which works on each array.
    """

    def precompute(updates: Updates) -> Factor:
        return length(updates).below(1)

    return Rule(None, lambda grad, precomputed: precomputed.times(grad), precompute)


@per_leaf
def normalize_by_update_norm(scale_factor: Real = 1.0, eps: NonNegative = 1e-6) -> Rule:
    """Divide the updates by the norm of the whole tree, with an eps, and multiply them by a factor.

        u = scale_factor * g / (||g|| + eps)

    Args:
        scale_factor: the norm of the result, apart from eps
        eps: a small number added to the norm. Updates much shorter than it are not lengthened to
            scale_factor, and zero updates stay zero

    State: none.

    Example:
        >>> grads = {"a": jnp.array([30.0, 0.0]), "b": jnp.array([-40.0])}
        >>> tx = gradtx.normalize_by_update_norm(scale_factor=2.0)
        >>> updates, state = tx.update(grads, tx.init(grads))
        >>> print(np.asarray(updates["a"]).round(4), np.asarray(updates["b"]).round(4))
        [1.2 0. ] [-1.6]

    See also: `normalize`, `clip_by_global_norm`.
    """

    def precompute(updates: Updates) -> Factor:
        return length(updates).plus(eps).below(scale_factor)

    return Rule(None, lambda grad, precomputed: precomputed.times(grad), precompute)


@per_leaf
def centralize() -> Callable[..., Array]:
    """Subtract the mean over all axes but the first from every array.

        u = g - mean(g)

    Vectors and scalars stay unchanged. The first axis is that of a layer's outputs in the paper and
    in PyTorch; Flax kernels have it last.

    State: none.

    Example:
        >>> grads = jnp.array([[1.0, 3.0], [10.0, 20.0]])
        >>> tx = gradtx.centralize()
        >>> updates, state = tx.update(grads, tx.init(grads))
        >>> print(updates)
        [[-1.  1.]
         [-5.  5.]]

    References: Yong et al., 2020, https://arxiv.org/abs/2004.01461
    """

    def update(grad: Array) -> Array:
        if grad.ndim < 2 or not grad.size:
            return grad
        return grad - jnp.mean(grad, axis=tuple(range(1, grad.ndim)), keepdims=True)

    return update


@per_leaf
def zero_nans() -> Rule:
    """Replace NaNs in the updates by 0.

        u = g,          0 where g is NaN

    Infinite values stay. As the first link of a chain it keeps single NaNs out of the running means
    that follow; plain SGD leaves a parameter alone where its update is 0, while momentum goes on.

    State: found_nan, for each array whether the last update had a NaN: one boolean.

    Example:
        >>> grads = {"w": jnp.array([1.0, jnp.nan]), "b": jnp.array([2.0])}
        >>> tx = gradtx.zero_nans()
        >>> updates, state = tx.update(grads, tx.init(grads))
        >>> print(updates["w"], updates["b"])
        [1. 0.] [2.]
        >>> print(state.found_nan["w"], state.found_nan["b"])
        True False

    See also: `apply_if_finite`, which leaves the whole step out.
    """

    def init(param: Array) -> ZeroNansState:
        return ZeroNansState(zeros_like_result(lambda x: jnp.any(jnp.isnan(x)), param))

    def update(grad: Array, state: ZeroNansState) -> tuple[Array, ZeroNansState]:
        bad = jnp.isnan(grad)
        # Reads the old flag, without effect: a buffer that is never read cannot be donated.
        found = jnp.any(bad) | (state.found_nan & False)
        return jnp.where(bad, 0, grad), ZeroNansState(found)

    return Rule(init, update)


@per_leaf
def keep_params_nonnegative() -> Callable[..., Array]:
    """Shorten the updates where they would make a parameter negative.

        u = max(g, -p),             so that p + u >= 0

    Use it as the last link of a chain, where g is what will be added to the params. It needs params
    in update; one that is negative to begin with is raised to at least 0.

    State: none.

    Raises: ValueError for complex parameters, which have no sign.

    Example:
        >>> params, grads = jnp.array([0.5, 2.0]), jnp.array([1.0, 1.0])
        >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.keep_params_nonnegative())
        >>> updates, state = tx.update(grads, tx.init(params), params)
        >>> print(gradtx.apply_updates(params, updates))
        [0. 1.]

    See also: `masked`, to do this to some of the parameters.
    """

    def update(grad: Array, param: Array) -> Array:
        if jnp.iscomplexobj(grad):
            raise TypeError("complex numbers are not ordered: there is no complex p >= 0")
        return jnp.maximum(grad, -param)

    return update


@per_leaf
def apply_every(k: AtLeastOne = 1) -> Rule:
    """Sum the updates over k steps and release the sum at the last of them.

        acc <- acc + g                              (acc starts at 0 in each cycle of k steps)
        u    = acc on every k-th step, otherwise u = 0

    The links before it in a chain still run on every step; `accumulate` runs an optimizer only on
    every k-th.

    Args:
        k: how many steps a cycle has, rounded to a whole number. 1 changes nothing

    State: grad_acc, the sum, 4 bytes a parameter, and the count.

    Example:
        >>> grads = jnp.array([1.0, -2.0])
        >>> tx = gradtx.apply_every(2)
        >>> state = tx.init(grads)
        >>> for _ in range(4):
        ...     updates, state = tx.update(grads, state)
        ...     print(updates)
        [0. 0.]
        [ 2. -4.]
        [0. 0.]
        [ 2. -4.]

    See also: `accumulate`, `multi_steps`.
    """

    def init(param: Array) -> ApplyEvery:
        return ApplyEvery(count=None, grad_acc=zeros_like(param))

    def update(grad: Array, state: ApplyEvery, step: Step) -> tuple[Array, ApplyEvery]:
        length = jnp.maximum(jnp.round(jnp.asarray(k)).astype(np.int32), 1)
        position = (step.count - 1) % length
        # Selected, not multiplied by 0 or 1: a NaN must not survive into the next cycle.
        acc = grad + jnp.where(position == 0, 0, state.grad_acc)
        return jnp.where(position == length - 1, acc, 0), state._replace(grad_acc=acc)

    return Rule(init, update)
