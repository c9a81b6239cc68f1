"""The picture of ``gradtx schedule``: the values of schedules against the step."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from gradtx import Schedule
from gradtx.core.hyperparameters import Number
from gradtx.demo.errors import CommandError
from gradtx.demo.figures import MUTED, PALETTE, new_figure, quiet, save, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ENDLESS = 200  # steps to show of a schedule without a length
_PERIODS = 4  # lengths to show of one that goes on past its length
_POINTS = 20_000  # in a picture, at most
_DASHES: Sequence[Any] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (6, 1.5, 1.5, 1.5)))


class Drawn(NamedTuple):
    """A schedule, what it is called in the picture, and the points of its line."""

    name: str
    at: np.ndarray
    values: np.ndarray


def show_schedules(
    schedules: Mapping[str, Schedule], steps: int | None, out: Path, log: bool = False
) -> None:
    """Draw the values of schedules, by name, from step 0 to ``steps``, by default each to a little
    past its own end, and print a few of the values."""
    drawn = []
    for name, schedule in schedules.items():
        last = whole_length(schedule) if steps is None else steps
        at = _spread(last, _POINTS)
        drawn.append(Drawn(name, at, _values(schedule, at)))
    if log and not any((each.values > 0).any() for each in drawn):
        raise CommandError("--log needs positive values, and there are none")
    for schedule, each in zip(schedules.values(), drawn, strict=True):
        print(schedule)
        few = _spread(int(each.at[-1]), 8)
        for step, value in zip(few, _values(schedule, few), strict=True):
            print(f"  step {step:>6}  {value:.6g}")
    _picture(drawn, out, log)
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


def has_stairs(values: np.ndarray) -> bool:
    """Whether the values jump somewhere, and are level before and after."""
    level = np.diff(values) == 0
    before, after = np.append(True, level[:-1]), np.append(level[1:], True)
    return bool((~level & before & after).any())


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


def _picture(drawn: Sequence[Drawn], out: Path, log: bool) -> None:
    one = len(drawn) == 1
    figure = new_figure("schedule", 8.0, 4.2 if one else 4.4 + 0.2 * len(drawn))
    axes = figure.add_subplot()
    quiet(axes, "\n".join(textwrap.wrap(drawn[0].name, 90)) if one else "")
    for i, each in enumerate(drawn):
        _line(axes, each, PALETTE[i % len(PALETTE)], _DASHES[i % len(_DASHES)], filled=one)
    axes.set_xlabel("step", color=MUTED)
    axes.set_xlim(0, max(each.at[-1] for each in drawn))
    if log:
        axes.set_yscale("log", nonpositive="mask")
    elif all(each.values.min() >= 0 for each in drawn):
        axes.set_ylim(0, 1.05 * max(float(each.values.max()) for each in drawn) or None)
    if not one:
        figure.legend(loc="outside upper left", frameon=False, fontsize=9, handlelength=3.2)
    save(figure, out)


def _line(axes: "Axes", drawn: Drawn, color: str, dashes: Any, filled: bool) -> None:
    """The values as a curve or, if there are stairs among them, each level until the next."""
    stairs = has_stairs(drawn.values)
    axes.plot(
        drawn.at,
        drawn.values,
        drawstyle="steps-post" if stairs else "default",
        label=short(drawn.name, 95),
        color=color,
        linestyle=dashes,
        linewidth=2.2,
    )
    if filled:
        step: Any = "post" if stairs else None
        axes.fill_between(drawn.at, drawn.values, step=step, color=color, alpha=0.1, linewidth=0)
