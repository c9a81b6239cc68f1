"""Schedules for whole training runs: warm-up, a plateau and decay; inverse square roots; cycles."""

from __future__ import annotations

from typing import Any, Literal

import jax.numpy as jnp

from gradtx.core.definition import schedule
from gradtx.core.hyperparameters import (
    NonNegative,
    Positive,
    PositiveFraction,
    PositiveSteps,
    Real,
    Steps,
)
from gradtx.schedules.polynomial import whole_periods
from gradtx.schedules.transition import half_wave, one_minus_sqrt, straight, transition

__all__ = [
    "cyclic_schedule",
    "inverse_sqrt_schedule",
    "precond_update_prob_schedule",
    "wsd_schedule",
]

_DECAYS = {"linear": straight, "cosine": half_wave(), "sqrt": one_minus_sqrt}


@schedule
def wsd_schedule(
    init_value: Real,
    peak_value: Real,
    warmup_steps: Steps,
    stable_steps: Steps,
    decay_steps: PositiveSteps,
    end_value: Real = 0.0,
    decay: Literal["linear", "cosine", "sqrt"] = "linear",
) -> Any:
    """Warm up to peak_value, stay there, and decay to end_value at the end.

        t < warmup_steps:   init_value + (peak_value - init_value) * t / warmup_steps
        in between:         peak_value
        the last steps:     end_value + (peak_value - end_value) * d(s)
                            s = (t - warmup_steps - stable_steps) / decay_steps, at most 1

    t is the step, 0 at the first update. Unlike a cosine, the plateau does not depend on the length
    of the training: training may go on from the plateau of an earlier run with another length.

    Args:
        stable_steps: how many steps the value stays at peak_value
        decay_steps: how many steps the decay takes, after the plateau; a tenth or a fifth of all
            steps is usual
        decay: the shape d: "linear" is 1 - s, "cosine" (1 + cos(pi s)) / 2, "sqrt" 1 - sqrt(s),
            which falls fastest at first

    Raises: ValueError for any other decay.

    Example:
        >>> schedule = gradtx.wsd_schedule(0.0, 1.0, 10, stable_steps=80, decay_steps=10)
        >>> print(schedule(jnp.array([0, 5, 10, 90, 95, 100])))
        [0.  0.5 1.  1.  0.5 0. ]

    See also: `warmup_cosine_decay_schedule`, `inverse_sqrt_schedule`.

    References: Hu et al., 2024, https://arxiv.org/abs/2404.06395; Haegele et al., 2024,
    https://arxiv.org/abs/2405.18392
    """

    def value(t: Any) -> Any:
        warm = transition(t, init_value, peak_value, warmup_steps, straight)
        since = t - (warmup_steps + stable_steps)
        after = transition(since, peak_value, end_value, decay_steps, _DECAYS[decay])
        return jnp.where(t < warmup_steps, warm, after)

    return value


@schedule
def inverse_sqrt_schedule(
    init_value: Real, peak_value: Real, warmup_steps: Steps, timescale: PositiveSteps | None = None
) -> Any:
    """Warm up to peak_value, then fall as the inverse square root of the step.

        t < warmup_steps:   init_value + (peak_value - init_value) * t / warmup_steps
        after:              peak_value * sqrt(timescale / (timescale + t - warmup_steps))

    t is the step, 0 at the first update. The schedule has no end, so the length of the training
    need not be known.

    Args:
        timescale: how many steps after the warm-up the value has fallen to peak_value / sqrt(2). By
            default it is warmup_steps (1 if that is 0), and the value is peak_value *
            sqrt(warmup_steps / t), as in the first Transformer

    Example:
        >>> schedule = gradtx.inverse_sqrt_schedule(0.0, 1.0, warmup_steps=100)
        >>> print(schedule(jnp.array([0, 50, 100, 400, 1600])).round(4))
        [0.   0.5  1.   0.5  0.25]

    See also: `wsd_schedule`, `inverse_time_decay_schedule`.

    References: Vaswani et al., 2017, https://arxiv.org/abs/1706.03762
    """

    def value(t: Any) -> Any:
        scale = jnp.maximum(warmup_steps, 1) if timescale is None else timescale
        since = jnp.maximum(t - warmup_steps, 0)
        warm = transition(t, init_value, peak_value, warmup_steps, straight)
        return jnp.where(t <= warmup_steps, warm, peak_value * jnp.sqrt(scale / (scale + since)))

    return value


