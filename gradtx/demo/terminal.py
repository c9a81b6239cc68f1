"""What ``gradtx compare`` shows on the terminal: a bar while it trains, then a table."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np

from gradtx.demo.extras import load
from gradtx.demo.trials import Report, Trial

_WIDEST = 32  # characters of a construction in a line of the table


def console(stderr: bool = False) -> Any:
    """Where the command writes, wide enough for the table."""
    terminal = load("rich.console", command="compare").Console(stderr=stderr)
    # A pipe has no width; in a narrow terminal wrapped lines are better than truncated digits.
    terminal.width = max(terminal.width, 90) if terminal.is_terminal else 100
    terminal.on_broken_pipe = _reader_is_gone
    return terminal


def _reader_is_gone() -> NoReturn:
    """Raise, so that the command ends as it should; rich would exit by itself."""
    raise BrokenPipeError


@contextmanager
def progress_bar(total: int) -> Iterator[Report]:
    """A bar on standard error, so that standard output holds only the table."""
    rich = load("rich.progress", command="compare")
    columns = (
        rich.BarColumn(bar_width=None),
        rich.MofNCompleteColumn(),
        rich.TextColumn("steps"),
        rich.TimeElapsedColumn(),
        rich.TextColumn("{task.description}", justify="left"),
    )
    with rich.Progress(*columns, console=console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=total)

        def report(what: str, steps: int) -> None:
            progress.update(bar, description=f"{what:<40}", advance=steps)

        yield report


def table_of(trials: Sequence[Trial]) -> Any:
    """A row for each trial."""
    rich = load("rich.table", command="compare")
    box = load("rich.box", command="compare").SIMPLE_HEAD
    table = rich.Table(box=box, pad_edge=False, padding=(0, 1, 0, 0))
    paired = any(each.theirs for each in trials)
    table.add_column("optimizer", vertical="bottom", overflow="fold", max_width=_WIDEST)
    for header in _headers(paired):
        table.add_column(header, justify="right", vertical="bottom", no_wrap=True)
    text = load("rich.text", command="compare").Text  # what is in brackets is no markup
    for each in trials:
        table.add_row(text(each.recipe.name), *_cells(each, paired))
    return table


def _headers(paired: bool) -> list[str]:
    libraries = ["\ngradtx", "\nOptax"] if paired else [""]
    return [
        "held-out\nloss",
        "held-out\naccuracy",
        *(f"steps/s{library}" for library in libraries),
        *(f"trace +\ncompile{library}" for library in libraries),
        *(["largest\ndifference\nfrom Optax"] if paired else []),
    ]


def _cells(trial: Trial, paired: bool) -> list[str]:
    """What is under the headers; a dash for what Optax does not have."""
    records = [trial.ours, trial.theirs] if paired else [trial.ours]
    loss, accuracy = trial.ours.held_out.T
    cells = [_spread(loss, "{:.3f}"), _spread(100 * accuracy, "{:.1f}") + " %"]
    cells += [f"{each.steps_per_second:,.0f}" if each else "-" for each in records]
    cells += [f"{each.prepare_seconds:.2f} s" if each else "-" for each in records]
    if paired:
        cells.append("-" if trial.difference is None else f"{trial.difference:.1e}")
    return cells


def _spread(values: np.ndarray, style: str) -> str:
    """The mean over seeds, with the standard deviation when there are several."""
    mean = style.format(values.mean())
    return mean if len(values) == 1 else f"{mean} ± {style.format(values.std(ddof=1))}"
