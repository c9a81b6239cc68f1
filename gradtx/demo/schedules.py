"""The picture of ``gradtx schedule``: the value of a schedule against the step."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from gradtx import Schedule
from gradtx.core.hyperparameters import Number
from gradtx.demo.figures import MUTED, PALETTE, new_figure, quiet, save

_ENDLESS = 200  # steps to show of a schedule without a length
_PERIODS = 4  # lengths to show of one that goes on past its length
_POINTS = 20_000  # in a picture, at most


def show_schedule(schedule: Schedule, steps: int | None, out: Path) -> None:
    """Draw a schedule's value from step 0 to ``steps``, by default a little past its end, and print
    a few of the values."""
    last = whole_length(schedule) if steps is None else steps
    at = _spread(last, _POINTS)
    _picture(str(schedule), *with_jumps(at, _values(schedule, at)), out)
    print(schedule)
    few = _spread(last, 8)
    for step, value in zip(few, _values(schedule, few), strict=True):
        print(f"  step {step:>6}  {value:.6g}")
    print(f"wrote {out}")


def whole_length(schedule: Schedule) -> int:
    """The steps until a schedule is constant, and a tenth more; some periods of one that never
    is."""
    length = _steps_in(schedule)
    horizon = _PERIODS * length if length else _ENDLESS
    at = _spread(horizon, _POINTS)
    (changes,) = np.nonzero(np.diff(_values(schedule, at)))
    last_change = int(at[changes[-1] + 1]) if len(changes) else horizon
    return min(horizon, last_change + max(1, round(last_change / 10)))


def with_jumps(at: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points of a line that jumps vertically where the value is constant before and after, so
    that the steps of a staircase are level."""
    level = np.diff(values) == 0
    before, after = np.append(True, level), np.append(level, True)
    jumps = np.arange(1, len(at))[(~level) & before[:-1] & after[1:]]
    return np.insert(at, jumps, at[jumps]), np.insert(values, jumps, values[jumps - 1])


def _steps_in(x: object) -> int:
    """The sum of the numbers of steps among the arguments of a schedule."""
    if not isinstance(x, Schedule):
        inside = x.values() if isinstance(x, Mapping) else x if isinstance(x, tuple | list) else ()
        return sum(map(_steps_in, inside))
    total = 0
    for name, value in x.arguments.items():
        kind = x.definition.parameters[name]
        if isinstance(kind, Number) and not kind.scheduled and value is not None:
            total += int(np.max(np.abs(value), initial=0))
        elif isinstance(value, Mapping) and value:
            total += int(max(value))
        total += _steps_in(value)
    return total


def _spread(last: int, count: int) -> np.ndarray:
    """At most ``count`` + 1 steps from 0 to ``last``, evenly spread."""
    return np.unique(np.linspace(0, last, min(last, count) + 1).astype(int))


def _values(schedule: Schedule, at: np.ndarray) -> np.ndarray:
    return np.asarray(schedule(jnp.asarray(at)))


def _picture(name: str, at: np.ndarray, values: np.ndarray, out: Path) -> None:
    figure = new_figure("schedule", 8.0, 4.2)
    axes = figure.add_subplot()
    quiet(axes, "\n".join(textwrap.wrap(name, 90)))
    axes.plot(at, values, color=PALETTE[0], linewidth=2.2)
    axes.fill_between(at, values, color=PALETTE[0], alpha=0.1, linewidth=0)
    axes.set_xlabel("step", color=MUTED)
    axes.set_xlim(0, at[-1])
    if values.min() >= 0:
        axes.set_ylim(0, 1.05 * float(values.max()) or None)
    save(figure, out)