@schedule
def cyclic_schedule(
    init_value: Real,
    peak_value: Real,
    up_steps: PositiveSteps,
    down_steps: PositiveSteps | None = None,
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
    decay_rate: Positive = 1.0,
) -> Any:
    """Rise from init_value to peak_value and fall again in straight lines, for ever.

        init_value + (peak_value - init_value) * height * factor

    height goes from 0 to 1 in up_steps and back to 0 in down_steps. factor is 1 for "triangular",
    1/2 to the number of cycles so far for "triangular2", and decay_rate^t for "exp_range".

    Args:
        init_value: the value at the beginning and the end of every cycle
        peak_value: the value at the top of the first cycle, and of every cycle with "triangular"
        up_steps: how many steps the value rises in each cycle
        down_steps: how many steps it falls in each; None for as many as up_steps
        mode: whether the peaks stay ("triangular"), are halved with every cycle ("triangular2") or
            shrink with every step ("exp_range")
        decay_rate: the factor on the height at every step, with "exp_range" only: just below 1,
            such as 0.9999

    Raises: ValueError for any other mode.

    Example:
        >>> schedule = gradtx.cyclic_schedule(0.0, 1.0, up_steps=10, mode="triangular2")
        >>> print(schedule(jnp.array([0, 5, 10, 20, 30, 40])).round(4))
        [0.  0.5 1.  0.  0.5 0. ]

    See also: `linear_onecycle_schedule`, `warm_restarts_schedule`.

    References: Smith, 2017, https://arxiv.org/abs/1506.01186
    """

    def value(t: Any) -> Any:
        down = up_steps if down_steps is None else down_steps
        period = up_steps + down
        # Whole cycles are taken off first: they may be many.
        within = jnp.mod(t, period)
        top = peak_value
        if mode == "triangular2":
            cycles = whole_periods(t, period)
            lower = init_value + (peak_value - init_value) * jnp.exp2(-cycles)
            top = jnp.where(cycles == 0, peak_value, lower)
        elif mode == "exp_range":
            top = init_value + (peak_value - init_value) * decay_rate**t
        rising = transition(within, init_value, top, up_steps, straight)
        falling = transition(within - up_steps, top, init_value, down, straight)
        return jnp.where(within < up_steps, rising, falling)

    return value


@schedule
def precond_update_prob_schedule(
    max_prob: PositiveFraction = 1.0,
    min_prob: PositiveFraction = 0.03,
    decay: NonNegative = 0.001,
    flat_start: Steps = 500,
) -> Any:
    """Fall exponentially from max_prob to min_prob, after a flat start.

        clip(max_prob * exp(-decay * (t - flat_start)), min_prob, max_prob)

    This is the share of updates in which `kron` fits its preconditioners, which change fast at
    first.

    Args:
        max_prob: the value at the start
        min_prob: the value at the end
        decay: the rate of the fall: after 1 / decay steps the value has fallen to about a third
        flat_start: how many steps the value stays at max_prob

    Example:
        >>> schedule = gradtx.precond_update_prob_schedule()
        >>> print(schedule(jnp.array([0, 500, 1500, 10_000])).round(2))
        [1.   1.   0.37 0.03]

    See also: `kron`, `exponential_decay`.
    """

    def value(t: Any) -> Any:
        fallen = max_prob * jnp.exp(-decay * jnp.maximum(t - flat_start, 0))
        return jnp.maximum(fallen, min_prob)

    return value
