"""The measurements of one case: a recipe on a parameter set, gradtx and Optax in turns."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.hlo import tally
from benchmarks.program import count_equations
from benchmarks.recipes import LIBRARIES, Recipe, Step, step_of
from benchmarks.results import CaseResult, Side
from gradtx import Params, Updates


@dataclass
class Rounds:
    """How often to repeat: at least, at most, and in between while another round fits before
    `until`, a time of `perf_counter`."""

    at_least: int
    at_most: int
    until: float

    def more(self, done: int, longest: float) -> bool:
        """Whether to do another round after `done`, the longest of which took `longest` seconds."""
        if done < self.at_least:
            return True
        return done < self.at_most and time.perf_counter() + longest < self.until


def interleave(
    timers: Sequence[Callable[[], Any]],
    rounds: Rounds,
    every_third: Callable[[], None] = lambda: None,
    longest: float = 0.0,
) -> list[list[Any]]:
    """The results of each timer. The timers take turns, and who goes first alternates.

    every_third: called before every third round but the first, so that who goes first after it
    alternates too. longest: the seconds that a round is known to take.
    """
    samples: list[list[Any]] = [[] for _ in timers]
    order, done = list(range(len(timers))), 0
    while rounds.more(done, longest):
        if done and done % 3 == 0:
            every_third()
        start = time.perf_counter()
        for i in order:
            samples[i].append(timers[i]())
        longest = max(longest, time.perf_counter() - start)
        order.reverse()
        done += 1
    return samples


class Contender:
    """One library's optimizer with its arrays."""

    def __init__(self, library: str, recipe: Recipe, params: Params, grads: Updates):
        self.library = LIBRARIES[library]
        self.recipe = recipe
        self.grads = grads
        self.tx = recipe.build(self.library)
        self.step = step_of(self.library, self.tx)
        self.begin(params)
        self.traced: Any = None
        self.compiled: Any = None

    def begin(self, params: Params) -> None:
        """Take a copy of the parameters and a fresh state."""
        self.params = jax.tree.map(jnp.copy, params)
        self.state = self.tx.init(self.params)
        self.structure: Any = jax.tree.structure(self.state)

    def release(self) -> None:
        """Let go of the parameters and the state."""
        self.params = self.state = None

    def take_over(self, other: Contender) -> None:
        """Continue with the other's arrays, if it has any."""
        if other is not self and other.params is not None:
            self.params = other.params
            self.state = jax.tree.unflatten(self.structure, jax.tree.leaves(other.state))
            other.release()

    def trace_and_lower(self, compile_too: bool) -> tuple[float, float, float | None]:
        """Seconds to trace, to lower and, if asked, to compile, with nothing cached."""
        self.traced = None
        jax.clear_caches()  # type: ignore[no-untyped-call]
        gc.unfreeze()
        gc.collect()
        gc.freeze()  # keep the collector from searching what earlier cases left, in this one's time
        times = [time.perf_counter()]
        jitted = jax.jit(self.step, donate_argnums=(0, 1))
        self.traced = jitted.trace(self.params, self.state, self.grads)
        times.append(time.perf_counter())
        lowered = self.traced.lower()
        times.append(time.perf_counter())
        if not compile_too:
            return times[1] - times[0], times[2] - times[1], None
        self.compiled = lowered.compile()
        return times[1] - times[0], times[2] - times[1], time.perf_counter() - times[2]

    def run(self, step: Step, cycles: int = 1) -> float:
        """The mean seconds per step over some cycles of the recipe, waiting for each step."""
        steps = cycles * self.recipe.cycle
        start = time.perf_counter()
        for _ in range(steps):
            self.step_once(step)
        return (time.perf_counter() - start) / steps

    def step_once(self, step: Step) -> None:
        """One step, awaited."""
        self.params, self.state = step(self.params, self.state, self.grads)
        jax.block_until_ready((self.params, self.state))  # type: ignore[no-untyped-call]

    def describe(self, side: Side, parameters: int) -> None:
        """Record what the program says about itself."""
        analysis, memory = self.compiled.cost_analysis(), self.compiled.memory_analysis()
        analysis = analysis[0] if isinstance(analysis, list) else analysis
        side.bytes = analysis.get("bytes accessed", math.nan) / parameters
        side.temps = (memory.temp_size_in_bytes if memory else math.nan) / parameters
        side.equations, side.equations_expanded = count_equations(self.traced.jaxpr)
        side.kernels = tally(self.compiled.as_text()).kernels


SAMPLE_SECONDS = 0.01  # a sample of a short step is the mean of as many as take this long
# The seconds that each measure of a case gets at least, without and with a bar set for it.
SECONDS = {"compile": 0.0, "trace_lower": 0.25, "step": 0.5}
JUDGED_SECONDS = {"compile": 20.0, "trace_lower": 4.0, "step": 5.0}


