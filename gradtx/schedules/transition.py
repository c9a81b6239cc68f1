"""From one value to another in a number of steps: the building block of schedules that end."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from gradtx.core.numerics import sqrt, where_positive

# What is left of the way, from 1 down to 0, given the fractions of the steps that are `done` and
# `remaining`. It takes both, because 1 minus one of them has few digits where the other is small.
Left = Callable[[Any, Any], Any]


def transition(t: Any, start: Any, end: Any, steps: Any, left: Left) -> Any:
    """end + (start - end) * left, which is exactly start up to step 0 and end from `steps` on.

    Both are selected, since a computation would miss them: when compiled, a product and a sum are
    rounded only once, and a division by a constant is a product with its rounded reciprocal.
    """
    length = jnp.where(jnp.asarray(steps) > 0, steps, 1)
    elapsed = jnp.clip(t, 0, steps)
    inside = end + (start - end) * left(elapsed / length, (steps - elapsed) / length)
    return jnp.where(t >= steps, end, jnp.where(t <= 0, start, inside))


def straight(done: Any, remaining: Any) -> Any:
    """In a straight line."""
    return remaining


def polynomial(power: Any) -> Left:
    """remaining^power"""
    return lambda done, remaining: _power(remaining, power)


def half_wave(exponent: Any = 1) -> Left:
    """((1 + cos(pi * done)) / 2)^exponent, written as a square: near the end 1 + cos is inexact."""
    return lambda done, remaining: _power(jnp.square(jnp.sin(math.pi / 2 * remaining)), exponent)


def one_minus_sqrt(done: Any, remaining: Any) -> Any:
    """1 - sqrt(done), without the subtraction."""
    # At the first step the square root has no derivative: here it is 0.
    return remaining / (1 + sqrt(done))


def _power(x: Any, power: Any) -> Any:
    if isinstance(power, int | float) and power == 1:
        return x
    # The derivative of 0^power is not needed and may be infinite.
    return where_positive(lambda x: x**power, x)
