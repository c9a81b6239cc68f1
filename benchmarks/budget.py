"""A run within a given time: batches of cases in the order of their importance, then the checks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import numpy as np

from benchmarks.agreement import CHECKS, Agreement, agreements
from benchmarks.ahead import Programs, compile_programs, side_by_side
from benchmarks.measure import Pace, collect_garbage, contenders, measure_steps
from benchmarks.parameters import PARAMETER_SETS, Shapes, abstract, draw
from benchmarks.recipes import Recipe
from benchmarks.results import CaseResult, Results
from benchmarks.run import case_of
from gradtx import Params, Updates

Batch = tuple[str, tuple[str, ...]]  # a parameter set, and recipes that are compiled at once
CHECK_SECONDS = 60.0  # that the cases leave to the checks
NOT_REACHED = "not reached"
NO_TIME = "no time left"


class Budget:
    """The time that a run may take. clock: seconds since some moment."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.begin = clock()
        self.seconds = seconds

    def passed(self) -> float:
        """Seconds since the beginning."""
        return self.clock() - self.begin

    def left(self) -> float:
        """Seconds; below 0 when they are over."""
        return self.seconds - self.passed()


class Effort(NamedTuple):
    """How the steps of a case are timed, and in how many seconds."""

    pace: Pace
    seconds: float


@dataclass
class DeviceResults(Results):
    """A run. copies: the bandwidth of each kind of copy. left_out: why a case, `set recipe`, or a
    check, `agreement optimizer`, is not there; at first, all of them."""

    copies: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    agreements: list[Agreement] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote."""
        read: Any = super().read(path)
        read.agreements = [Agreement(**row) for row in read.agreements]
        return read


def planned(plan: Sequence[Batch]) -> list[str]:
    """The keys of everything that a run does, in `left_out` as long as it is not done."""
    cases = [f"{name} {recipe}" for name, recipes in plan for recipe in recipes]
    return cases + [f"agreement {optimizer}" for optimizer in CHECKS]


class Run:
    """Does what the results leave out, and notes it in them, as long as there is time.

    done: hears of each case and each check, after it is noted.
    """

    def __init__(
        self,
        results: DeviceResults,
        recipes: Mapping[str, Recipe],
        device: jax.Device,
        budget: Budget,
        effort: Effort,
        done: Callable[[str], None],
    ):
        self.results, self.recipes, self.device = results, recipes, device
        self.budget, self.effort, self.done = budget, effort, done

    def run(self, plan: Sequence[Batch]) -> None:
        """Everything."""
        for name, recipes in plan:
            self._batch(name, recipes)
        for optimizer, outcome in self.check():
            late = isinstance(outcome, TimeoutError)
            if isinstance(outcome, Agreement):
                self.results.agreements.append(outcome)
            self._note(f"agreement {optimizer}", str(outcome) if late else None)

    def _batch(self, name: str, labels: Sequence[str]) -> None:
        shapes = PARAMETER_SETS[name].shapes(self.results.quick)
        reasons = {label: self._obstacle(shapes, self.recipes[label]) for label in labels}
        possible = [label for label in labels if reasons[label] is None]
        programs = self.compile(possible, shapes, self._left()) if possible else {}
        trees = self.draw(shapes) if programs else None
        for label in labels:
            reason = reasons[label] or self._late(programs[label])
            if reason is None and trees is not None:
                case = case_of(name, label, self.recipes[label], shapes)
                self._try(case, programs.pop(label), *trees)
                self.results.cases.append(case)
            self._note(f"{name} {label}", reason)

    def _left(self) -> float:
        """The seconds for cases."""
        return self.budget.left() - CHECK_SECONDS

    def _obstacle(self, shapes: Shapes, recipe: Recipe) -> str | None:
        """Why a case need not be compiled."""
        return NO_TIME if self._left() < self.effort.seconds else self._lacking(shapes, recipe)

    def _late(self, programs: Sequence[Programs | Exception]) -> str | None:
        """Why a case cannot be measured any more."""
        late = (str(x) for x in programs if isinstance(x, TimeoutError))
        return next(late, NO_TIME if self._left() < self.effort.seconds else None)

    def _lacking(self, shapes: Shapes, recipe: Recipe) -> str | None:
        """What is wrong with the device's memory, if it cannot hold both optimizers' arrays, the
        gradients and the parameters to begin anew with."""
        limit = self.memory()
        params = abstract(shapes, np.float32)
        states = [jax.eval_shape(tx.init, params) for _, tx in recipe.contenders()]
        needed = 4 * _bytes(params) + sum(map(_bytes, states))
        if limit is None or needed <= limit:
            return None
        return f"its arrays need {needed / 2**30:.1f} GiB, the device has {limit / 2**30:.1f}"

    def _try(
        self,
        case: CaseResult,
        programs: Sequence[Programs | Exception],
        params: Params,
        grads: Updates,
    ) -> None:
        """Measure, or note the failure, such as temporaries that do not fit, and go on."""
        try:
            self.measure(case, programs, params, grads)
        except Exception as error:
            case.error = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"

    def _note(self, key: str, reason: str | None = None) -> None:
        """Done or, with a reason, not."""
        del self.results.left_out[key]
        if reason is not None:
            self.results.left_out[key] = reason
        self.results.seconds = self.budget.passed()
        self.done(key)

    # What takes time, each a method so that a test can put its own in its place.

    def memory(self) -> int | None:
        """The bytes that the device gives to a program; None if it does not say."""
        return (self.device.memory_stats() or {}).get("bytes_limit")

    def draw(self, shapes: Shapes) -> tuple[Params, Updates]:
        """Parameters and gradients."""
        return draw(shapes, 0, 0.02, self.device), draw(shapes, 1, 1.0, self.device)

    def compile(
        self, labels: Sequence[str], shapes: Shapes, seconds: float
    ) -> dict[str, list[Programs | Exception]]:
        """The programs of gradtx and the reference, or what went wrong, for each recipe."""
        work = {
            (label, side): partial(compile_programs, library, tx, shapes, self.device)
            for label in labels
            for side, (library, tx) in enumerate(self.recipes[label].contenders())
        }
        compiled = side_by_side(work, seconds)
        return {label: [compiled[label, side] for side in range(2)] for label in labels}

    def measure(
        self,
        case: CaseResult,
        programs: Sequence[Programs | Exception],
        params: Params,
        grads: Updates,
    ) -> None:
        """Fill in a case."""
        compiled = []
        for program in programs:
            if isinstance(program, Exception):
                raise program
            compiled.append(program)
        collect_garbage()
        both = contenders(self.recipes[case.recipe], params, grads, compiled)
        measure_steps(case, both, params, self.effort.seconds, self.effort.pace)

    def check(self) -> Iterable[tuple[str, Agreement | TimeoutError]]:
        """The device against the CPU."""
        return agreements(self.device, self.budget.left)


def _bytes(tree: Params) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
