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
    """value"""
    return lambda t: value


@schedule
def polynomial_schedule(
    init_value: Real,
    end_value: Real,
    power: NonNegative,
    transition_steps: Steps,
    transition_begin: Steps = 0,
) -> Any:
    """From init_value to end_value in transition_steps steps, after transition_begin steps.

        end_value + (init_value - end_value) * (1 - s)^power
        s = clip((t - transition_begin) / transition_steps, 0, 1)

    With transition_steps = 0 it stays at init_value.
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
    """From init_value to end_value in a straight line of transition_steps steps.

        init_value + (end_value - init_value) * s
        s = clip((t - transition_begin) / transition_steps, 0, 1)

    With transition_steps = 0 it stays at init_value.
    """
    return _polynomial(init_value, end_value, transition_steps, transition_begin, straight)


def whole_periods(t: Any, period: Any) -> Any:
    """floor(t / period), exact for whole numbers.

    The quotient itself may be rounded to just below a whole number: compiled, a division by a
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
    """Multiply by decay_rate every transition_steps steps, after transition_begin steps.

        init_value * decay_rate^((t - transition_begin) / transition_steps)

    staircase: the exponent is rounded down, so that the value falls in steps (PyTorch's StepLR).
    end_value: where the decay (or growth) stops. With transition_steps = 0 or decay_rate = 0 it
    stays at init_value.
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
    """init_value / (1 + decay_rate * t), AdaGrad's learning rate decay in PyTorch."""
    return lambda t: init_value / (1 + decay_rate * t)
