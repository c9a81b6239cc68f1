"""PyTorch's learning rate schedulers as functions of the step.

PyTorch's schedulers take the first learning rate from the optimizer; here it comes first, `lr`. t
is the number of earlier steps, each of which is followed by `scheduler.step()`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import Array

from gradtx.core.hyperparameters import AtLeastOne, Fraction, NonNegative, PositiveSteps, Steps
from gradtx.core.schedule import AnySchedule, Schedule
from gradtx.schedules.cosine import (
    cosine_annealing_schedule,
    warm_restarts_schedule,
)
from gradtx.schedules.piecewise import Boundaries, Joined, joined
from gradtx.schedules.polynomial import whole_periods
from gradtx.schedules.transition import polynomial, straight, transition
from gradtx.torch.definitions import schedule, schedule_of


@schedule
def step_lr(
    lr: NonNegative, step_size: PositiveSteps, gamma: NonNegative = 0.1
) -> Callable[[Array], Array]:
    """Multiply the learning rate by gamma every step_size steps, as lr_scheduler.StepLR does.

        lr * gamma^floor(t / step_size)

    Args:
        lr: the value at step 0.
        step_size: how many steps the value stays.
        gamma: the factor on it after that; below 1 to decrease.

    Example:
        >>> schedule = gradtx.torch.step_lr(1.0, step_size=10, gamma=0.5)
        >>> [float(schedule(t)) for t in (0, 9, 10, 20)]
        [1.0, 1.0, 0.5, 0.25]

    See also: `gradtx.exponential_decay` with staircase=True.
    """
    return lambda t: lr * jnp.power(gamma, whole_periods(t, step_size))


@schedule
def multi_step_lr(
    lr: NonNegative, milestones: Boundaries, gamma: NonNegative = 0.1
) -> Callable[[Array], Array]:
    """Multiply the learning rate by gamma at each milestone, as lr_scheduler.MultiStepLR does.

        lr * gamma^(the number of milestones up to t)

    Args:
        lr: the value at step 0.
        milestones: the steps at which the value is multiplied once more, in any order; one that is
            given twice counts twice.
        gamma: the factor at each milestone.

    Example:
        >>> schedule = gradtx.torch.multi_step_lr(1.0, milestones=[10, 15], gamma=0.5)
        >>> [float(schedule(t)) for t in (0, 9, 10, 15)]
        [1.0, 1.0, 0.5, 0.25]

    See also: `gradtx.piecewise_constant_schedule`.
    """

    def value(t: Array) -> Array:
        passed = [jnp.where(t >= milestone, 1.0, 0.0) for milestone in milestones]
        return lr * jnp.power(gamma, sum(passed, jnp.zeros_like(t)))

    return value


@schedule
def constant_lr(
    lr: NonNegative, factor: Fraction = 1 / 3, total_iters: Steps = 5
) -> Callable[[Array], Array]:
    """Multiply the learning rate by a factor for some steps, as lr_scheduler.ConstantLR does.

        lr * factor where t < total_iters, then lr

    Args:
        lr: the value from step total_iters on.
        factor: the factor on it until then. With 0, PyTorch cannot come back to lr and fails; here
            the value does.
        total_iters: for how many steps the factor holds. With 0 the factor stays for good, as it
            does in PyTorch.

    Example:
        >>> schedule = gradtx.torch.constant_lr(1.0, factor=0.5, total_iters=4)
        >>> [float(schedule(t)) for t in (0, 3, 4, 100)]
        [0.5, 0.5, 1.0, 1.0]

    See also: `gradtx.join_schedules`.
    """
    first = lr * factor
    return lambda t: jnp.where((t < total_iters) | _is_zero(total_iters), first, lr)


@schedule
def linear_lr(
    lr: NonNegative,
    start_factor: Fraction = 1 / 3,
    end_factor: Fraction = 1.0,
    total_iters: Steps = 5,
) -> Callable[[Array], Array]:
    """Change the factor of the learning rate in a straight line, as lr_scheduler.LinearLR does.

        lr * (start_factor + (end_factor - start_factor) * min(t / total_iters, 1))

    Args:
        lr: what the factor multiplies.
        start_factor: the factor at step 0.
        end_factor: the factor from step total_iters on.
        total_iters: how many steps the change takes. With 0 the first factor stays for good, as it
            does in PyTorch.

    Example:
        >>> schedule = gradtx.torch.linear_lr(1.0, start_factor=0.5, total_iters=4)
        >>> [float(schedule(t)) for t in (0, 1, 2, 4, 100)]
        [0.5, 0.625, 0.75, 1.0, 1.0]

    See also: `gradtx.linear_schedule`, `gradtx.warmup_constant_schedule`.
    """
    first, last = lr * start_factor, lr * end_factor

    def value(t: Array) -> Array:
        changing = transition(t, first, last, total_iters, straight)
        return jnp.where(_is_zero(total_iters), first, changing)

    return value


@schedule
def exponential_lr(lr: NonNegative, gamma: NonNegative) -> Callable[[Array], Array]:
    """Multiply the learning rate by gamma at every step, as lr_scheduler.ExponentialLR does.

        lr * gamma^t

    Args:
        lr: the value at step 0.
        gamma: the factor on it at each step; below 1 to decrease.

    Example:
        >>> schedule = gradtx.torch.exponential_lr(1.0, gamma=0.5)
        >>> [float(schedule(t)) for t in (0, 1, 2, 3)]
        [1.0, 0.5, 0.25, 0.125]

    See also: `gradtx.exponential_decay`.
    """
    return lambda t: lr * jnp.power(gamma, t)


@schedule
def polynomial_lr(
    lr: NonNegative, total_iters: Steps = 5, power: NonNegative = 1.0
) -> Callable[[Array], Array]:
    """Let the learning rate fall to 0 as a power of the steps left, as lr_scheduler.PolynomialLR
    does.

        lr * (1 - min(t / total_iters, 1))^power

    Args:
        lr: the value at step 0.
        total_iters: how many steps it takes to reach 0. With 0 the value stays at lr, as in
            PyTorch.
        power: 1 is a straight line; larger falls faster at first. With 0 the value stays at lr.

    Example:
        >>> schedule = gradtx.torch.polynomial_lr(1.0, total_iters=4, power=2.0)
        >>> [float(schedule(t)) for t in (0, 2, 4, 100)]
        [1.0, 0.25, 0.0, 0.0]

    See also: `gradtx.polynomial_schedule`.
    """

    def value(t: Array) -> Array:
        falling = transition(t, lr, 0.0, total_iters, polynomial(power))
        return jnp.where(_is_zero(total_iters) | _is_zero(power), lr, falling)

    return value


def _is_zero(number: float | Array) -> Array:
    """With total_iters = 0 the end is never reached: PyTorch checks for it after the first step."""
    return jnp.asarray(number) == 0


@schedule
def cosine_annealing_lr(
    lr: NonNegative,
    T_max: PositiveSteps,  # noqa: N803
    eta_min: NonNegative = 0.0,
) -> Schedule:
    """Anneal the learning rate along a cosine, as lr_scheduler.CosineAnnealingLR does.

        eta_min + (lr - eta_min) * (1 + cos(pi * t / T_max)) / 2

    Beyond T_max it rises again, to lr at 2 * T_max.

    Args:
        lr: the value at step 0.
        T_max: how many steps it takes to reach eta_min.
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
        T_mult: the factor on the time between restarts at each of them; 1 keeps it.
        eta_min: the value that is approached before a restart.

    Example:
        >>> schedule = gradtx.torch.cosine_annealing_warm_restarts(1.0, T_0=10, T_mult=2)
        >>> [round(float(schedule(t)), 4) for t in (0, 5, 10, 20, 30)]
        [1.0, 0.5, 1.0, 0.5, 1.0]

    See also: `gradtx.warm_restarts_schedule`, `gradtx.sgdr_schedule`.

    References: Loshchilov & Hutter, 2017, https://arxiv.org/abs/1608.03983
    """
    return warm_restarts_schedule(lr, T_0, T_mult, eta_min)


@schedule_of(Joined)
def sequential_lr(
    schedulers: Sequence[AnySchedule], milestones: Boundaries
) -> Callable[[Array], Array]:
    """Run schedules one after the other, as lr_scheduler.SequentialLR does.

        schedulers[i](t - milestones[i - 1])        i: the number of milestones up to t

    Args:
        schedulers: the schedules in their order, each with a learning rate of its own.
        milestones: the steps at which the next one begins, at its own step 0; one fewer than there
            are schedules.

    Raises: ValueError where the numbers of schedules and milestones do not match.

    Example:
        >>> warmup = gradtx.torch.linear_lr(1.0, start_factor=0.5, total_iters=4)
        >>> decay = gradtx.torch.exponential_lr(1.0, gamma=0.5)
        >>> schedule = gradtx.torch.sequential_lr([warmup, decay], milestones=[4])
        >>> [float(schedule(t)) for t in (0, 2, 4, 5, 6)]
        [0.5, 0.75, 1.0, 0.5, 0.25]

    See also: `gradtx.join_schedules`. A ChainedScheduler is a product: `linear_lr(1.0) *
    exponential_lr(0.1, 0.9)`.
    """
    return joined(schedulers, milestones)
