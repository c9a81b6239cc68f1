"""A run: every recipe on every parameter set, each with its share of the time."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Sequence

import jax

from benchmarks.bars import judged
from benchmarks.measure import copy_bandwidth, measure, measure_eager, pace_on, warm_up
from benchmarks.parameters import PARAMETER_SETS, Shapes, draw, size
from benchmarks.recipes import LIBRARIES, RECIPES, Recipe
from benchmarks.results import CaseResult, Results, Side, device_facts, library_versions, now
from gradtx import Params, Updates


def missing_in(recipe: str) -> str | None:
    """The library that cannot build a recipe, if one cannot."""
    for name, library in LIBRARIES.items():
        try:
            RECIPES[recipe].build(library)
        except AttributeError:
            return name
    return None


def fitting(sets: Sequence[str], platform: str, quick: bool) -> list[str]:
    """The parameter sets that fit on the platform."""
    return [s for s in sets if quick or PARAMETER_SETS[s].platform in (None, platform)]


class Clock:
    """Shares out a run's seconds; what one case leaves over goes to those after it."""

    def __init__(self, seconds: float, weights: Sequence[float]):
        self.end = time.perf_counter() + seconds
        self.weights = list(weights)

    def next(self) -> float:
        """The seconds for the next case, none if earlier ones took too long."""
        left = max(0.0, self.end - time.perf_counter())
        part = left * self.weights[0] / sum(self.weights)
        del self.weights[0]
        return part


def start(device: jax.Device, command: str, quick: bool) -> Results:
    """Results without cases: the device and its copy bandwidth."""
    elements = 2**18 if quick else 2**26 if device.platform == "cpu" else 2**28
    bandwidth, samples = copy_bandwidth(device, elements, pace_on(device))
    facts, versions = device_facts(device), library_versions()
    return Results(facts, versions, now(), [command], quick, 0.0, bandwidth, samples)


def run(
    results: Results,
    sets: Sequence[str],
    recipes: Sequence[str],
    device: jax.Device,
    seconds: float,
    done: Callable[[CaseResult, str], None],
) -> None:
    """Measure each recipe on each set in about `seconds`; `done` hears of each measurement."""
    begin = time.perf_counter()
    for recipe in recipes:
        with contextlib.suppress(Exception):  # the case itself will say what is wrong
            warm_up(RECIPES[recipe])
    plan = [(name, what, recipe) for name in sets for what, recipe in _work(name, recipes)]
    clock = Clock(seconds - (time.perf_counter() - begin), [_weight(*item) for item in plan])
    for name in sets:
        shapes = PARAMETER_SETS[name].shapes(results.quick)
        params, grads = draw(shapes, 0, 0.02, device), draw(shapes, 1, 1.0, device)
        cases = {r: case_of(name, r, RECIPES[r], shapes) for r in recipes}
        for what, recipe in _work(name, recipes):
            case = cases[recipe]
            if what == "step":
                results.cases.append(case)
            _measure_or_note(what, case, params, grads, clock.next())
            results.seconds = time.perf_counter() - begin
            done(case, what)
        del params, grads


def case_of(name: str, label: str, recipe: Recipe, shapes: Shapes) -> CaseResult:
    """A recipe, known as `label`, on a parameter set of these shapes; not measured yet."""
    ours, theirs = (Side(floor=floor) for floor in recipe.floors())
    return CaseResult(name, label, *size(shapes), recipe.against, ours, theirs)


def _work(name: str, recipes: Sequence[str]) -> list[tuple[str, str]]:
    """What is measured on a set: first every recipe jitted, then those measured outside of jit."""
    here = [r for r in recipes if name in RECIPES[r].sets]
    eager = [r for r in here if PARAMETER_SETS[name].eager and RECIPES[r].eager]
    return [("step", recipe) for recipe in here] + [("eager", recipe) for recipe in eager]


def count(sets: Sequence[str], recipes: Sequence[str]) -> int:
    """How often `done` will be called."""
    return sum(len(_work(name, recipes)) for name in sets)


def _weight(name: str, what: str, recipe: str) -> float:
    weight = PARAMETER_SETS[name].weight * RECIPES[recipe].cycle ** 0.5
    return weight if what == "step" else 0.2 * weight


def _measure_or_note(
    what: str, case: CaseResult, params: Params, grads: Updates, seconds: float
) -> None:
    """Measure, or note the failure, such as a device that is too small, and go on."""
    if case.error is not None:
        return
    try:
        if what == "step":
            measure(case, RECIPES[case.recipe], params, grads, seconds, judged(case))
        else:
            measure_eager(case, RECIPES[case.recipe], params, grads, seconds)
    except Exception as error:
        case.error = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    gc.collect()
