"""Train a task with one optimizer, as one compiled loop.

The loop is a ``lax.scan`` over the batches of a chunk of steps, compiled once and called for every
chunk of every seed. Between calls the caller can report progress and look at the parameters. The
batches are drawn before, by a program that all optimizers share, so that what is compiled and timed
is the model and the optimizer.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jax import Array, lax

from gradtx import OptState
from gradtx.demo.optimizers import Optimizer
from gradtx.demo.tasks import Batch, Params, Task

MOST_CHUNKS = 20


def chunk_length(steps: int) -> int:
    """Steps per chunk: the fewest that divide ``steps`` into at most 20 equal chunks.

    They are equal because a scan of another length would be another program to compile.
    """
    return next(n for n in range(1, steps + 1) if steps % n == 0 and steps // n <= MOST_CHUNKS)


@dataclass(frozen=True)
class Chunk:
    """What one call of the compiled loop returned."""

    steps: int  # done so far, this chunk included
    losses: np.ndarray  # [chunk length], each before its step
    params: Params  # after the last step
    seconds: float


class Trainer:
    """The compiled training loop of one optimizer on one task."""

    def __init__(self, task: Task, tx: Optimizer, library: ModuleType, steps: int) -> None:
        self.task, self.tx, self.steps = task, tx, steps
        self.length = chunk_length(steps)
        params, state, key = self._start(seed=0)
        batches = task.batches(key, 0, self.length)
        loop = jax.jit(_loop(task, tx, library))
        began = time.perf_counter()
        self._loop = loop.lower(params, state, batches).compile()
        self.prepare_seconds = time.perf_counter() - began  # to trace, lower and compile

    def _start(self, seed: int) -> tuple[Params, OptState, Array]:
        weights, batches = jax.random.split(jax.random.key(seed))
        params = self.task.init(weights)
        return params, self.tx.init(params), batches

    def run(self, seed: int) -> Iterator[Chunk]:
        """Train from ``seed``, a chunk at a time."""
        params, state, key = self._start(seed)
        for done in range(0, self.steps, self.length):
            batches = self.task.batches(key, done, self.length)
            for array in batches:
                array.block_until_ready()
            began = time.perf_counter()
            params, state, losses = self._loop(params, state, batches)
            losses = np.asarray(losses)  # waits for the result
            seconds = time.perf_counter() - began
            yield Chunk(done + self.length, losses, params, seconds)


def check(task: Task, tx: Optimizer, library: ModuleType) -> None:
    """Raise what the first step with this optimizer would raise."""
    params = jax.eval_shape(task.init, jax.random.key(0))
    batches = jax.eval_shape(lambda key: task.batches(key, 0, 1), jax.random.key(0))
    jax.eval_shape(_loop(task, tx, library), params, jax.eval_shape(tx.init, params), batches)


def _loop(task: Task, tx: Optimizer, library: ModuleType) -> Callable[..., Any]:
    update = library.with_extra_args_support(tx).update

    def step(carry: tuple[Params, OptState], batch: Batch) -> tuple[tuple[Params, OptState], Array]:
        params, state = carry

        # Optax's line searches refuse an extra argument that the objective does not take.
        def objective(params: Params, obj_fn: object = None) -> Array:
            return task.loss(params, batch)

        loss, grads = jax.value_and_grad(objective)(params)
        # For the few that ask for it: line searches, Polyak's step, Sophia.
        extra = {"value": loss, "grad": grads, "value_fn": objective, "obj_fn": objective}
        updates, state = update(grads, state, params, **extra)
        return (library.apply_updates(params, updates), state), loss

    def loop(params: Params, state: OptState, batches: Batch) -> tuple[Params, OptState, Array]:
        (params, state), losses = lax.scan(step, (params, state), batches)
        return params, state, losses

    return loop


def relative_difference(ours: Params, theirs: Params) -> float:
    """max over leaves of ||p - q||_inf / ||q||_inf."""

    def leaf(ours: Array, theirs: Array) -> float:
        p, q = np.asarray(ours), np.asarray(theirs)
        return float(np.abs(p - q).max() / max(np.abs(q).max(), np.finfo(q.dtype).tiny))

    return max(jax.tree.leaves(jax.tree.map(leaf, ours, theirs)))
