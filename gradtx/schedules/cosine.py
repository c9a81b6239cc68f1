"""Cosine schedules and warm-up. t is the step, 0 at the first update."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp

from gradtx.core.definition import schedule
from gradtx.core.hyperparameters import (
    AtLeastOne,
    NonNegative,
    Positive,
    PositiveSteps,
    Real,
    Steps,
)
from gradtx.core.schedule import Schedule
from gradtx.schedules.piecewise import join_schedules
from gradtx.schedules.polynomial import exponential_decay, linear_schedule
from gradtx.schedules.transition import half_wave, straight, transition

__all__ = [
    "cosine_annealing_schedule",
    "cosine_decay_schedule",
    "sgdr_schedule",
    "warm_restarts_schedule",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
]


@schedule
def cosine_annealing_schedule(
    init_value: Real, half_period: PositiveSteps, end_value: Real = 0.0
) -> Any:
    """From init_value to end_value in half a cosine wave, and back, for ever.

        end_value + (init_value - end_value) * (1 + cos(pi * t / half_period)) / 2

    Loshchilov & Hutter, 2017, https://arxiv.org/abs/1608.03983
    """

    def value(t: Any) -> Any:
        within = jnp.mod(t, 2 * half_period)
        down_or_up = jnp.minimum(within, 2 * half_period - within)
        return transition(down_or_up, init_value, end_value, half_period, half_wave())

    return value


@schedule
def cosine_decay_schedule(
    init_value: Real, decay_steps: PositiveSteps, alpha: Real = 0.0, exponent: Positive = 1.0
) -> Any:
    """From init_value to alpha * init_value in half a cosine wave of decay_steps; then constant.

        init_value * ((1 - alpha) * ((1 + cos(pi * min(t, decay_steps) / decay_steps)) / 2)^exponent
                      + alpha)

    Loshchilov & Hutter, 2017, https://arxiv.org/abs/1608.03983
    """

    def value(t: Any) -> Any:
        return transition(t, init_value, alpha * init_value, decay_steps, half_wave(exponent))

    return value


@schedule
def warm_restarts_schedule(
    init_value: Real,
    first_period: PositiveSteps,
    period_multiplier: AtLeastOne = 1,
    end_value: Real = 0.0,
) -> Any:
    """SGDR: half a cosine wave from init_value to end_value, and again from the start.

        end_value + (init_value - end_value) * (1 + cos(pi * t_i / T_i)) / 2

    t_i is the number of steps since the last restart, T_i the length of the i-th period:
    first_period * period_multiplier^i. Loshchilov & Hutter, 2017,
    https://arxiv.org/abs/1608.03983
    """

    def start(i: Any) -> Any:
        growth = (period_multiplier**i - 1) / jnp.where(grows, period_multiplier - 1, 1)
        return first_period * jnp.where(grows, growth, i)

    grows = jnp.asarray(period_multiplier) > 1

    def value(t: Any) -> Any:
        cycles = t / first_period
        base = jnp.where(grows, period_multiplier, 2)
        guess = jnp.log1p(jnp.maximum(cycles, 0) * (base - 1)) / jnp.log(base)
        i = jnp.floor(jnp.where(grows, guess, cycles))
        # The logarithm may be off by a rounding just where a period begins.
        i = jnp.where(t >= start(i + 1), i + 1, jnp.where(t < start(i), i - 1, i))
        period = first_period * period_multiplier**i
        return transition(t - start(i), init_value, end_value, period, half_wave())

    return value


@schedule
def warmup_constant_schedule(init_value: Real, peak_value: Real, warmup_steps: Steps) -> Any:
    """From init_value to peak_value in a straight line of warmup_steps steps; then constant."""
    return linear_schedule(init_value, peak_value, warmup_steps)


@schedule
def warmup_cosine_decay_schedule(
    init_value: Real,
    peak_value: Real,
    warmup_steps: Steps,
    decay_steps: PositiveSteps,
    end_value: Real = 0.0,
    exponent: Positive = 1.0,
) -> Any:
    """Linear warm-up from init_value to peak_value, then half a cosine wave to end_value.

    warmup_steps: of the warm-up; decay_steps: of the warm-up and the wave together.

        t < warmup_steps:   init_value + (peak_value - init_value) * t / warmup_steps
        after:              end_value + (peak_value - end_value) * ((1 + cos(pi * s)) / 2)^exponent
                            s = min((t - warmup_steps) / (decay_steps - warmup_steps), 1)

    Raises: ValueError unless decay_steps > warmup_steps.
    """
    known = isinstance(warmup_steps, int | float) and isinstance(decay_steps, int | float)
    if known and decay_steps <= warmup_steps:
        raise ValueError(
            "warmup_cosine_decay_schedule: decay_steps counts the warm-up too and must be larger "
            f"than warmup_steps, got decay_steps={decay_steps}, warmup_steps={warmup_steps}"
        )

    def value(t: Any) -> Any:
        warm = transition(t, init_value, peak_value, warmup_steps, straight)
        since, length = t - warmup_steps, decay_steps - warmup_steps
        wave = transition(since, peak_value, end_value, length, half_wave(exponent))
        return jnp.where(t < warmup_steps, warm, wave)

    return value


@schedule
def warmup_exponential_decay_schedule(
    init_value: Real,
    peak_value: Real,
    warmup_steps: Steps,
    transition_steps: Steps,
    decay_rate: NonNegative,
    transition_begin: Steps = 0,
    staircase: bool = False,
    end_value: Real | None = None,
) -> Any:
    """Linear warm-up from init_value to peak_value, then `exponential_decay` from peak_value."""

    def value(t: Any) -> Any:
        warm = transition(t, init_value, peak_value, warmup_steps, straight)
        decay = exponential_decay(
            peak_value, transition_steps, decay_rate, transition_begin, staircase, end_value
        )
        return jnp.where(t < warmup_steps, warm, decay(t - warmup_steps))

    return value


def sgdr_schedule(cosine_kwargs: Iterable[Mapping[str, Any]]) -> Schedule:
    """Warm restarts, spelled out: a `warmup_cosine_decay_schedule` for each mapping of arguments.

    Each begins when the decay_steps of the one before are over. `warm_restarts_schedule` is the
    paper's own form. Raises: TypeError or ValueError where an argument is missing or bad.
    """
    pieces = [warmup_cosine_decay_schedule(**kwargs) for kwargs in cosine_kwargs]
    ends = list(itertools.accumulate(piece.decay_steps for piece in pieces))
    return join_schedules(tuple(pieces), tuple(ends[:-1]))
