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
    """lr * gamma^floor(t / step_size), torch.optim.lr_scheduler.StepLR"""
    return lambda t: lr * jnp.power(gamma, whole_periods(t, step_size))


@schedule
def cosine_annealing_lr(
    lr: NonNegative,
    T_max: PositiveSteps,  # noqa: N803
    eta_min: NonNegative = 0.0,
) -> Schedule:
    """eta_min + (lr - eta_min) * (1 + cos(pi * t / T_max)) / 2, also beyond T_max.

    torch.optim.lr_scheduler.CosineAnnealingLR
    """
    return cosine_annealing_schedule(lr, T_max, eta_min)


@schedule
def cosine_annealing_warm_restarts(
    lr: NonNegative,
    T_0: PositiveSteps,  # noqa: N803
    T_mult: AtLeastOne = 1,  # noqa: N803
    eta_min: NonNegative = 0.0,
) -> Schedule:
    """eta_min + (lr - eta_min) * (1 + cos(pi * t_i / T_i)) / 2, T_i = T_0 * T_mult^i.

    t_i is the number of steps since the last restart.
    torch.optim.lr_scheduler.CosineAnnealingWarmRestarts
    """
    return warm_restarts_schedule(lr, T_0, T_mult, eta_min)
