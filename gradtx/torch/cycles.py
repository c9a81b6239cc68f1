"""PyTorch's schedulers that move the learning rate and the momentum in cycles, against each other.

`cycle = one_cycle_lr(...)` is the learning rate and `cycle.momentum` the momentum:
`sgd(lr=cycle, momentum=cycle.momentum)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from jax import Array

from gradtx.core.hyperparameters import Fraction, NonNegative, Positive, PositiveSteps
from gradtx.core.schedule import Schedule
from gradtx.torch.definitions import schedule_of

Number = float | Array


class Cycle(Schedule):
    """A schedule of the learning rate that comes with one of the momentum."""

    _for_users = (*Schedule._for_users, "momentum")

    @property
    def momentum(self) -> Schedule | None:
        """The momentum at each step, highest where the learning rate is lowest; None with
        cycle_momentum=False."""
        return self._turned(cycle_momentum=False) if self.cycle_momentum else None

    def _turned(self, cycle_momentum: bool) -> Schedule:
        """The same cycle, between the two momenta."""
        raise NotImplementedError


class Waves(Cycle):
    """`cyclic_lr`"""

    def _turned(self, cycle_momentum: bool) -> Schedule:
        low, high = self.max_momentum, self.base_momentum
        return self.replace(base_lr=low, max_lr=high, cycle_momentum=cycle_momentum)


class OneCycle(Cycle):
    """`one_cycle_lr`"""

    def _check(self) -> None:
        given = (self.total_steps, self.epochs, self.steps_per_epoch)
        if self.total_steps is None and None in given[1:]:
            raise ValueError(
                "torch.one_cycle_lr: give total_steps, or both epochs and steps_per_epoch, got "
                f"total_steps={given[0]}, epochs={given[1]}, steps_per_epoch={given[2]}"
            )

    def _turned(self, cycle_momentum: bool) -> Schedule:
        return self.replace(
            max_lr=self.base_momentum,
            div_factor=self.base_momentum / self.max_momentum,
            final_div_factor=1.0,
            cycle_momentum=cycle_momentum,
        )


@schedule_of(Waves)
def cyclic_lr(
    base_lr: NonNegative,
    max_lr: NonNegative,
    step_size_up: PositiveSteps = 2000,
    step_size_down: PositiveSteps | None = None,
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
    gamma: NonNegative = 1.0,
    scale_fn: Callable[[Array], Array] | None = None,
    scale_mode: Literal["cycle", "iterations"] = "cycle",
    cycle_momentum: bool = True,
    base_momentum: Fraction = 0.8,
    max_momentum: Fraction = 0.9,
) -> Callable[[Array], Array]:
    """Move the learning rate up and down in straight lines, as lr_scheduler.CyclicLR does.

        base_lr + (max_lr - base_lr) * height * scale

        height: from 0 to 1 in step_size_up steps, and back in step_size_down, for ever
        scale:  1 with "triangular", 1 / 2^(cycle - 1) with "triangular2", gamma^t with "exp_range"

    The momentum moves the other way, from max_momentum to base_momentum and back:
    `schedule.momentum`.

    Args:
        base_lr: the value at step 0 and at the end of each cycle.
        max_lr: the value in the middle of the first cycle.
        step_size_up: how many steps the way up takes.
        step_size_down: how many steps the way down takes; None means as many as the way up.
        mode: how the height of the cycles changes, if there is no scale_fn.
        gamma: the factor on the height at each step with "exp_range".
        scale_fn: a function that gives the scale, in place of a mode: of the number of the cycle, 1
            for the first, or of the step.
        scale_mode: whether scale_fn is a function of the number of the "cycle" or of "iterations".
        cycle_momentum: whether there is a `schedule.momentum`.
        base_momentum: the lowest momentum, in the middle of the first cycle.
        max_momentum: the momentum at step 0 and at the end of each cycle.

    Example:
        >>> cycle = gradtx.torch.cyclic_lr(0.5, 1.0, step_size_up=2, mode="triangular2")
        >>> [float(cycle(t)) for t in (0, 1, 2, 4, 6)]
        [0.5, 0.75, 1.0, 0.5, 0.75]
        >>> tx = gradtx.torch.sgd(lr=cycle, momentum=cycle.momentum)

    See also: `one_cycle_lr`, `gradtx.cyclic_schedule`.

    References: Smith, 2017, https://arxiv.org/abs/1506.01186
    """
    length = step_size_up + (step_size_up if step_size_down is None else step_size_down)
    turn = step_size_up / length

    def value(t: Array) -> Array:
        cycle = jnp.floor(1 + t / length)
        done = 1 + t / length - cycle
        height = jnp.where(done <= turn, done / turn, (done - 1) / (turn - 1))
        return base_lr + (max_lr - base_lr) * height * scale(cycle, t)

    def scale(cycle: Array, t: Array) -> Number:
        if scale_fn is not None:
            return scale_fn(cycle if scale_mode == "cycle" else t)
        if mode == "triangular":
            return 1.0
        return 1 / 2 ** (cycle - 1) if mode == "triangular2" else jnp.power(gamma, t)

    return value


@schedule_of(OneCycle)
def one_cycle_lr(
    max_lr: NonNegative,
    total_steps: PositiveSteps | None = None,
    epochs: PositiveSteps | None = None,
    steps_per_epoch: PositiveSteps | None = None,
    pct_start: Fraction = 0.3,
    anneal_strategy: Literal["cos", "linear"] = "cos",
    cycle_momentum: bool = True,
    base_momentum: Positive = 0.85,
    max_momentum: Positive = 0.95,
    div_factor: Positive = 25.0,
    final_div_factor: Positive = 1e4,
    three_phase: bool = False,
) -> Callable[[Array], Array]:
    """Run one cycle, up to max_lr and down to almost nothing, as lr_scheduler.OneCycleLR does.

        max_lr / div_factor -> max_lr -> max_lr / (div_factor * final_div_factor)
        at 0, pct_start * total_steps - 1 and total_steps - 1

    With three_phase it comes back to max_lr / div_factor as fast as it went up, and then goes on to
    the end. PyTorch's scheduler may take one step more, along the same curve, and raises at the
    next; here the value at total_steps - 1 stays. The momentum moves the other way, from
    max_momentum to base_momentum and back: `schedule.momentum`.

    Args:
        max_lr: the highest value.
        total_steps: how many steps the cycle takes.
        epochs: in place of total_steps, together with steps_per_epoch: their product is used.
        steps_per_epoch: how many steps an epoch has.
        pct_start: the fraction of the steps during which the value rises.
        anneal_strategy: whether the value moves in half cosine waves ("cos") or in straight lines
            ("linear").
        cycle_momentum: whether there is a `schedule.momentum`.
        base_momentum: the lowest momentum, where the value is max_lr.
        max_momentum: the momentum at the beginning and at the end.
        div_factor: how many times smaller than max_lr the first value is.
        final_div_factor: how many times smaller than the first value the last one is.
        three_phase: whether the value first comes down to where it began.

    Raises: ValueError without total_steps, or epochs and steps_per_epoch.

    Example:
        >>> cycle = gradtx.torch.one_cycle_lr(1.0, 101, div_factor=4, final_div_factor=8)
        >>> [round(float(cycle(t)), 4) for t in (0, 15, 100, 500)]
        [0.25, 0.6391, 0.0312, 0.0312]
        >>> tx = gradtx.torch.adam(lr=cycle, betas=(cycle.momentum, 0.999))

    See also: `gradtx.cosine_onecycle_schedule`, `cyclic_lr`.

    References: Smith & Topin, 2018, https://arxiv.org/abs/1708.07120
    """
    if total_steps is not None:
        length = total_steps
    elif epochs is not None and steps_per_epoch is not None:
        length = epochs * steps_per_epoch
    first = max_lr / div_factor
    turns = [0, pct_start * length - 1, length - 1]
    values = [first, max_lr, first / final_div_factor]
    if three_phase:
        turns.insert(2, 2 * pct_start * length - 2)
        values.insert(2, first)

    def value(t: Array) -> Array:
        t = jnp.where(t > length, length - 1, t)
        result = _between(t, turns[-2:], values[-2:], anneal_strategy)
        for i in reversed(range(len(turns) - 2)):
            phase = _between(t, turns[i : i + 2], values[i : i + 2], anneal_strategy)
            result = jnp.where(t <= turns[i + 1], phase, result)
        return result

    return value


def _between(t: Array, turns: list[Number], values: list[Number], strategy: str) -> Array:
    """From one value to the other, and on along the same curve."""
    (begin, end), (first, last) = turns, values
    done = (t - begin) / jnp.where(jnp.asarray(end) == begin, 1, end - begin)
    # The end is selected: where it is tiny, the compiled formula gets few of its digits right.
    if strategy == "linear":
        return jnp.where(t == end, first + (last - first), first + (last - first) * done)
    wave = last + (first - last) / 2 * (1 + jnp.cos(math.pi * done))
    return jnp.where(t == end, last, wave)
