"""What ``gradtx compare`` shows on the terminal: a bar while it trains, then a table."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np

from gradtx.demo.extras import load
from gradtx.demo.trials import Report, Trial


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
    for header in _headers(paired=trials[0].theirs is not None):
        table.add_column(header, justify="right", vertical="bottom", no_wrap=True)
    table.columns[0].justify = "left"
    for each in trials:
        records = [each.ours] if each.theirs is None else [each.ours, each.theirs]
        loss, accuracy = each.ours.held_out.T
        cells = [_spread(loss, "{:.3f}"), _spread(100 * accuracy, "{:.1f}") + " %"]
        cells += [f"{record.steps_per_second:,.0f}" for record in records]
        cells += [f"{record.prepare_seconds:.2f} s" for record in records]
        cells += [] if each.difference is None else [f"{each.difference:.1e}"]
        table.add_row(each.recipe.name, *cells)
    return table


def _headers(paired: bool) -> list[str]:
    libraries = ["\ngradtx", "\nOptax"] if paired else [""]
    return [
        "optimizer",
        "held-out\nloss",
        "held-out\naccuracy",
        *(f"steps/s{library}" for library in libraries),
        *(f"trace +\ncompile{library}" for library in libraries),
        *(["largest\ndifference\nfrom Optax"] if paired else []),
    ]


def _spread(values: np.ndarray, style: str) -> str:
    """The mean over seeds, with the standard deviation when there are several."""
    mean = style.format(values.mean())
    return mean if len(values) == 1 else f"{mean} ± {style.format(values.std(ddof=1))}"


def plural(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
