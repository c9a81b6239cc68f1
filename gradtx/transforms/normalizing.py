"""Normalising updates, and keeping what is not wanted out of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from gradtx.core.decorators import per_leaf
from gradtx.core.kinds import AtLeastOne, NonNegative, Real
from gradtx.core.numerics import zeros_like, zeros_like_result
from gradtx.core.rule import Rule
from gradtx.core.state import Count, Updates
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
    """For each array, whether its last update had a NaN."""

    found_nan: Updates


class ApplyEvery(NamedTuple):
    """The sum of the updates of this cycle."""

    count: Count
    grad_acc: Updates


@per_leaf
def normalize() -> Any:
    """u = g / ||g||, with the norm of the whole tree; zero updates stay zero."""

    def precompute(updates: Any) -> Any:
        return length(updates).below(1)

    return Rule(None, lambda grad, precomputed: precomputed.times(grad), precompute)


@per_leaf
def normalize_by_update_norm(scale_factor: Real = 1.0, eps: NonNegative = 1e-6) -> Any:
    """u = scale_factor * g / (||g|| + eps), with the norm of the whole tree."""

    def precompute(updates: Any) -> Any:
        return length(updates).plus(eps).below(scale_factor)

    return Rule(None, lambda grad, precomputed: precomputed.times(grad), precompute)


@per_leaf
def centralize() -> Any:
    """u = g - mean(g), with a mean for each index of the first axis; vectors stay as they are.

    Yong et al., 2020, https://arxiv.org/abs/2004.01461
    """

    def update(grad: Any) -> Any:
        if grad.ndim < 2 or not grad.size:
            return grad
        return grad - jnp.mean(grad, axis=tuple(range(1, grad.ndim)), keepdims=True)

    return update


@per_leaf
def zero_nans() -> Any:
    """u = g, but 0 where g is NaN; `state.found_nan` tells which arrays had one."""

    def init(param: Any) -> ZeroNansState:
        return ZeroNansState(zeros_like_result(lambda x: jnp.any(jnp.isnan(x)), param))

    def update(grad: Any, state: ZeroNansState) -> Any:
        bad = jnp.isnan(grad)
        # The old flag changes nothing, but a buffer that is not read cannot be donated.
        found = jnp.any(bad) | (state.found_nan & False)
        return jnp.where(bad, 0, grad), ZeroNansState(found)

    return Rule(init, update)


@per_leaf
def keep_params_nonnegative() -> Any:
    """u = max(g, -p), so that p + u >= 0: the last link of a chain.

    Raises: TypeError for complex parameters, which have no sign.
    """

    def update(grad: Any, param: Any) -> Any:
        if jnp.iscomplexobj(grad):
            raise TypeError("complex numbers are not ordered: there is no complex p >= 0")
        return jnp.maximum(grad, -param)

    return update


@per_leaf
def apply_every(k: AtLeastOne = 1) -> Any:
    """Sum the updates of k steps and let the sum out at the last of them.

        acc <- acc + g                              (acc starts at 0 in each cycle of k steps)
        u    = acc on every k-th step, otherwise u = 0

    What stands before it in a chain runs on every step; see `accumulate` for an optimizer that
    does not. k is rounded to a whole number.
    """

    def init(param: Any, step: Any) -> ApplyEvery:
        return ApplyEvery(step.count, zeros_like(param))

    def update(grad: Any, state: ApplyEvery, step: Any) -> Any:
        length = jnp.maximum(jnp.round(jnp.asarray(k)).astype(np.int32), 1)
        position = (step.count - 1) % length
        # Chosen and not multiplied by 0 or 1: a NaN of the last cycle is gone in the next.
        acc = grad + jnp.where(position == 0, 0, state.grad_acc)
        return jnp.where(position == length - 1, acc, 0), ApplyEvery(step.count, acc)

    return Rule(init, update)