def measure(
    result: CaseResult,
    recipe: Recipe,
    params: Params,
    grads: Updates,
    seconds: float,
    judged: Collection[str] = (),
) -> None:
    """Fill in a case in about `seconds`, or in what the measures get at least if that is more."""
    start = time.perf_counter()
    sides = [result.gradtx, result.optax]
    both = [Contender(library, recipe, params, grads) for library in LIBRARIES]
    least = {what: (JUDGED_SECONDS if what in judged else SECONDS)[what] for what in SECONDS}
    _compile(both, sides, start, seconds, least)
    first = []
    for contender, side in zip(both, sides, strict=True):
        contender.describe(side, result.parameters)
        contender.traced = None
        # The first call pays for setup that later ones find done.
        first.append(recipe.cycle * contender.run(contender.compiled))
    result.difference = _difference(both, params)
    cycles = max(1, round(SAMPLE_SECONDS / max(first)))
    slow = sum(first) > 5  # so slow that setup is negligible: the first call counts too
    at_least = 1 if slow else 3 if sum(first) > 0.2 else 6
    rounds = Rounds(at_least, 100, max(start + seconds, time.perf_counter() + least["step"]))
    memory = Memory(both, params)
    timers = [lambda c=c: memory.of(c).run(c.compiled, cycles) for c in both]
    samples = interleave(timers, rounds, memory.begin_elsewhere)
    for side, cycle, times in zip(sides, first, samples, strict=True):
        side.step_s = [cycle / recipe.cycle, *times] if slow else times


class Memory:
    """Gives both libraries the same memory if possible. Where large arrays happen to lie makes the
    same program up to 1.4 times as fast, which would look like a difference of the libraries."""

    def __init__(self, both: list[Contender], params: Params):
        self.both = list(both)
        self.params = params
        kinds = [list(map(jax.typeof, jax.tree.leaves(one.state))) for one in both]
        self.shared = kinds[0] == kinds[1]
        if self.shared:
            both[1].release()

    def of(self, contender: Contender) -> Contender:
        """The contender with arrays to step: the same arrays in turns, if the states of both are
        arrays of the same shapes and dtypes."""
        if self.shared:
            for other in self.both:
                contender.take_over(other)
        return contender

    def begin_elsewhere(self) -> None:
        """Start both afresh on other memory, and touch it for the first time."""
        self.both.reverse()  # the next to choose is the other one
        for contender in self.both:
            contender.release()
        for contender in self.both[: 1 if self.shared else 2]:
            contender.begin(self.params)
            contender.step_once(contender.compiled)


def measure_eager(
    result: CaseResult, recipe: Recipe, params: Params, grads: Updates, seconds: float
) -> None:
    """Fill in the time of a step outside of jit.

    It is measured apart from the rest, which clears the caches: the operations that a library runs
    one by one are compiled once for all recipes.
    """
    start = time.perf_counter()
    both = [Contender(library, recipe, params, grads) for library in LIBRARIES]
    for contender in both:
        contender.run(contender.step)  # compiles the operations
    timers = [lambda c=c: c.run(c.step) for c in both]
    times = interleave(timers, Rounds(3, 50, start + max(seconds, 1.0)))
    result.gradtx.eager_s, result.optax.eager_s = times


def _compile(
    both: list[Contender],
    sides: list[Side],
    start: float,
    seconds: float,
    least: dict[str, float],
) -> None:
    """Trace, lower and compile one to three times; then trace and lower up to seven times more."""
    plan = (("compile", 0.35, 1, 3), ("trace_lower", 0.5, 0, 7))
    longest = 0.0
    for what, part, at_least, at_most in plan:
        until = max(start + part * seconds, time.perf_counter() + least[what])
        timers = [lambda c=c, also=what == "compile": c.trace_and_lower(also) for c in both]
        samples = interleave(timers, Rounds(at_least, at_most, until), longest=longest)
        for side, times in zip(sides, samples, strict=True):
            side.trace_s += [trace for trace, _, _ in times]
            side.lower_s += [lower for _, lower, _ in times]
            side.compile_s += [compiled for _, _, compiled in times if compiled is not None]
        longest = sum(side.trace_s[0] + side.lower_s[0] for side in sides)


def _difference(both: list[Contender], before: Params, leaves: int = 8) -> float:
    """The largest difference between the libraries' parameters, relative to how far they moved.

    It is taken on the smallest leaves, to show that both do the same work.
    """
    trees = [jax.tree.leaves(tree) for tree in (both[0].params, both[1].params, before)]
    rows = sorted(zip(*trees, strict=True), key=lambda row: row[0].size)[:leaves]
    ours, theirs, old = (
        np.concatenate([np.ravel(x) for x in column]) for column in zip(*rows, strict=True)
    )
    return float(np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs - old)))


def warm_up(recipe: Recipe) -> None:
    """Let both libraries import and initialise what their first trace needs."""
    params = {"weight": jnp.ones((2, 2))}
    for library in LIBRARIES:
        Contender(library, recipe, params, params).trace_and_lower(compile_too=False)


def copy_bandwidth(
    device: jax.Device, elements: int, rounds: int = 20
) -> tuple[float, list[float]]:
    """Bytes per second, read and written, of x <- x + 1 in place on a large array; and samples."""
    add_one = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = add_one(jax.device_put(np.zeros(elements, np.float32), device))
    samples = []
    for _ in range(rounds):
        x.block_until_ready()
        start = time.perf_counter()
        x = add_one(x).block_until_ready()
        samples.append(2 * x.nbytes / (time.perf_counter() - start))
    return statistics.median(samples), samples
