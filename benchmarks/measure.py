"""The measurements of one case: a recipe on a parameter set, gradtx and Optax in turns."""

from __future__ import annotations

import gc
import math
import os
import statistics
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.ahead import Programs
from benchmarks.hlo import tally
from benchmarks.program import count_equations
from benchmarks.recipes import Optimizer, Recipe, Step, step_of
from benchmarks.results import CaseResult, Side
from gradtx import Params, Updates


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def now() -> float:
    """The seconds of the processor where there is one core, which other programs hardly change,
    otherwise those of the clock."""
    return time.process_time() if cores() == 1 else time.perf_counter()


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


@dataclass(frozen=True)
class Pace:
    """How steps are timed. sample: the seconds that a sample of short steps takes, at least. each:
    whether each step is awaited, or only the last of a sample, so that a device has always another
    one waiting and the host's work is not seen unless the device is done before."""

    sample: float
    each: bool


AWAITED = Pace(0.01, each=True)
QUEUED = Pace(0.1, each=False)


def collect_garbage() -> None:
    """Now, and keep the collector from searching what earlier cases left in the next one's time."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def pace_on(device: jax.Device) -> Pace:
    """A CPU's steps are work of the host; an accelerator is fed while it works."""
    return AWAITED if device.platform == "cpu" else QUEUED


class Contender:
    """An optimizer with its arrays. programs: compiled ahead, if they are."""

    def __init__(
        self,
        library: ModuleType,
        tx: Optimizer,
        cycle: int,
        params: Params,
        grads: Updates,
        programs: Programs | None = None,
    ):
        self.cycle = cycle
        self.grads = grads
        self.step = step_of(library, tx)
        self.init: Any = programs.init if programs else tx.init
        self.traced: Any = programs.traced if programs else None
        self.compiled: Any = programs.step if programs else None
        self.begin(params)

    def begin(self, params: Params) -> None:
        """Take a copy of the parameters and a fresh state."""
        self.params = jax.tree.map(jnp.copy, params)
        self.state = self.init(self.params)
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
        collect_garbage()
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

    def run(self, step: Step, cycles: int = 1, pace: Pace = AWAITED) -> float:
        """The mean seconds per step over some cycles of the recipe."""
        steps = cycles * self.cycle
        start = time.perf_counter()
        for _ in range(steps):
            self.step_once(step)
            if pace.each:
                self.wait()
        self.wait()
        return (time.perf_counter() - start) / steps

    def step_once(self, step: Step) -> None:
        """One step, not awaited."""
        self.params, self.state = step(self.params, self.state, self.grads)

    def wait(self) -> None:
        """Until all steps are done."""
        jax.block_until_ready((self.params, self.state))  # type: ignore[no-untyped-call]

    def hand_over(self, steps: int = 8) -> float:
        """The mean seconds per step until it is handed to the device, which does it later; few
        steps, since a device takes only so many ahead."""
        start = time.perf_counter()
        for _ in range(steps):
            self.step_once(self.compiled)
        seconds = (time.perf_counter() - start) / steps
        self.wait()
        return seconds

    def describe(self, side: Side, parameters: int) -> None:
        """Record what the program says about itself."""
        analysis, memory = self.compiled.cost_analysis(), self.compiled.memory_analysis()
        analysis = analysis[0] if isinstance(analysis, list) else analysis
        counted = tally(self.compiled.as_text())
        # XLA knows itself what is only in part read, but not on every platform.
        side.bytes = (analysis or {}).get("bytes accessed", counted.bytes) / parameters
        side.temps = (memory.temp_size_in_bytes if memory else math.nan) / parameters
        side.equations, side.equations_expanded = count_equations(self.traced.jaxpr)
        side.kernels = counted.kernels


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
    both = contenders(recipe, params, grads)
    least = {what: (JUDGED_SECONDS if what in judged else SECONDS)[what] for what in SECONDS}
    _compile(both, result.sides, start, seconds, least)
    pace = pace_on(jax.tree.leaves(params)[0].device)
    measure_steps(result, both, params, max(seconds - passed(start), least["step"]), pace)


def contenders(
    recipe: Recipe,
    params: Params,
    grads: Updates,
    programs: Sequence[Programs | None] = (None, None),
) -> list[Contender]:
    """gradtx and the reference, with their arrays and, if they are, their programs."""
    return [
        Contender(library, tx, recipe.cycle, params, grads, ahead)
        for (library, tx), ahead in zip(recipe.contenders(), programs, strict=True)
    ]


