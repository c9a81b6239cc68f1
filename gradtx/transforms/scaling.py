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
    """Multiply the updates by a number.

        u = step_size * g

    Args:
        step_size: the number. scale(-1.0) turns gradients into descent

    State: none; with a schedule the count.

    Example:
        >>> tx = gradtx.chain(gradtx.clip(1.0), gradtx.scale(-0.5))
        >>> grads = jnp.array([0.5, 4.0])
        >>> updates, state = tx.update(grads, tx.init(grads))
        >>> print(updates)
        [-0.25 -0.5 ]

    See also: `scale_by_learning_rate`, which flips the sign itself; `scale_by_schedule`.
    """
    return lambda grad: times(step_size, grad)


@per_leaf
def scale_by_schedule(step_size_fn: RealFactor) -> Callable[..., Array]:
    """Multiply the updates by the value of a schedule.

        u = step_size_fn(t) * g

    where t is the number of earlier updates: 0 on the first step. Other transformations take
    schedules too: this is `scale` with a name that says so.

    Args:
        step_size_fn: the schedule: one of gradtx's or Optax's, or a function `step -> number`. For
            descent its values are negative: `-schedule` is a schedule

    State: the count.

    Example:
        >>> grads = jnp.array([2.0])
        >>> tx = gradtx.scale_by_schedule(gradtx.linear_schedule(1.0, 0.0, 4))
        >>> state = tx.init(grads)
        >>> for _ in range(3):
        ...     updates, state = tx.update(grads, state)
        ...     print(updates)
        [2.]
        [1.5]
        [1.]

    See also: `scale_by_learning_rate`, `scale`.
    """
    return lambda grad: times(step_size_fn, grad)


@per_leaf
def scale_by_learning_rate(
    learning_rate: NonNegativeFactor | None = None, *, flip_sign: bool = True
) -> Callable[..., Array]:
    """Multiply the updates by minus the learning rate, which turns them downhill.

        u = -learning_rate * g                  flip_sign=True
        u =  learning_rate * g                  flip_sign=False
        u =  g                                  learning_rate=None

    It is the last link of most optimizers.

    Args:
        learning_rate: the length of a step: the factor on the direction; None leaves the updates as
            they are, sign and all
        flip_sign: whether to flip the sign; False for updates that point downhill already, or to
            ascend

    State: none; with a schedule the count.

    Example:
        >>> tx = gradtx.chain(gradtx.scale_by_sign(), gradtx.scale_by_learning_rate(0.5))
        >>> grads = jnp.array([3.0, -0.1])
        >>> updates, state = tx.update(grads, tx.init(grads))
        >>> print(updates)
        [-0.5  0.5]

    See also: `scale`, `scale_by_schedule`.
    """
    if learning_rate is None:
        return lambda grad: grad
    sign = -1 if flip_sign else 1
    return lambda grad: times(sign * learning_rate, grad)
