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
    """u = g / ||g||, with the norm of the whole tree; zero updates stay zero."""

    def precompute(updates: Updates) -> Factor:
        return length(updates).below(1)

    return Rule(None, lambda grad, precomputed: precomputed.times(grad), precompute)


@per_leaf
def normalize_by_update_norm(scale_factor: Real = 1.0, eps: NonNegative = 1e-6) -> Rule:
    """u = scale_factor * g / (||g|| + eps), with the norm of the whole tree."""

    def precompute(updates: Updates) -> Factor:
        return length(updates).plus(eps).below(scale_factor)

    return Rule(None, lambda grad, precomputed: precomputed.times(grad), precompute)


@per_leaf
def centralize() -> Callable[..., Array]:
    """u = g - mean(g), where the mean is over all axes but the first; vectors stay unchanged.

    Yong et al., 2020, https://arxiv.org/abs/2004.01461
    """

    def update(grad: Array) -> Array:
        if grad.ndim < 2 or not grad.size:
            return grad
        return grad - jnp.mean(grad, axis=tuple(range(1, grad.ndim)), keepdims=True)

    return update


@per_leaf
def zero_nans() -> Rule:
    """u = g, but 0 where g is NaN; `state.found_nan` says which arrays had one."""

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
    """u = max(g, -p), so that p + u >= 0: use it as the last link of a chain.

    Raises: TypeError for complex parameters, which have no sign.
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
    every k-th. k is rounded to a whole number.
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