def measure_steps(
    result: CaseResult, both: list[Contender], params: Params, seconds: float, pace: Pace
) -> None:
    """Fill in what the compiled programs of both say about themselves, and the times of their
    steps, in about `seconds`."""
    start, cycle = time.perf_counter(), both[0].cycle
    first = []
    for contender, side in zip(both, result.sides, strict=True):
        contender.describe(side, result.parameters)
        contender.traced = None
        # The first call pays for setup that later ones find done.
        first.append(cycle * contender.run(contender.compiled))
    result.difference = difference([both[0].params, both[1].params], params)
    slow = sum(first) > 5  # so slow that setup is negligible: the first call counts too
    at_least = 1 if slow else 3 if sum(first) > 0.2 else 6
    if not slow:
        first = [cycle * contender.run(contender.compiled) for contender in both]
    cycles = max(1, round(pace.sample / max(first)))
    memory = Memory(both, params)
    timers = [lambda c=c: memory.of(c).run(c.compiled, cycles, pace) for c in both]
    samples = interleave(timers, Rounds(at_least, 100, start + seconds), memory.begin_elsewhere)
    for side, once, times in zip(result.sides, first, samples, strict=True):
        side.step_s = [once / cycle, *times] if slow else times
    if not pace.each:
        timers = [lambda c=c: memory.of(c).hand_over() for c in both]
        result.gradtx.host_s, result.reference.host_s = interleave(timers, Rounds(3, 3, start))


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
            contender.wait()


def measure_eager(
    result: CaseResult, recipe: Recipe, params: Params, grads: Updates, seconds: float
) -> None:
    """Fill in the time of a step outside of jit.

    It is measured apart from the rest, which clears the caches: the operations that a library runs
    one by one are compiled once for all recipes.
    """
    start = time.perf_counter()
    both = contenders(recipe, params, grads)
    for contender in both:
        contender.run(contender.step)  # compiles the operations
    timers = [lambda c=c: c.run(c.step) for c in both]
    times = interleave(timers, Rounds(3, 50, start + max(seconds, 1.0)))
    result.gradtx.eager_s, result.reference.eager_s = times


def _compile(
    both: list[Contender],
    sides: Sequence[Side],
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


def difference(both: Sequence[Params], before: Params, leaves: int = 8) -> float:
    """The largest difference between two trees of parameters, relative to how far they moved.

    It is taken on the smallest leaves, which is enough to show that both do the same work.
    """
    trees = [jax.tree.leaves(tree) for tree in (*both, before)]
    rows = sorted(zip(*trees, strict=True), key=lambda row: row[0].size)[:leaves]
    ours, theirs, old = (
        np.concatenate([np.ravel(x) for x in column]) for column in zip(*rows, strict=True)
    )
    return float(np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs - old)))


def warm_up(recipe: Recipe) -> None:
    """Let both libraries import and initialise what their first trace needs."""
    params = {"weight": jnp.ones((2, 2))}
    for contender in contenders(recipe, params, params):
        contender.trace_and_lower(compile_too=False)


def copy_bandwidth(
    device: jax.Device, elements: int, pace: Pace = AWAITED, rounds: int = 20
) -> tuple[float, list[float]]:
    """Bytes per second, read and written, of x <- x + 1 in place on a large array; and samples."""
    add_one = jax.jit(lambda x: x + 1, donate_argnums=0)
    return _bandwidth(add_one, jax.device_put(np.zeros(elements, np.float32), device), pace, rounds)


def plain_copy_bandwidth(
    device: jax.Device, elements: int, pace: Pace = AWAITED, rounds: int = 20
) -> tuple[float, list[float]]:
    """The same of a copy of one array to the place of another, which may be the driver's own."""
    copy = jax.jit(lambda source, _: jnp.copy(source), donate_argnums=1, keep_unused=True)
    source, place = (jax.device_put(np.zeros(elements, np.float32), device) for _ in range(2))
    return _bandwidth(lambda x: copy(source, x), place, pace, rounds)


def _bandwidth(
    copy: Callable[[jax.Array], jax.Array], x: jax.Array, pace: Pace, rounds: int
) -> tuple[float, list[float]]:
    x = copy(copy(x)).block_until_ready()
    copies, samples = 1 if pace.each else 50, []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(copies):
            x = copy(x)
        x.block_until_ready()
        samples.append(2 * copies * x.nbytes / (time.perf_counter() - start))
    return statistics.median(samples), samples


def passed(start: float) -> float:
    """Seconds since then."""
    return time.perf_counter() - start
