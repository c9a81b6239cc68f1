"""A run within a given time: batches of cases in the order of their importance, then the checks."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import jax

from benchmarks.agreement import CHECKS, Agreement, agreements
from benchmarks.ahead import Programs, as_params, compile_programs, side_by_side
from benchmarks.measure import QUEUED, contenders, measure_steps
from benchmarks.parameters import PARAMETER_SETS, Shapes, draw
from benchmarks.recipes import Recipe
from benchmarks.results import CaseResult, Results
from benchmarks.run import case_of
from gradtx import Params, Updates

Batch = tuple[str, tuple[str, ...]]  # a parameter set, and recipes that are compiled at once
CASE_SECONDS = 3.0  # for the steps of a case
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


@dataclass
class DeviceResults(Results):
    """A run. copies: the bandwidth of each kind of copy. left_out: why a case, `set recipe`, or a
    check, `agreement optimizer`, is not there."""

    copies: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    agreements: list[Agreement] = field(default_factory=list)


def planned(plan: Sequence[Batch]) -> list[str]:
    """The keys of everything that a run does, in `left_out` as long as it is not done."""
    cases = [f"{name} {recipe}" for name, recipes in plan for recipe in recipes]
    return cases + [f"agreement {optimizer}" for optimizer in CHECKS]


class Run:
    """Does what is planned, and notes it in the results, as long as there is time.

    done: hears of each case and each check, after it is noted.
    """

    def __init__(
        self,
        results: DeviceResults,
        recipes: Mapping[str, Recipe],
        device: jax.Device,
        budget: Budget,
        done: Callable[[str], None],
    ):
        self.results, self.recipes, self.device = results, recipes, device
        self.budget, self.done = budget, done

    def run(self, plan: Sequence[Batch]) -> None:
        """Everything."""
        self.results.left_out |= dict.fromkeys(planned(plan), NOT_REACHED)
        for name, recipes in plan:
            self._batch(name, recipes)
        for agreement in self.check():
            self.results.agreements.append(agreement)
            self._note(f"agreement {agreement.optimizer}")

    def _batch(self, name: str, labels: Sequence[str]) -> None:
        shapes = PARAMETER_SETS[name].shapes(self.results.quick)
        small = []
        for label in labels:
            if lacking := self._lacking(shapes, self.recipes[label]):
                self._note(f"{name} {label}", lacking)
            else:
                small.append(label)
        programs = self.compile(small, shapes, self._left())
        trees = None
        for label in small:
            reason = NO_TIME if self._left() < CASE_SECONDS else _late(programs[label])
            if reason is None:
                trees = trees or self.draw(shapes)
                case = case_of(name, label, self.recipes[label], shapes)
                self._try(case, programs.pop(label), *trees)
                self.results.cases.append(case)
            self._note(f"{name} {label}", reason)

    def _left(self) -> float:
        """The seconds for cases."""
        return self.budget.left() - CHECK_SECONDS

    def _lacking(self, shapes: Shapes, recipe: Recipe) -> str | None:
        """What is wrong with the device's memory, if it cannot hold both optimizers' arrays, the
        gradients and the parameters to begin anew with."""
        limit = self.memory()
        params = as_params(shapes)
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
        gc.collect()

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
            (label, side): lambda one=one: compile_programs(*one, shapes, self.device)
            for label in labels
            for side, one in enumerate(self.recipes[label].contenders())
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
        both = contenders(self.recipes[case.recipe], params, grads, compiled)
        measure_steps(case, both, params, CASE_SECONDS, QUEUED)

    def check(self) -> Iterable[Agreement]:
        """The device against the CPU."""
        return agreements(self.device, self.budget.left)


def _late(programs: Sequence[Programs | Exception]) -> str | None:
    return next((str(x) for x in programs if isinstance(x, TimeoutError)), None)


def _bytes(tree: Params) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
