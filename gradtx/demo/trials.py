"""One optimizer trained in gradtx and, beside it, in Optax.

Both start from the same parameters and see the same batches, so that they differ only by rounding.
For the Adam family most of the error is Optax's, which computes 1 - b2^t by subtracting numbers
close to 1; ``tests/demo`` measures it in float64.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import TypeVar

import numpy as np

import gradtx
from gradtx.demo.errors import CommandError
from gradtx.demo.optimizers import Optimizer, Recipe
from gradtx.demo.tasks import Task
from gradtx.demo.training import Chunk, Trainer, check, relative_difference

T = TypeVar("T")
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
    chunk_seconds: np.ndarray  # of every chunk


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
    """Train one recipe in gradtx and, when the module is given and has it, in Optax.

    Both train a chunk in turn, so that what else the machine does slows both.
    """
    task, steps = plan.task, plan.steps
    trainers = [_trainer(recipe.name, recipe.ours(task.name, steps), gradtx, plan)]
    twin = _twin(recipe, plan, optax) if optax else None
    if optax and twin is not None:
        trainers.append(_trainer(recipe.name, twin, optax, plan))
    runs: list[list[Chunk]] = [[] for _ in trainers]
    for seed in plan.seeds:
        for chunks in in_turn([trainer.run(seed) for trainer in trainers]):
            for run, chunk in zip(runs, chunks, strict=True):
                run.append(chunk)
                plan.report(recipe.name, len(chunk.losses))
    ours, *theirs = map(partial(_record, plan), trainers, runs)
    if not theirs:
        return Trial(recipe, ours)
    apart = [relative_difference(p.params, q.params) for p, q in zip(*runs, strict=True)]
    return Trial(recipe, ours, theirs[0], np.reshape(apart, (len(plan.seeds), -1)))


def refuse_untrainable(recipe: Recipe, task: Task, steps: int) -> None:
    """Raise, in one line, what would be raised when this recipe is trained."""
    try:
        check(task, recipe.ours(task.name, steps), gradtx)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise CommandError(f"{recipe.name} cannot train {task.name}: {reason}") from None


def _twin(recipe: Recipe, plan: Plan, optax: ModuleType) -> Optimizer | None:
    """The recipe in Optax, if Optax has it and can train with it."""
    twin = recipe.theirs(optax, plan.task.name, plan.steps)
    try:
        if twin is not None:
            check(plan.task, twin, optax)
    except Exception:  # whatever Optax says of it
        return None
    return twin


def _trainer(name: str, tx: Optimizer, library: ModuleType, plan: Plan) -> Trainer:
    plan.report(f"{name} ({library.__name__}): compiling", 0)
    return Trainer(plan.task, tx, library, plan.steps)


def in_turn(runs: Sequence[Iterator[T]]) -> Iterator[list[T]]:
    """The next chunk of each run; the run that goes first changes."""
    for turn in itertools.count():
        order = range(len(runs))[:: 1 if turn % 2 else -1]
        try:
            chunks = {i: next(runs[i]) for i in order}
        except StopIteration:  # they have equally many
            return
        yield [chunks[i] for i in range(len(runs))]


def _record(plan: Plan, trainer: Trainer, chunks: Sequence[Chunk]) -> Record:
    ends = [chunk for chunk in chunks if chunk.steps == plan.steps]
    return Record(
        losses=np.concatenate([chunk.losses for chunk in chunks]).reshape(-1, plan.steps),
        held_out=np.array([plan.task.score(chunk.params) for chunk in ends]),
        prepare_seconds=trainer.prepare_seconds,
        chunk_seconds=np.array([chunk.seconds for chunk in chunks]),
        steps_per_second=trainer.length / float(np.median([chunk.seconds for chunk in chunks])),
    )
