"""A run: every recipe on every parameter set, each with its part of the time."""

from __future__ import annotations

import datetime
import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from benchmarks.measure import copy_bandwidth, measure, warm_up
from benchmarks.parameters import PARAMETER_SETS, draw, size
from benchmarks.recipes import LIBRARIES, RECIPES
from benchmarks.results import CaseResult, Results, device_facts, library_versions


def missing_in(recipe: str) -> str | None:
    """The library that cannot build a recipe, if one cannot."""
    for name, library in LIBRARIES.items():
        try:
            RECIPES[recipe].build(library)
        except AttributeError:
            return name
    return None


def fitting(sets: Sequence[str], platform: str, quick: bool) -> list[str]:
    """The parameter sets that the platform can hold."""
    return [s for s in sets if quick or PARAMETER_SETS[s].platform in (None, platform)]


class Clock:
    """Shares out a run's seconds: what one case leaves goes to those after it."""

    def __init__(self, seconds: float, weights: Sequence[float]):
        self.end = time.perf_counter() + seconds
        self.weights = list(weights)

    def next(self) -> float:
        """The seconds of the next case; those that took too long leave it none."""
        left = max(0.0, self.end - time.perf_counter())
        part = left * self.weights[0] / sum(self.weights)
        del self.weights[0]
        return part


def start(device: Any, command: str, quick: bool) -> Results:
    """Results without cases: the device and its copy bandwidth."""
    elements = 2**18 if quick else 2**26 if device.platform == "cpu" else 2**28
    bandwidth, samples = copy_bandwidth(device, elements)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")
    facts, versions = device_facts(device), library_versions()
    return Results(facts, versions, now, [command], quick, 0.0, bandwidth, samples)


def run(
    results: Results,
    sets: Sequence[str],
    recipes: Sequence[str],
    device: Any,
    quick: bool,
    seconds: float,
    done: Callable[[CaseResult], None],
) -> None:
    """Measure each recipe on each set in about `seconds`; `done` hears of each case."""
    begin = time.perf_counter()
    for recipe in recipes:
        warm_up(RECIPES[recipe])
    weights = [PARAMETER_SETS[s].weight * RECIPES[r].cycle ** 0.5 for s in sets for r in recipes]
    clock = Clock(seconds - (time.perf_counter() - begin), weights)
    for name in sets:
        shapes = PARAMETER_SETS[name].shapes(quick)
        params, grads = draw(shapes, 0, 0.02, device), draw(shapes, 1, 1.0, device)
        for recipe in recipes:
            case = CaseResult(name, recipe, *size(shapes), RECIPES[recipe].floor)
            _measure_or_note(case, params, grads, clock.next())
            results.cases.append(case)
            results.seconds = time.perf_counter() - begin
            done(case)
        del params, grads


def _measure_or_note(case: CaseResult, params: Any, grads: Any, seconds: float) -> None:
    """One failure, such as a device that is too small, is noted and does not end the run."""
    recipe, eager = RECIPES[case.recipe], PARAMETER_SETS[case.set].eager
    try:
        measure(case, recipe, params, grads, eager, seconds)
    except Exception as error:
        case.error = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    jax.clear_caches()  # type: ignore[no-untyped-call]
    gc.collect()
