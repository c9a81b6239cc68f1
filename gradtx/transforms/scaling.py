"""Multiplying the updates by a scalar."""

from __future__ import annotations

from collections.abc import Callable

from jax import Array

from gradtx.core.decorators import per_leaf
from gradtx.core.hyperparameters import NonNegativeFactor, RealFactor
from gradtx.core.numerics import times

__all__ = ["scale", "scale_by_learning_rate", "scale_by_schedule"]


@per_leaf
def scale(step_size: RealFactor) -> Callable[..., Array]:
    """u = step_size * g"""
    return lambda grad: times(step_size, grad)


@per_leaf
def scale_by_schedule(step_size_fn: RealFactor) -> Callable[..., Array]:
    """u = step_size_fn(t) * g, where t is the number of earlier updates: 0 on the first step."""
    return lambda grad: times(step_size_fn, grad)


@per_leaf
def scale_by_learning_rate(
    learning_rate: NonNegativeFactor | None = None, *, flip_sign: bool = True
) -> Callable[..., Array]:
    """u = -learning_rate * g, downhill; with flip_sign=False u = learning_rate * g.

    With learning_rate=None, u = g.
    """
    if learning_rate is None:
        return lambda grad: grad
    sign = -1 if flip_sign else 1
    return lambda grad: times(sign * learning_rate, grad)
