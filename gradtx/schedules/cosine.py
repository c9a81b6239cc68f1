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
    """Go from init_value to end_value in half a cosine wave, and back in another, for ever.

        end_value + (init_value - end_value) * (1 + cos(pi * t / half_period)) / 2

    t is the step, 0 at the first update. This is PyTorch's CosineAnnealingLR, with half_period for
    T_max. The value never jumps, as that of `warm_restarts_schedule` does, and does not stay at its
    end, as that of `cosine_decay_schedule` does.

    Args:
        init_value: the value at step 0 and at every even multiple of half_period
        half_period: how many steps it takes from init_value to end_value, and again on the way back
        end_value: the value half way, at step half_period; it is not kept

    Example:
        >>> schedule = gradtx.cosine_annealing_schedule(1.0, half_period=10)
        >>> print(schedule(jnp.array([0, 5, 10, 15, 20])).round(4))
        [1.  0.5 0.  0.5 1. ]

    See also: `cosine_decay_schedule`, `warm_restarts_schedule`, `cyclic_schedule`.

    References: Loshchilov & Hutter, 2017, https://arxiv.org/abs/1608.03983
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
    """Fall from init_value to alpha * init_value in half a cosine wave, then stay there.

        init_value * ((1 - alpha) * ((1 + cos(pi * min(t, decay_steps) / decay_steps)) / 2)^exponent
                      + alpha)

    t is the step, 0 at the first update. The value changes slowly at both ends and fastest in the
    middle. decay_steps is usually the length of the training.

    Args:
        alpha: the last value as a fraction of init_value; 0 ends at 0
        exponent: the power that the wave is raised to. Above 1 the value falls sooner and
            approaches its end more slowly, below 1 the reverse

    Example:
        >>> schedule = gradtx.cosine_decay_schedule(1.0, decay_steps=100, alpha=0.25)
        >>> print(schedule(jnp.array([0, 50, 100, 200])).round(4))
        [1.    0.625 0.25  0.25 ]

    See also: `warmup_cosine_decay_schedule`, which warms up first; `wsd_schedule`.

    References: Loshchilov & Hutter, 2017, https://arxiv.org/abs/1608.03983
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
    """Repeat half a cosine wave from init_value to end_value, each time from the start (SGDR).

        end_value + (init_value - end_value) * (1 + cos(pi * t_i / T_i)) / 2

    t_i is the number of steps since the last restart, T_i the length of the i-th period:
    first_period * period_multiplier^i. Just before a restart is a good time to stop, or to keep a
    copy of the parameters.

    Args:
        init_value: the value at step 0, and again at every restart
        first_period: how many steps pass until the first restart
        period_multiplier: how many times as long each period is as the one before. 1 makes them
            equal; with 2 the restarts become rare
        end_value: the value that each period falls towards. It is not reached: the step on which it
            would be is the restart

    Example:
        >>> schedule = gradtx.warm_restarts_schedule(1.0, first_period=10, period_multiplier=2)
        >>> print(schedule(jnp.array([0, 5, 9, 10, 20, 29, 30])).round(4))
        [1.     0.5    0.0245 1.     0.5    0.0062 1.    ]

    See also: `sgdr_schedule`, whose periods may differ in any way; `cosine_annealing_schedule`,
    which goes back without a jump.

    References: Loshchilov & Hutter, 2017, https://arxiv.org/abs/1608.03983
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
        # The logarithm may be off by a rounding error just where a period begins.
        i = jnp.where(t >= start(i + 1), i + 1, jnp.where(t < start(i), i - 1, i))
        period = first_period * period_multiplier**i
        return transition(t - start(i), init_value, end_value, period, half_wave())

    return value


@schedule
def warmup_constant_schedule(init_value: Real, peak_value: Real, warmup_steps: Steps) -> Any:
    """Rise from init_value to peak_value in a straight line, then stay there.

        init_value + (peak_value - init_value) * min(t / warmup_steps, 1)

    t is the step, 0 at the first update.

    Args:
        warmup_steps: how many steps the value rises; with 0 it is peak_value from the start

    Example:
        >>> schedule = gradtx.warmup_constant_schedule(0.0, 1.0, warmup_steps=100)
        >>> print(schedule(jnp.array([0, 25, 50, 100, 1000])).round(4))
        [0.   0.25 0.5  1.   1.  ]

    See also: `linear_schedule`, the same with a delay; `wsd_schedule`, which also decays.
    """
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
    """Warm up from init_value to peak_value in a straight line, then fall in half a cosine wave.

        t < warmup_steps:   init_value + (peak_value - init_value) * t / warmup_steps
        after:              end_value + (peak_value - end_value) * ((1 + cos(pi * s)) / 2)^exponent
                            s = min((t - warmup_steps) / (decay_steps - warmup_steps), 1)

    t is the step, 0 at the first update.

    Args:
        decay_steps: the number of steps of the warm-up and the wave together, usually that of the
            whole training; larger than warmup_steps
        exponent: the power that the wave is raised to. Above 1 the value falls sooner and
            approaches its end more slowly, below 1 the reverse

    Raises: ValueError unless decay_steps > warmup_steps.

    Example:
        >>> schedule = gradtx.warmup_cosine_decay_schedule(0.0, 1.0, 10, decay_steps=110)
        >>> print(schedule(jnp.array([0, 5, 10, 60, 110])).round(4))
        [0.  0.5 1.  0.5 0. ]
        >>> tx = gradtx.adamw(schedule)

    See also: `cosine_decay_schedule`, the same without a warm-up; `wsd_schedule`, which stays at
    the peak before it decays.
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
    """Warm up from init_value to peak_value in a straight line, then decay as `exponential_decay`.

        t < warmup_steps:   init_value + (peak_value - init_value) * t / warmup_steps
        after:              peak_value * decay_rate^s
                            s = max(t - warmup_steps - transition_begin, 0) / transition_steps

    t is the step, 0 at the first update.

    Args:
        transition_steps: the number of steps in which the value is multiplied by decay_rate once.
            With 0 it stays at peak_value
        decay_rate: the factor on the value in each transition_steps: below 1 it falls, above 1 it
            grows. With 0 it stays at peak_value
        transition_begin: how many steps the value stays at peak_value after the warm-up
        staircase: round s down, so that the value falls only every transition_steps steps
        end_value: where the decay (or the growth) stops; None sets no bound

    Example:
        >>> schedule = gradtx.warmup_exponential_decay_schedule(0.0, 1.0, 10, 100, decay_rate=0.5)
        >>> print(schedule(jnp.array([0, 5, 10, 110, 210])).round(4))
        [0.   0.5  1.   0.5  0.25]

    See also: `exponential_decay`, `warmup_cosine_decay_schedule`, `inverse_sqrt_schedule`.
    """

    def value(t: Any) -> Any:
        warm = transition(t, init_value, peak_value, warmup_steps, straight)
        decay = exponential_decay(
            peak_value, transition_steps, decay_rate, transition_begin, staircase, end_value
        )
        return jnp.where(t < warmup_steps, warm, decay(t - warmup_steps))

    return value


