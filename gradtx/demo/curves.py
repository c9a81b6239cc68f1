"""The picture of ``gradtx compare``: loss, and distance from Optax, against the step."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gradtx.demo.extras import load
from gradtx.demo.figures import (
    INK,
    MUTED,
    PALETTE,
    End,
    headline,
    label_ends,
    new_figure,
    quiet,
    save,
    short,
)
from gradtx.demo.optimizers import Family
from gradtx.demo.tasks import Task
from gradtx.demo.trials import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FLOOR = 1e-8  # smaller differences, zero included, are drawn at this height


def comparison_picture(task: Task, trials: Sequence[Trial], out: Path) -> None:
    """A column per family: the loss above and, with Optax, the difference from it below."""
    families = [f for f in Family if any(trial.recipe.family is f for trial in trials)]
    paired = any(trial.theirs is not None for trial in trials)
    figure = new_figure("compare", 1.0 + 4.6 * len(families), 6.8 if paired else 5.0)
    rows = figure.subplots(
        2 if paired else 1,
        len(families),
        sharex=True,
        sharey="row",
        squeeze=False,
        gridspec_kw={"height_ratios": [2.4, 1] if paired else [1]},
    )
    for column, family in enumerate(families):
        mine = [trial for trial in trials if trial.recipe.family is family]
        others = [trial for trial in trials if trial.recipe.family is not family]
        _losses(rows[0][column], family.value, mine, others)
        if paired:
            _differences(rows[1][column], mine)
        rows[-1][column].set_xlabel("step", color=MUTED)
    _loss_scale(rows[0][0], [trial.ours.losses for trial in trials])
    rows[0][0].set_ylabel("training loss (nats)", color=MUTED)
    if paired:
        _difference_scale(rows[1][0])
        rows[1][0].set_ylabel("relative difference\nfrom Optax", color=MUTED)
    for column, family in enumerate(families):  # only now are the scales final
        mine = [trial for trial in trials if trial.recipe.family is family]
        ends = [
            End(short(trial.recipe.name), _curve(trial.ours.losses)[1][-1], color)
            for trial, color in _coloured(mine)
        ]
        label_ends(rows[0][column], ends)
    dashes = "; the black dashes on it are the same in Optax" if paired else ""
    rest = "; grey lines are those of the other panels" if len(families) > 1 else ""
    how = f"A colour is an optimizer in gradtx, named at its end{dashes}{rest}."
    headline(figure, f"Training on {task.name}", f"{task.about}. {how}")
    save(figure, out)


def _coloured(trials: Sequence[Trial]) -> list[tuple[Trial, str]]:
    return [(trial, PALETTE[i % len(PALETTE)]) for i, trial in enumerate(trials)]


def _losses(axes: "Axes", title: str, trials: Sequence[Trial], others: Sequence[Trial]) -> None:
    quiet(axes, title)
    for trial in others:  # those of the other panels, for comparison
        axes.plot(*_curve(trial.ours.losses), color="#cfcfcf", linewidth=0.7, zorder=1)
    for trial, color in _coloured(trials):
        smooth = _smooth(trial.ours.losses)
        steps, mean = _curve(trial.ours.losses)
        axes.plot(steps, mean, color=color, linewidth=2.6, alpha=0.85, zorder=2)
        if len(smooth) > 1:
            axes.fill_between(steps, smooth.min(0), smooth.max(0), color=color, alpha=0.12, lw=0)
        if trial.theirs is not None:
            x, y = _curve(trial.theirs.losses)
            axes.plot(x, y, color=INK, linewidth=1.1, dashes=(2, 5), zorder=3)
        axes.set_xlim(0, steps[-1])


def _differences(axes: "Axes", trials: Sequence[Trial]) -> None:
    quiet(axes)
    for trial, color in _coloured(trials):
        if trial.differences is None:
            continue
        worst = np.maximum(trial.differences.max(0), _FLOOR)
        at = np.linspace(0, trial.ours.losses.shape[1], len(worst) + 1)[1:]
        axes.plot(at, worst, color=color, linewidth=1.4, marker=".", markersize=4)


def _loss_scale(axes: "Axes", losses: Sequence[np.ndarray]) -> None:
    """Make the loss axis logarithmic, with plain numbers on it."""
    smooth = np.concatenate([_smooth(each).mean(0) for each in losses])
    smooth = smooth[np.isfinite(smooth)]
    wide = smooth.size and smooth.max() > 10 * smooth.min()
    ticker = load("matplotlib.ticker", command="compare")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(
        ticker.LogLocator(subs=(1, 3) if wide else (1, 1.5, 2, 2.5, 3, 4, 5, 7))
    )
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_locator(ticker.NullLocator())


def _difference_scale(axes: "Axes") -> None:
    """Make the difference axis logarithmic, with "equal" at the floor."""
    top = max(2 * axes.get_ylim()[1], 3e-5)
    axes.set_yscale("log")
    axes.set_ylim(_FLOOR * 0.5, top)
    ticks = [10.0**p for p in range(-7, 1) if 10.0**p < top]
    axes.set_yticks([_FLOOR, *ticks], ["equal", *(f"{tick:.0e}" for tick in ticks)])
    axes.minorticks_off()


def _curve(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[seeds, steps] -> the steps from 1, and the smoothed mean over seeds."""
    return np.arange(1, losses.shape[1] + 1), _smooth(losses).mean(0)


def _smooth(losses: np.ndarray) -> np.ndarray:
    """[seeds, steps] -> running means over a twentieth of the steps: a batch's loss is noisy."""
    window = max(1, losses.shape[1] // 20)
    sums = np.cumsum(losses, axis=1)
    sums[:, window:] -= sums[:, :-window].copy()
    return sums / np.minimum(np.arange(1, losses.shape[1] + 1), window)
