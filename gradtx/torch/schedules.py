"""PyTorch's learning rate schedulers as functions of the step."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from gradtx.core.hyperparameters import AtLeastOne, NonNegative, PositiveSteps
from gradtx.core.schedule import Schedule
from gradtx.schedules.cosine import (
    cosine_annealing_schedule,
    warm_restarts_schedule,
)
from gradtx.schedules.polynomial import whole_periods
from gradtx.torch.definitions import schedule


@schedule
def step_lr(
    lr: NonNegative, step_size: PositiveSteps, gamma: NonNegative = 0.1
) -> Callable[[Array], Array]:
    """Multiply the learning rate by gamma every step_size steps, as lr_scheduler.StepLR does.

        lr * gamma^floor(t / step_size)

    t is the number of earlier steps.

    Args:
        lr: the value at step 0.
        step_size: how many steps the value stays.
        gamma: what it is multiplied by then; below 1 to decrease.

    Example:
        >>> schedule = gradtx.torch.step_lr(1.0, step_size=10, gamma=0.5)
        >>> [float(schedule(t)) for t in (0, 9, 10, 20)]
        [1.0, 1.0, 0.5, 0.25]

    See also: `gradtx.exponential_decay` with staircase=True.
    """
    return lambda t: lr * jnp.power(gamma, whole_periods(t, step_size))


@schedule
def cosine_annealing_lr(
    lr: NonNegative,
    T_max: PositiveSteps,  # noqa: N803
    eta_min: NonNegative = 0.0,
) -> Schedule:
    """Anneal the learning rate along a cosine, as lr_scheduler.CosineAnnealingLR does.

        eta_min + (lr - eta_min) * (1 + cos(pi * t / T_max)) / 2

    t is the number of earlier steps. Beyond T_max it rises again, to lr at 2 * T_max.

    Args:
        lr: the value at step 0.
        T_max: how many steps it takes until eta_min.
        eta_min: the smallest value.

    Example:
        >>> schedule = gradtx.torch.cosine_annealing_lr(1.0, T_max=10)
        >>> [round(float(schedule(t)), 4) for t in (0, 5, 10, 20)]
        [1.0, 0.5, 0.0, 1.0]

    See also: `gradtx.cosine_decay_schedule`, which stays at the smallest value.

    References: Loshchilov & Hutter, 2017, https://arxiv.org/abs/1608.03983
    """
    return cosine_annealing_schedule(lr, T_max, eta_min)


@schedule
def cosine_annealing_warm_restarts(
    lr: NonNegative,
    T_0: PositiveSteps,  # noqa: N803
    T_mult: AtLeastOne = 1,  # noqa: N803
    eta_min: NonNegative = 0.0,
) -> Schedule:
    """Anneal the learning rate along cosines, as lr_scheduler.CosineAnnealingWarmRestarts does.

        eta_min + (lr - eta_min) * (1 + cos(pi * t_i / T_i)) / 2,     T_i = T_0 * T_mult^i

    t_i is the number of steps since the last restart, at which the value jumps back to lr.

    Args:
        lr: the value at step 0, and after each restart.
        T_0: how many steps it takes until the first restart.
        T_mult: what the time between restarts is multiplied by at each; 1 keeps it.
        eta_min: the value that is approached before a restart.

    Example:
        >>> schedule = gradtx.torch.cosine_annealing_warm_restarts(1.0, T_0=10, T_mult=2)
        >>> [round(float(schedule(t)), 4) for t in (0, 5, 10, 20, 30)]
        [1.0, 0.5, 1.0, 0.5, 1.0]

    See also: `gradtx.warm_restarts_schedule`, `gradtx.sgdr_schedule`.

    References: Loshchilov & Hutter, 2017, https://arxiv.org/abs/1608.03983
    """
    return warm_restarts_schedule(lr, T_0, T_mult, eta_min)
