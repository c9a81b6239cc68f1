"""``gradtx compare``: optimizers trained beside their Optax counterparts.

The first line says what was found; the table and the picture show how far apart the two end up,
and how fast each is.
"""

import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from gradtx.core.printing import plural
from gradtx.demo import naming
from gradtx.demo.curves import comparison_picture
from gradtx.demo.extras import load
from gradtx.demo.figures import ready_to_draw
from gradtx.demo.findings import findings
from gradtx.demo.optimizers import OPTIMIZERS, pick
from gradtx.demo.tasks import TASKS, make_task
from gradtx.demo.terminal import console, progress_bar, table_of
from gradtx.demo.trials import Plan, refuse_untrainable, trial


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
    for recipe in recipes:
        if recipe.name not in OPTIMIZERS:
            refuse_untrainable(recipe, task, steps)
    terminal = console()
    with progress_bar(len(recipes) * len(seeds) * steps * (2 if optax else 1)) as report:
        plan = Plan(task, steps, seeds, report)
        trials = [trial(recipe, plan, optax) for recipe in recipes]
    say = partial(terminal.print, highlight=False, soft_wrap=True, markup=False)
    say(findings(trials, steps))
    say(f"{task.about}; {steps} steps, {plural(len(seeds), 'seed')}")
    terminal.print(table_of(trials))
    comparison_picture(task, trials, out)
    say(f"wrote {out}")


def listing() -> str:
    """The tasks and the optimizers that the command knows."""
    lines = ["tasks"]
    for name, make in TASKS.items():
        lines.append(f"  {name:<18} {(make.__doc__ or '').splitlines()[0]}")
    lines.append("optimizers")
    for recipe in OPTIMIZERS.values():
        lines.append(f"  {recipe.name:<18} {recipe.ours('digits', 300)!r}")
    lines.append(
        "and any other transformation, lion or lion:3e-4; gradtx describe --list lists them"
    )
    names = ", ".join(naming.transformations())
    lines += textwrap.wrap(names, 96, initial_indent="  ", subsequent_indent="  ")
    return "\n".join(lines)
