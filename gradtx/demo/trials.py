"""One optimizer trained in gradtx and, beside it, in Optax.

Both start from the same parameters and see the same batches, so that they differ only by rounding.
For the Adam family most of the error is Optax's, which computes 1 - b2^t by subtracting numbers
close to 1; ``tests/demo`` measures it in float64.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

import jax
import numpy as np

import gradtx
from gradtx.demo.optimizers import Optimizer, Recipe
from gradtx.demo.tasks import Params, Task
from gradtx.demo.training import Trainer, relative_difference

Report = Callable[[str, int], None]  # (what is running, steps done since the last report)


@dataclass(frozen=True)
class Plan:
    """What is the same for every optimizer."""

    task: Task
    steps: int
    seeds: Sequence[int]
    report: Report


@dataclass(frozen=True)
class Record:
    """The results of training with one optimizer of one library, over all seeds."""

    losses: np.ndarray  # [seeds, steps], on each step's batch
    held_out: np.ndarray  # [seeds, 2]: loss and accuracy after the last step
    prepare_seconds: float  # to trace and compile
    steps_per_second: float  # in the median chunk, to ignore brief load on the machine


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


def train(tx: Optimizer, library: ModuleType, name: str, plan: Plan) -> tuple[Record, list[Params]]:
    """Train with one transformation, once per seed, in a loop that is compiled once for all.

    Returns the record and the parameters after each chunk, seed by seed.
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