def sgdr_schedule(cosine_kwargs: Iterable[Mapping[str, Any]]) -> Schedule:
    """Join a `warmup_cosine_decay_schedule` for each mapping of its arguments: warm restarts.

    Each begins when the decay_steps of the one before are over, so that peaks, warm-ups and lengths
    may differ. `warm_restarts_schedule` is the paper's own form.

    Args:
        cosine_kwargs: for each period a dict of the arguments of `warmup_cosine_decay_schedule`:
            init_value, peak_value, warmup_steps, decay_steps and, if need be, end_value and
            exponent

    Raises: TypeError or ValueError where an argument is missing or bad.

    Example:
        >>> periods = [dict(init_value=0.0, peak_value=peak, warmup_steps=2, decay_steps=10)
        ...            for peak in (1.0, 0.5)]
        >>> print(gradtx.sgdr_schedule(periods)(jnp.array([0, 1, 2, 6, 10, 12, 16, 20])).round(4))
        [0.   0.5  1.   0.5  0.   0.5  0.25 0.  ]

    See also: `warm_restarts_schedule`, `join_schedules`.

    References: Loshchilov & Hutter, 2017, https://arxiv.org/abs/1608.03983
    """
    pieces = [warmup_cosine_decay_schedule(**kwargs) for kwargs in cosine_kwargs]
    ends = list(itertools.accumulate(piece.decay_steps for piece in pieces))
    return join_schedules(tuple(pieces), tuple(ends[:-1]))
