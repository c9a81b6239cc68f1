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
from gradtx.core.printing import show
from gradtx.core.schedule import AnySchedule, Schedule
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
        schedules, boundaries = self.arguments.values()
        who, between = self.definition.name, list(self.arguments)[1]
        count, given = len(schedules), len(boundaries)
        if count == 0:
            raise ValueError(f"{who}: at least one schedule is needed, got none")
        if given not in (count - 1, count):
            raise ValueError(
                f"{who}: {count} schedules need {count - 1} {between} between them, got {given}"
            )
        if given == count:
            warnings.warn(
                f"{who}: {count} schedules need {count - 1} {between} between them, got "
                f"{given}: no schedule begins at the last, {show(boundaries[-1])}, which is "
                "ignored",
                stacklevel=4,  # where the user calls the definition
            )


@makes(Joined)
def join_schedules(schedules: Sequence[AnySchedule], boundaries: Boundaries) -> Any:
    """Run schedules one after the other, each counting its steps from its own beginning.

        t < boundaries[0]:      schedules[0](t)
        t < boundaries[1]:      schedules[1](t - boundaries[0])
        ...
        after:                  schedules[-1](t - boundaries[-1])

    t is the step, 0 at the first update.

    Args:
        schedules: the schedules in their order, gradtx's, Optax's or plain functions `step ->
            number`
        boundaries: the steps, counted from 0, at which the next schedule takes over, in rising
            order: a sequence or an array, one fewer than there are schedules. As many as schedules
            are accepted with a warning: the last is ignored

    Raises: ValueError where the numbers of schedules and boundaries do not match.

    Example:
        >>> warmup = gradtx.linear_schedule(0.0, 1.0, 10)
        >>> decay = gradtx.exponential_decay(1.0, 10, 0.5)
        >>> schedule = gradtx.join_schedules([warmup, decay], [10])
        >>> print(schedule(jnp.array([0, 5, 10, 20, 30])).round(4))
        [0.   0.5  1.   0.5  0.25]

    See also: `piecewise_constant_schedule`, `piecewise_interpolate_schedule`. Arithmetic (`a * b`),
    `schedule.clip` and `schedule.shift` also make schedules of schedules.
    """
    return joined(schedules, boundaries)


def joined(schedules: Sequence[Any], boundaries: Any) -> Any:
    """The schedules one after the other, each from its own step 0."""

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
    """Multiply init_value by a scale from each boundary on.

        value <- value * scale          at each boundary (value starts at init_value)

    This is the classic "divide the learning rate by 10 at these epochs", with the epochs in steps,
    as in PyTorch's MultiStepLR.

    Args:
        boundaries_and_scales: {boundary: scale}, in any order: from step `boundary` on, the value
            is `scale` times what it was before. None, or {}, keeps init_value

    Example:
        >>> schedule = gradtx.piecewise_constant_schedule(8.0, {100: 0.5, 200: 0.25})
        >>> print(schedule(jnp.array([0, 99, 100, 200])))
        [8. 8. 4. 1.]

    See also: `piecewise_interpolate_schedule`, `exponential_decay` with staircase=True.
    """

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
    """Interpolate from init_value through the values that the scales give at the boundaries.

    After the last boundary it is constant.

    Args:
        interpolate_type: how it goes from one value to the next: in a straight line ("linear") or
            in half a cosine wave ("cosine"), which is level at the boundaries
        boundaries_and_scales: {boundary: scale}, in any order: at step `boundary` the value is
            `scale` times that at the boundary before. None, or {}, keeps init_value

    Raises: ValueError for any other interpolate_type.

    Example:
        >>> schedule = gradtx.piecewise_interpolate_schedule("linear", 8.0, {100: 0.5, 200: 0.25})
        >>> print(schedule(jnp.array([0, 50, 100, 150, 200, 300])))
        [8.  6.  4.  2.5 1.  1. ]

    See also: `piecewise_constant_schedule`, `linear_onecycle_schedule`, `join_schedules`.
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
    """floor(x), for a known number in float64: rounded to float32, 28.999999999999996 is 29."""
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
    """Run one cycle, up to peak_value, down again, and out, in straight lines.

        t / transition_steps:   0                   pct_start    pct_final           1
        value / peak_value:     1 / div_factor      1            1 / div_factor      ...
        and at the end 1 / (div_factor * final_div_factor)

    t is the step, 0 at the first update. The cycle is meant for short trainings with a high peak
    ("super-convergence"). The turning points fall on whole steps, rounded down; after the last the
    value is constant.

    Args:
        transition_steps: how many steps the cycle takes: the length of the training
        peak_value: the highest value. It may be far above the best constant one
        pct_start: the fraction of the steps during which the value rises
        pct_final: the fraction of the steps after which it is back at its first value; larger than
            pct_start
        div_factor: how many times smaller than peak_value the first value is
        final_div_factor: how many times smaller than the first value the last one is

    Example:
        >>> schedule = gradtx.linear_onecycle_schedule(100, 1.0, div_factor=4, final_div_factor=8)
        >>> print(schedule(jnp.array([0, 15, 30, 85, 100])).round(5))
        [0.25    0.625   1.      0.25    0.03125]

    See also: `cosine_onecycle_schedule`, `cyclic_schedule`.

    References: Smith & Topin, 2018, https://arxiv.org/abs/1708.07120
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
    """Run one cycle, up to peak_value and down, in half cosine waves.

        t / transition_steps:   0                   pct_start    1
        value / peak_value:     1 / div_factor      1            1 / (div_factor * final_div_factor)

    t is the step, 0 at the first update. This is the shape of PyTorch's OneCycleLR, meant for short
    trainings with a high peak. The turning point falls on a whole step, rounded down; after the
    last step the value is constant.

    Args:
        transition_steps: how many steps the cycle takes: the length of the training
        peak_value: the highest value. It may be far above the best constant one
        pct_start: the fraction of the steps during which the value rises
        div_factor: how many times smaller than peak_value the first value is
        final_div_factor: how many times smaller than the first value the last one is

    Example:
        >>> schedule = gradtx.cosine_onecycle_schedule(100, 1.0, div_factor=4, final_div_factor=8)
        >>> print(schedule(jnp.array([0, 15, 30, 100, 200])).round(5))
        [0.25    0.625   1.      0.03125 0.03125]

    See also: `linear_onecycle_schedule`, `warmup_cosine_decay_schedule`.

    References: Smith & Topin, 2018, https://arxiv.org/abs/1708.07120
    """

    def value(t: Any) -> Any:
        begins = (0, _floor(pct_start * transition_steps), transition_steps)
        start, end = peak_value / div_factor, peak_value / (div_factor * final_div_factor)
        return _through(t, begins, (start, peak_value, end), half_wave())

    return value
