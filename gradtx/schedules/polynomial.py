"""Constant, polynomial and exponential schedules. t is the step, 0 at the first update."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from gradtx.core.definition import schedule
from gradtx.core.hyperparameters import NonNegative, Real, Steps
from gradtx.schedules.transition import Left, polynomial, straight, transition

__all__ = [
    "constant_schedule",
    "exponential_decay",
    "inverse_time_decay_schedule",
    "linear_schedule",
    "polynomial_schedule",
]


@schedule
def constant_schedule(value: Real) -> Any:
    """Return the same value at every step.

    A constant hyperparameter needs no schedule. This is for places that require one: a piece of
    `join_schedules`, or the beginning of a sum or product of schedules.

    Args:
        value: the value at every step

    Example:
        >>> warmup = gradtx.linear_schedule(0.0, 0.5, 10)
        >>> schedule = gradtx.join_schedules([warmup, gradtx.constant_schedule(0.5)], [10])
        >>> print(schedule(jnp.array([0, 5, 10, 1000])).round(4))
        [0.   0.25 0.5  0.5 ]

    See also: `warmup_constant_schedule`, `piecewise_constant_schedule`.
    """
    return lambda t: value


@schedule
def polynomial_schedule(
    init_value: Real,
    end_value: Real,
    power: NonNegative,
    transition_steps: Steps,
    transition_begin: Steps = 0,
) -> Any:
    """Go from init_value to end_value as a power of the steps that are left.

        end_value + (init_value - end_value) * (1 - s)^power
        s = clip((t - transition_begin) / transition_steps, 0, 1)

    t is the step, 0 at the first update.

    Args:
        power: 1 is a straight line; above 1 the value changes fast at first and slowly at the end,
            below 1 the reverse. With 0 it jumps to end_value at the end
        transition_steps: how many steps the change takes; with 0 the value stays at init_value

    Example:
        >>> schedule = gradtx.polynomial_schedule(1.0, 0.0, 2, 10, transition_begin=5)
        >>> print(schedule(jnp.array([0, 5, 10, 15, 20])).round(4))
        [1.   1.   0.25 0.   0.  ]

    See also: `linear_schedule`, `cosine_decay_schedule`.
    """
    return _polynomial(init_value, end_value, transition_steps, transition_begin, polynomial(power))


def _polynomial(start: Any, end: Any, steps: Any, begin: Any, left: Left) -> Any:
    def value(t: Any) -> Any:
        return jnp.where(
            jnp.asarray(steps) == 0, start, transition(t - begin, start, end, steps, left)
        )

    return value


@schedule
def linear_schedule(
    init_value: Real, end_value: Real, transition_steps: Steps, transition_begin: Steps = 0
) -> Any:
    """Go from init_value to end_value in a straight line.

        init_value + (end_value - init_value) * s
        s = clip((t - transition_begin) / transition_steps, 0, 1)

    t is the step, 0 at the first update. The schedule serves to warm up as well as to decay.

    Args:
        transition_steps: how many steps the change takes; with 0 the value stays at init_value

    Example:
        >>> schedule = gradtx.linear_schedule(1.0, 0.5, 8)
        >>> print(schedule(jnp.array([0, 4, 8, 100])))
        [1.   0.75 0.5  0.5 ]
        >>> tx = gradtx.sgd(schedule)

    See also: `polynomial_schedule`, `warmup_constant_schedule`, `wsd_schedule`.
    """
    return _polynomial(init_value, end_value, transition_steps, transition_begin, straight)


def whole_periods(t: Any, period: Any) -> Any:
    """floor(t / period), exact for whole numbers.

    The quotient itself may be rounded to just below a whole number: when compiled, a division by a
    constant is a multiplication by its reciprocal.
    """
    return jnp.round((t - jnp.mod(t, period)) / period)


@schedule
def exponential_decay(
    init_value: Real,
    transition_steps: Steps,
    decay_rate: NonNegative,
    transition_begin: Steps = 0,
    staircase: bool = False,
    end_value: Real | None = None,
) -> Any:
    """Multiply the value by decay_rate every transition_steps steps.

        init_value * decay_rate^s
        s = max(t - transition_begin, 0) / transition_steps

    t is the step, 0 at the first update. With transition_steps = 0 or decay_rate = 0 the value
    stays at init_value. With staircase it is PyTorch's StepLR, without it and with transition_steps
    = 1 its ExponentialLR.

    Args:
        transition_steps: the number of steps in which the value is multiplied by decay_rate once
        decay_rate: the factor on the value in each transition_steps: below 1 it falls, above 1 it
            grows
        staircase: round s down, so that the value falls only every transition_steps steps
        end_value: where the decay (or the growth) stops; None sets no bound

    Example:
        >>> steps = jnp.array([0, 9, 10, 20, 30])
        >>> print(gradtx.exponential_decay(1.0, 10, 0.5)(steps).round(3))
        [1.    0.536 0.5   0.25  0.125]
        >>> print(gradtx.exponential_decay(1.0, 10, 0.5, staircase=True, end_value=0.25)(steps))
        [1.   1.   0.5  0.25 0.25]

    See also: `warmup_exponential_decay_schedule`, `piecewise_constant_schedule`.
    """

    def value(t: Any) -> Any:
        elapsed = t - transition_begin
        steps = jnp.maximum(transition_steps, 1)
        exponent = whole_periods(elapsed, steps) if staircase else elapsed / steps
        still = (elapsed <= 0) | (jnp.asarray(transition_steps) == 0)
        still = still | (jnp.asarray(decay_rate) == 0)
        decayed = init_value * jnp.power(jnp.where(still, 1, decay_rate), exponent)
        decayed = jnp.where(still, init_value, decayed)
        if end_value is None:
            return decayed
        bounded = jnp.where(
            jnp.asarray(decay_rate) < 1,
            jnp.maximum(decayed, end_value),
            jnp.minimum(decayed, end_value),
        )
        unbounded = (jnp.asarray(transition_steps) == 0) | (jnp.asarray(decay_rate) == 0)
        return jnp.where(unbounded, init_value, bounded)

    return value


@schedule
def inverse_time_decay_schedule(init_value: Real, decay_rate: NonNegative) -> Any:
    """Divide init_value by a number that grows linearly with the step.

        init_value / (1 + decay_rate * t)

    t is the step, 0 at the first update. This is the learning rate decay of PyTorch's Adagrad
    (lr_decay). The sum of its values is unbounded and that of their squares bounded, as the theory
    of stochastic gradient descent requires.

    Args:
        decay_rate: how fast the value falls: it has halved after 1 / decay_rate steps. With 0 it is
            constant

    Example:
        >>> schedule = gradtx.inverse_time_decay_schedule(1.0, decay_rate=0.01)
        >>> print(schedule(jnp.array([0, 100, 300])).round(4))
        [1.   0.5  0.25]

    See also: `inverse_sqrt_schedule`, `exponential_decay`.
    """
    return lambda t: init_value / (1 + decay_rate * t)
