"""The measurements of one case: a recipe on a parameter set, gradtx and Optax in turns."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.program import count_equations, count_kernels
from benchmarks.recipes import LIBRARIES, Recipe, step_of
from benchmarks.results import CaseResult, Side


@dataclass
class Rounds:
    """How often to repeat: at least, at most, and in between while another round fits the time."""

    at_least: int
    at_most: int
    until: float

    def more(self, done: int, longest: float) -> bool:
        """Whether to do another round after `done`, the longest of which took so many seconds."""
        if done < self.at_least:
            return True
        return done < self.at_most and time.perf_counter() + longest < self.until


def interleave(
    timers: Sequence[Callable[[], Any]],
    rounds: Rounds,
    every_third: Callable[[], None] = lambda: None,
) -> list[list[Any]]:
    """The results of each timer, run in turns; who goes first alternates. `every_third`: done
    before every third round but the first, so that who goes first after it alternates too."""
    samples: list[list[Any]] = [[] for _ in timers]
    order, longest, done = list(range(len(timers))), 0.0, 0
    while rounds.more(done, longest):
        start = time.perf_counter()
        if done and done % 3 == 0:
            every_third()
        for i in order:
            samples[i].append(timers[i]())
        longest = max(longest, time.perf_counter() - start)
        order.reverse()
        done += 1
    return samples


class Contender:
    """One library's optimizer with its arrays."""

    def __init__(self, library: str, recipe: Recipe, params: Any, grads: Any):
        self.library = LIBRARIES[library]
        self.recipe = recipe
        self.grads = grads
        self.tx = recipe.build(self.library)
        self.step = step_of(self.library, self.tx)
        self.begin(params)
        self.traced: Any = None
        self.compiled: Any = None

    def begin(self, params: Any) -> None:
        """Take a copy of the parameters and a fresh state."""
        self.params = jax.tree.map(jnp.copy, params)
        self.state = self.tx.init(self.params)

    def trace_and_lower(self, compile_too: bool) -> tuple[float, float, float | None]:
        """Seconds to trace, to lower and, if asked, to compile, with nothing cached."""
        self.traced = None
        jax.clear_caches()  # type: ignore[no-untyped-call]
        gc.collect()
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

    def run(self, step: Callable[..., tuple[Any, Any]]) -> float:
        """The mean seconds of a step over one cycle of the recipe, each awaited."""
        total = 0.0
        for _ in range(self.recipe.cycle):
            start = time.perf_counter()
            self.step_once(step)
            total += time.perf_counter() - start
        return total / self.recipe.cycle

    def step_once(self, step: Callable[..., tuple[Any, Any]]) -> None:
        """One step, awaited."""
        self.params, self.state = step(self.params, self.state, self.grads)
        jax.block_until_ready((self.params, self.state))  # type: ignore[no-untyped-call]

    def describe(self, side: Side, parameters: int) -> None:
        """Write down what the program says of itself."""
        analysis, memory = self.compiled.cost_analysis(), self.compiled.memory_analysis()
        analysis = analysis[0] if isinstance(analysis, list) else analysis
        side.bytes = analysis.get("bytes accessed", math.nan) / parameters
        side.temps = (memory.temp_size_in_bytes if memory else math.nan) / parameters
        side.equations, side.equations_expanded = count_equations(self.traced.jaxpr)
        side.kernels = count_kernels(self.compiled.as_text())


def measure(result: CaseResult, recipe: Recipe, params: Any, grads: Any, seconds: float) -> None:
    """Fill in a case, in about the seconds given: at least one compilation and a few rounds."""
    start = time.perf_counter()
    sides = [result.gradtx, result.optax]
    both = [Contender(library, recipe, params, grads) for library in LIBRARIES]
    _compile(both, sides, start, seconds)
    for contender, side in zip(both, sides, strict=True):
        contender.describe(side, result.parameters)
        contender.traced = None
        contender.run(contender.compiled)  # the first call pays for what later ones find ready
    result.difference = _difference(both, params)
    rounds = Rounds(4 if recipe.cycle == 1 else 2, 100, start + seconds)
    timers = [lambda c=c: c.run(c.compiled) for c in both]
    samples = interleave(timers, rounds, lambda: _begin_elsewhere(both, params))
    for side, times in zip(sides, samples, strict=True):
        side.step_s = times


def _begin_elsewhere(both: list[Contender], params: Any) -> None:
    """Let both begin anew, on other memory. Where large arrays happen to lie makes the same program
    up to 1.4 times as fast, and would be taken for a difference of the libraries."""
    for contender in both:
        contender.params = contender.state = None
    both.reverse()  # the next to choose is the other one
    for contender in both:
        contender.begin(params)
        contender.step_once(contender.compiled)  # what it touches first is not measured


def measure_eager(
    result: CaseResult, recipe: Recipe, params: Any, grads: Any, seconds: float
) -> None:
    """Fill in the step outside of jit.

    Apart from the rest, so that nothing is forgotten between recipes: the operations that a
    library runs one by one are compiled once for all of them.
    """
    start = time.perf_counter()
    both = [Contender(library, recipe, params, grads) for library in LIBRARIES]
    for contender in both:
        contender.run(contender.step)  # compiles the operations
    timers = [lambda c=c: c.run(c.step) for c in both]
    times = interleave(timers, Rounds(3, 50, start + max(seconds, 1.0)))
    result.gradtx.eager_s, result.optax.eager_s = times


def _compile(both: list[Contender], sides: list[Side], start: float, seconds: float) -> None:
    """Trace, lower and compile, once at least: thrice at most, without compilation some more."""
    full = Rounds(1, 3, start + 0.35 * seconds)
    rest = Rounds(0, 7, start + 0.5 * seconds)
    for compile_too, rounds in ((True, full), (False, rest)):
        timers = [lambda c=c, also=compile_too: c.trace_and_lower(also) for c in both]
        for side, samples in zip(sides, interleave(timers, rounds), strict=True):
            side.trace_s += [trace for trace, _, _ in samples]
            side.lower_s += [lower for _, lower, _ in samples]
            side.compile_s += [compiled for _, _, compiled in samples if compiled is not None]


def _difference(both: list[Contender], before: Any, leaves: int = 8) -> float:
    """The largest difference between the libraries' parameters, relative to how far they moved.

    On the smallest leaves, as a proof that both do the same work.
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


def copy_bandwidth(device: Any, elements: int, rounds: int = 20) -> tuple[float, list[float]]:
    """Bytes a second of x <- x + 1 in place on a large array, read and written; and the samples."""
    add_one = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = add_one(jax.device_put(np.zeros(elements, np.float32), device))
    samples = []
    for _ in range(rounds):
        x.block_until_ready()
        start = time.perf_counter()
        x = add_one(x).block_until_ready()
        samples.append(2 * x.nbytes / (time.perf_counter() - start))
    return statistics.median(samples), samples
