"""Schedules as plain Python functions ``step -> rate``, written from their definitions."""

import math
from collections.abc import Callable, Mapping, Sequence

Schedule = Callable[[int], float]


def constant(value: float) -> Schedule:
    return lambda step: value


def polynomial(start: float, end: float, power: float, steps: int, begin: int = 0) -> Schedule:
    """start until begin, end from begin + steps on, (1 - fraction)^power of the way between.

    No steps to take: start for ever. A negative begin is taken as zero.
    """
    begin = max(begin, 0)

    def rate(step: int) -> float:
        if steps <= 0:
            return start
        fraction = min(max(step - begin, 0), steps) / steps
        return end + (start - end) * (1 - fraction) ** power

    return rate


def linear(start: float, end: float, steps: int, begin: int = 0) -> Schedule:
    return polynomial(start, end, 1, steps, begin)


def exponential(
    start: float,
    steps: int,
    decay: float,
    begin: int = 0,
    staircase: bool = False,
    end: float | None = None,
) -> Schedule:
    """start decay^((step - begin) / steps) after begin, never beyond end.

    A staircase rounds the exponent down. No steps or no decay: start for ever.
    """
    begin = max(begin, 0)

    def rate(step: int) -> float:
        if steps <= 0 or decay == 0:
            return start
        since = max(step - begin, 0)
        value = start * decay ** (since // steps if staircase else since / steps)
        if end is None:
            return value
        return max(value, end) if decay < 1 else min(value, end)

    return rate


def piecewise_constant(start: float, scales: Mapping[int, float] | None) -> Schedule:
    """start times every scale whose boundary has been reached."""

    def rate(step: int) -> float:
        return start * math.prod(s for b, s in (scales or {}).items() if step >= b)

    return rate


def piecewise_interpolate(kind: str, start: float, scales: Mapping[int, float] | None) -> Schedule:
    """From value to value between the boundaries, along a line or half a cosine wave."""
    boundaries, values = [0], [start]
    for boundary, factor in sorted((scales or {}).items()):
        boundaries.append(boundary)
        values.append(values[-1] * factor)

    def rate(step: int) -> float:
        for i in range(len(boundaries) - 1):
            if boundaries[i] <= step < boundaries[i + 1]:
                x = (step - boundaries[i]) / (boundaries[i + 1] - boundaries[i])
                way = x if kind == "linear" else (1 - math.cos(math.pi * x)) / 2
                return values[i] + (values[i + 1] - values[i]) * way
        return values[-1]

    return rate


def linear_onecycle(
    steps: int,
    peak: float,
    pct_start: float = 0.3,
    pct_final: float = 0.85,
    div: float = 25.0,
    final_div: float = 1e4,
) -> Schedule:
    """Smith & Topin 2017: up to the peak, back to the start, then down. Three lines."""
    start = peak / div
    return join(
        [
            linear(start, peak, int(pct_start * steps)),
            linear(peak, start, int(pct_final * steps) - int(pct_start * steps)),
            linear(start, start / final_div, steps - int(pct_final * steps)),
        ],
        [int(pct_start * steps), int(pct_final * steps)],
    )


def cosine_onecycle(
    steps: int,
    peak: float,
    pct_start: float = 0.3,
    div: float = 25.0,
    final_div: float = 1e4,
) -> Schedule:
    """Up to the peak and down again, along half a cosine wave each."""
    turn = int(pct_start * steps)
    start = peak / div

    def wave(a: float, b: float, length: int) -> Schedule:
        half = cosine_annealing(a, length, b)
        return lambda step: half(min(step, length))

    return join([wave(start, peak, turn), wave(peak, start / final_div, steps - turn)], [turn])


def cosine_decay(start: float, steps: int, alpha: float = 0.0, exponent: float = 1.0) -> Schedule:
    """start (alpha + (1 - alpha) ((1 + cos(pi step / steps)) / 2)^exponent), then level."""

    def rate(step: int) -> float:
        wave = (1 + math.cos(math.pi * (min(step, steps) / steps))) / 2
        return start * (alpha + (1 - alpha) * wave**exponent)

    return rate


def join(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    """Each schedule counts from the boundary at which it takes over."""

    def rate(step: int) -> float:
        taken = [b for b in boundaries if step >= b]
        return schedules[len(taken)](step - (taken[-1] if taken else 0))

    return rate


def warmup_constant(start: float, peak: float, warmup: int) -> Schedule:
    return linear(start, peak, warmup)


def warmup_cosine(
    start: float, peak: float, warmup: int, steps: int, end: float = 0.0, exponent: float = 1.0
) -> Schedule:
    """A line up to the peak, then a cosine that is done at ``steps``, warmup included."""
    alpha = end / peak if peak else 0.0
    return join(
        [linear(start, peak, warmup), cosine_decay(peak, steps - warmup, alpha, exponent)],
        [warmup],
    )


def warmup_exponential(
    start: float,
    peak: float,
    warmup: int,
    steps: int,
    decay: float,
    begin: int = 0,
    staircase: bool = False,
    end: float | None = None,
) -> Schedule:
    return join(
        [linear(start, peak, warmup), exponential(peak, steps, decay, begin, staircase, end)],
        [warmup],
    )


def sgdr(cycles: Sequence[Mapping[str, float]]) -> Schedule:
    """Loshchilov & Hutter 2017: cosine cycles with warm-up, one after another."""
    boundaries, total = [], 0
    for cycle in cycles:
        total += int(cycle["decay_steps"])
        boundaries.append(total)
    schedules = [
        warmup_cosine(
            cycle["init_value"],
            cycle["peak_value"],
            int(cycle["warmup_steps"]),
            int(cycle["decay_steps"]),
            cycle.get("end_value", 0.0),
            cycle.get("exponent", 1.0),
        )
        for cycle in cycles
    ]
    return join(schedules, boundaries[:-1])


def cosine_annealing(start: float, half_period: int, end: float = 0.0) -> Schedule:
    """end + (start - end) (1 + cos(pi step / half_period)) / 2, up again after half a period."""

    def rate(step: int) -> float:
        return end + (start - end) * (1 + math.cos(math.pi * (step / half_period))) / 2

    return rate


def warm_restarts(
    start: float, first_period: int, multiplier: int = 1, end: float = 0.0
) -> Schedule:
    """SGDR: a cosine down over each period, each period ``multiplier`` times the last."""

    def rate(step: int) -> float:
        period = first_period
        while step >= period:
            step, period = step - period, period * multiplier
        return end + (start - end) * (1 + math.cos(math.pi * (step / period))) / 2

    return rate
