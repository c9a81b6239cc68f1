"""Schedules put together from pieces: joined, constant and interpolated ones, and one-cycle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.definition import schedule
from gradtx.core.kinds import Fraction, NonNegative, Number, Positive, PositiveSteps, Real
from gradtx.core.schedule import Schedule


@dataclass(frozen=True)
class _Boundaries(Number):
    """Numbers of steps, as a sequence or as one array."""

    def convert(self, where: str, value: Any) -> Any:
        if isinstance(value, np.ndarray | jax.Array) and value.ndim == 1:
            value = tuple(value)
        return super().convert(where, value)


Boundaries = Annotated[
    Any,
    _Boundaries("finite and >= 0", lambda x: np.isfinite(x) & (x >= 0), 1, scheduled=False),
]


@schedule
def join_schedules(schedules: tuple[Schedule, ...], boundaries: Boundaries) -> Any:
    """Schedules one after the other; each counts its steps from its own beginning.

    boundaries: the steps at which the next one takes over, a sequence or an array; one less than
    there are schedules. Raises: ValueError where the numbers do not match.
    """
    if len(boundaries) != len(schedules) - 1:
        raise ValueError(
            f"join_schedules: {len(schedules)} schedules need {len(schedules) - 1} boundaries "
            f"between them, got {len(boundaries)}"
        )

    def value(t: Any) -> Any:
        result = schedules[0](t)
        for boundary, following in zip(boundaries, schedules[1:], strict=True):
            result = jnp.where(t < boundary, result, following(t - boundary))
        return result

    return value


@schedule
def piecewise_constant_schedule(
    init_value: Real, boundaries_and_scales: Mapping[int, NonNegative] | None = None
) -> Any:
    """init_value, multiplied by a scale from each boundary on: {boundary: scale}."""

    def value(t: Any) -> Any:
        result = init_value
        for boundary, scale in sorted((boundaries_and_scales or {}).items()):
            result = jnp.where(t < boundary, 1, scale) * result
        return result

    return value


@schedule
def piecewise_interpolate_schedule(
    interpolate_type: str,
    init_value: Real,
    boundaries_and_scales: Mapping[int, NonNegative] | None = None,
) -> Any:
    """Through init_value at 0 and, at each boundary, the value before it times its scale.

    Between them it goes in a straight line ("linear") or in half a cosine wave ("cosine"); after
    the last it is constant. Raises: ValueError for another interpolate_type.
    """
    if interpolate_type not in ("linear", "cosine"):
        raise ValueError(
            "piecewise_interpolate_schedule: interpolate_type must be 'linear' or 'cosine', "
            f"got {interpolate_type!r}"
        )
    knots = sorted((boundaries_and_scales or {}).items())
    return lambda t: _interpolate(t, init_value, knots, interpolate_type)


def _interpolate(t: Any, init_value: Any, knots: list[tuple[Any, Any]], how: str) -> Any:
    # From the last interval to the first: the earliest interval that holds t wins.
    begins, values = [0], [init_value]
    for boundary, scale in knots:
        begins.append(boundary)
        values.append(values[-1] * scale)
    result = values[-1]
    for i in reversed(range(len(knots))):
        length = jnp.maximum(begins[i + 1] - begins[i], 1)
        s = (t - begins[i]) / length
        if how == "cosine":
            s = (1 - jnp.cos(math.pi * s)) / 2
        inside = values[i] + (values[i + 1] - values[i]) * s
        result = jnp.where(t < begins[i + 1], inside, result)
    return result


@schedule
def linear_onecycle_schedule(
    transition_steps: PositiveSteps,
    peak_value: Real,
    pct_start: Fraction = 0.3,
    pct_final: Fraction = 0.85,
    div_factor: Positive = 25.0,
    final_div_factor: Positive = 1e4,
) -> Any:
    """One cycle: up to peak_value, down again, and out, in straight lines.

        t / transition_steps:   0                   pct_start    pct_final           1
        value / peak_value:     1 / div_factor      1            1 / div_factor      ...
        and at the end 1 / (div_factor * final_div_factor)

    Smith & Topin, 2018, https://arxiv.org/abs/1708.07120
    """

    def value(t: Any) -> Any:
        knots = [
            (jnp.floor(pct_start * transition_steps), div_factor),
            (jnp.floor(pct_final * transition_steps), 1 / div_factor),
            (transition_steps, 1 / final_div_factor),
        ]
        return _interpolate(t, peak_value / div_factor, knots, "linear")

    return value


@schedule
def cosine_onecycle_schedule(
    transition_steps: PositiveSteps,
    peak_value: Real,
    pct_start: Fraction = 0.3,
    div_factor: Positive = 25.0,
    final_div_factor: Positive = 1e4,
) -> Any:
    """One cycle: up to peak_value and down, in half cosine waves.

        t / transition_steps:   0                   pct_start    1
        value / peak_value:     1 / div_factor      1            1 / (div_factor * final_div_factor)

    Smith & Topin, 2018, https://arxiv.org/abs/1708.07120
    """

    def value(t: Any) -> Any:
        knots = [
            (jnp.floor(pct_start * transition_steps), div_factor),
            (transition_steps, 1 / (div_factor * final_div_factor)),
        ]
        return _interpolate(t, peak_value / div_factor, knots, "cosine")

    return value
