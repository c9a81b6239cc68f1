"""Schedules: functions of the step that are values. Any hyperparameter takes one."""

from gradtx.schedules.cosine import (
    cosine_annealing_schedule,
    cosine_decay_schedule,
    sgdr_schedule,
    warm_restarts_schedule,
    warmup_constant_schedule,
    warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule,
)
from gradtx.schedules.piecewise import (
    cosine_onecycle_schedule,
    join_schedules,
    linear_onecycle_schedule,
    piecewise_constant_schedule,
    piecewise_interpolate_schedule,
)
from gradtx.schedules.polynomial import (
    constant_schedule,
    exponential_decay,
    inverse_time_decay_schedule,
    linear_schedule,
    polynomial_schedule,
)
from gradtx.schedules.training import cyclic_schedule, inverse_sqrt_schedule, wsd_schedule

__all__ = [
    "constant_schedule",
    "cosine_annealing_schedule",
    "cosine_decay_schedule",
    "cosine_onecycle_schedule",
    "cyclic_schedule",
    "exponential_decay",
    "inverse_sqrt_schedule",
    "inverse_time_decay_schedule",
    "join_schedules",
    "linear_onecycle_schedule",
    "linear_schedule",
    "piecewise_constant_schedule",
    "piecewise_interpolate_schedule",
    "polynomial_schedule",
    "sgdr_schedule",
    "warm_restarts_schedule",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
    "wsd_schedule",
]
