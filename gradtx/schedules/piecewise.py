"""Schedules put together from pieces: joined, constant and interpolated ones, and one-cycle."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.definition import makes, schedule
from gradtx.core.hyperparameters import (
    Fraction,
    NonNegative,
    Numbers,
    NumPyLike,
    Positive,
    PositiveSteps,
    Real,
    Scalar,
)
from gradtx.core.schedule import AnySchedule, Schedule
from gradtx.core.value import show
from gradtx.schedules.transition import Left, half_wave, straight, transition

__all__ = [
    "cosine_onecycle_schedule",
    "join_schedules",
    "linear_onecycle_schedule",
    "piecewise_constant_schedule",
    "piecewise_interpolate_schedule",
]


@dataclass(frozen=True)
class _Boundaries(Numbers):
    """Numbers of steps, as a sequence or as one array."""

    def convert(self, where: str, value: Any) -> Any:
        if isinstance(value, np.ndarray | jax.Array) and value.ndim == 1:
            value = tuple(value)
        return super().convert(where, value)


Boundaries = Annotated[
    Sequence[Scalar] | jax.Array | NumPyLike,
    _Boundaries("finite and >= 0", lambda x: np.isfinite(x) & (x >= 0), 1, scheduled=False),
]


class Joined(Schedule):
    """Schedules one after the other."""

    def _check(self) -> None:
        count, given = len(self.schedules), len(self.boundaries)
        if count == 0:
            raise ValueError("join_schedules: at least one schedule is needed, got none")
        if given not in (count - 1, count):
            raise ValueError(
                f"join_schedules: {count} schedules need {count - 1} boundaries between them, "
                f"got {given}"
            )
        if given == count:
            warnings.warn(
                f"join_schedules: {count} schedules need {count - 1} boundaries between them, got "
                f"{given}: no schedule begins at the last, {show(self.boundaries[-1])}, which is "
                "ignored",
                stacklevel=4,  # where the user calls the definition
            )


@makes(Joined)
def join_schedules(schedules: Sequence[AnySchedule], boundaries: Boundaries) -> Any:
    """Schedules one after the other; each counts its steps from its own beginning.

    boundaries: the steps at which the next one takes over, a sequence or an array; one less than
    there are schedules. As many as schedules are taken with a warning: the last is ignored. Raises:
    ValueError where the numbers do not match.
    """

    def value(t: Any) -> Any:
        result = schedules[0](t)
        for boundary, following in zip(boundaries, schedules[1:], strict=False):
            result = jnp.where(t < boundary, result, following(t - boundary))
        return result

    return value


@schedule
def piecewise_constant_schedule(
    init_value: Real, boundaries_and_scales: Mapping[int, NonNegative] | None = None
) -> Any:
    """init_value, multiplied by a scale from each boundary on: {boundary: scale}."""

    def value(t: Any) -> Any:
        result = reached = init_value
        for boundary, scale in sorted((boundaries_and_scales or {}).items()):
            reached = reached * scale
            result = jnp.where(t < boundary, result, reached)
        return result

    return value


@schedule
def piecewise_interpolate_schedule(
    interpolate_type: Literal["linear", "cosine"],
    init_value: Real,
    boundaries_and_scales: Mapping[int, NonNegative] | None = None,
) -> Any:
    """Through init_value at 0 and, at each boundary, the value before it times its scale.

    Between them it goes in a straight line ("linear") or in half a cosine wave ("cosine"); after
    the last it is constant. Raises: ValueError for another interpolate_type.
    """
    left = straight if interpolate_type == "linear" else half_wave()

    def value(t: Any) -> Any:
        begins, values = [0], [init_value]
        for boundary, scale in sorted((boundaries_and_scales or {}).items()):
            begins.append(boundary)
            values.append(values[-1] * scale)
        return _through(t, begins, values, left)

    return value


def _through(t: Any, begins: Sequence[Any], values: Sequence[Any], left: Left) -> Any:
    """From value to value, each reached at its step."""
    # From the last interval to the first: the earliest interval that holds t wins.
    result = values[-1]
    for i in reversed(range(len(begins) - 1)):
        length = begins[i + 1] - begins[i]
        inside = transition(t - begins[i], values[i], values[i + 1], length, left)
        result = jnp.where(t < begins[i + 1], inside, result)
    return result


def _floor(x: Any) -> Any:
    """Of a known number in float64: rounded to float32, 28.999999999999996 is 29."""
    return math.floor(x) if isinstance(x, int | float) else jnp.floor(x)


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
        turns = (_floor(pct * transition_steps) for pct in (pct_start, pct_final))
        start, end = peak_value / div_factor, peak_value / (div_factor * final_div_factor)
        values = (start, peak_value, start, end)
        return _through(t, (0, *turns, transition_steps), values, straight)

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
        begins = (0, _floor(pct_start * transition_steps), transition_steps)
        start, end = peak_value / div_factor, peak_value / (div_factor * final_div_factor)
        return _through(t, begins, (start, peak_value, end), half_wave())

    return value
