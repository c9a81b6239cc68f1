"""``gradtx compare``: every optimizer of the road beside its Optax counterpart.

Both start from the same parameters and see the same batches, so that what is left between
them is rounding; the table and the picture say how much. For the Adam family most of it is
Optax's, which takes 1 - b2^t from numbers close to 1; ``tests/demo`` measures it in float64.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import jax
import numpy as np

import gradtx
from gradtx.demo.curves import comparison_picture
from gradtx.demo.extras import load
from gradtx.demo.figures import ready_to_draw
from gradtx.demo.road import ROAD, Recipe, pick
from gradtx.demo.tasks import TASKS, Params, Task, make_task
from gradtx.demo.training import Trainer, relative_difference

Report = Callable[[str, int], None]  # (what is running, steps done since the last report)


@dataclass(frozen=True)
class Plan:
    """What every optimizer is given alike."""

    task: Task
    steps: int
    seeds: Sequence[int]
    report: Report


@dataclass(frozen=True)
class Record:
    """What training with one optimizer of one library brought, over all seeds."""

    losses: np.ndarray  # [seeds, steps], of each step's batch
    held_out: np.ndarray  # [seeds, 2]: loss and accuracy after the last step
    prepare_seconds: float  # to trace and compile
    steps_per_second: float  # in the middle chunk: a moment's load on the machine is not in it


@dataclass(frozen=True)
class Trial:
    """One optimizer in gradtx, and in Optax unless that was left out."""

    recipe: Recipe
    ours: Record
    theirs: Record | None = None
    differences: np.ndarray | None = None  # [seeds, chunks], relative, after each chunk

    @property
    def difference(self) -> float | None:
        """The largest relative difference after the last step."""
        return None if self.differences is None else float(self.differences[:, -1].max())


def compare(
    task_name: str,
    optimizers: Sequence[str] | None,
    steps: int | None,
    seeds: Sequence[int],
    out: Path,
    with_optax: bool,
) -> None:
    """Train, print the table, write the picture."""
    recipes = pick(optimizers)
    task = make_task(task_name)
    steps = steps or task.steps
    ready_to_draw(out, command="compare")
    optax = load("optax", command="compare") if with_optax else None
    console = _console()
    about = f"{task.about}; {steps} steps, {_plural(len(seeds), 'seed')}"
    console.print(about, highlight=False, soft_wrap=True)
    with _progress(len(recipes) * len(seeds) * steps * (2 if optax else 1)) as report:
        plan = Plan(task, steps, seeds, report)
        trials = [trial(recipe, plan, optax) for recipe in recipes]
    console.print(_table(trials))
    if optax:
        worst = max(trials, key=lambda trial: trial.difference or 0.0)
        console.print(
            f"largest relative difference from Optax after {steps} steps: "
            f"{worst.difference:.1e} ({worst.recipe.name})",
            highlight=False,
        )
    comparison_picture(task, trials, out)
    console.print(f"wrote {out}", highlight=False, soft_wrap=True)


def trial(recipe: Recipe, plan: Plan, optax: ModuleType | None) -> Trial:
    """Train one recipe in gradtx and, when the module is given, in Optax."""
    tx = recipe.ours(plan.task.name, plan.steps)
    ours, our_trail = train(tx, gradtx, recipe.name, plan)
    if optax is None:
        return Trial(recipe, ours)
    twin = recipe.theirs(optax, plan.task.name, plan.steps)
    theirs, their_trail = train(twin, optax, recipe.name, plan)
    apart = [relative_difference(p, q) for p, q in zip(our_trail, their_trail, strict=True)]
    return Trial(recipe, ours, theirs, np.reshape(apart, (len(plan.seeds), -1)))


def train(tx: Any, library: ModuleType, name: str, plan: Plan) -> tuple[Record, list[Params]]:
    """Train with one transformation, once a seed; the loop is compiled once for all.

    Also the parameters after each chunk, seed by seed.
    """
    task = plan.task
    label = f"{name} ({library.__name__})"
    plan.report(f"{label}: compiling", 0)
    trainer = Trainer(task, tx, library.apply_updates, plan.steps)
    score = jax.jit(lambda params, batch: (task.loss(params, batch), task.accuracy(params, batch)))
    losses, held_out, trail, seconds = [], [], [], []
    for seed in plan.seeds:
        for chunk in trainer.run(seed):
            losses.append(chunk.losses)
            trail.append(chunk.params)
            seconds.append(chunk.seconds)
            plan.report(label, len(chunk.losses))
        held_out.append([float(x) for x in score(trail[-1], task.held_out)])
    record = Record(
        losses=np.concatenate(losses).reshape(len(plan.seeds), plan.steps),
        held_out=np.array(held_out),
        prepare_seconds=trainer.prepare_seconds,
        steps_per_second=trainer.length / float(np.median(seconds)),
    )
    return record, trail


def listing() -> str:
    """The tasks and the optimizers that the command knows."""
    lines = ["tasks"]
    for name, make in TASKS.items():
        lines.append(f"  {name:<18} {(make.__doc__ or '').splitlines()[0]}")
    lines.append("optimizers")
    for recipe in ROAD.values():
        lines.append(f"  {recipe.name:<18} {recipe.ours('digits', 300)!r}")
    return "\n".join(lines)


# -------------------------------------------------------------------- on the terminal


def _console(stderr: bool = False) -> Any:
    console = load("rich.console", command="compare").Console(stderr=stderr)
    # A pipe has no width; a narrow terminal wraps lines better than a table drops digits.
    console.width = max(console.width, 90) if console.is_terminal else 100
    console.on_broken_pipe = _reader_is_gone
    return console


def _reader_is_gone() -> NoReturn:
    """Left to the command, which knows how to end then; rich would end it by itself."""
    raise BrokenPipeError


@contextmanager
def _progress(total: int) -> Iterator[Report]:
    """A bar on standard error, so that standard output holds the table alone."""
    rich = load("rich.progress", command="compare")
    columns = (
        rich.BarColumn(bar_width=None),
        rich.MofNCompleteColumn(),
        rich.TextColumn("steps"),
        rich.TimeElapsedColumn(),
        rich.TextColumn("{task.description}", justify="left"),
    )
    with rich.Progress(*columns, console=_console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=total)

        def report(what: str, steps: int) -> None:
            progress.update(bar, description=f"{what:<40}", advance=steps)

        yield report


def _table(trials: Sequence[Trial]) -> Any:
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


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
