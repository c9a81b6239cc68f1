"""``gradtx compare``: optimizers trained beside their Optax counterparts.

The table and the picture show how far apart the two end up, and how fast each is.
"""

from collections.abc import Sequence
from pathlib import Path

from gradtx.demo.curves import comparison_picture
from gradtx.demo.extras import load
from gradtx.demo.figures import ready_to_draw
from gradtx.demo.optimizers import OPTIMIZERS, pick
from gradtx.demo.tasks import TASKS, make_task
from gradtx.demo.terminal import console, plural, progress_bar, table_of
from gradtx.demo.trials import Plan, trial


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
    terminal = console()
    about = f"{task.about}; {steps} steps, {plural(len(seeds), 'seed')}"
    terminal.print(about, highlight=False, soft_wrap=True)
    with progress_bar(len(recipes) * len(seeds) * steps * (2 if optax else 1)) as report:
        plan = Plan(task, steps, seeds, report)
        trials = [trial(recipe, plan, optax) for recipe in recipes]
    terminal.print(table_of(trials))
    if optax:
        worst = max(trials, key=lambda trial: trial.difference or 0.0)
        terminal.print(
            f"largest relative difference from Optax after {steps} steps: "
            f"{worst.difference:.1e} ({worst.recipe.name})",
            highlight=False,
        )
    comparison_picture(task, trials, out)
    terminal.print(f"wrote {out}", highlight=False, soft_wrap=True)


def listing() -> str:
    """The tasks and the optimizers that the command knows."""
    lines = ["tasks"]
    for name, make in TASKS.items():
        lines.append(f"  {name:<18} {(make.__doc__ or '').splitlines()[0]}")
    lines.append("optimizers")
    for recipe in OPTIMIZERS.values():
        lines.append(f"  {recipe.name:<18} {recipe.ours('digits', 300)!r}")
    return "\n".join(lines)
