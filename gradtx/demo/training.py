"""Train a task with one optimizer, as one compiled loop.

The loop is a ``lax.scan`` over a chunk of steps, compiled once and called for every chunk of every
seed. Between calls the caller can report progress and look at the parameters.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from gradtx import OptState, Updates
from gradtx.demo.optimizers import Optimizer
from gradtx.demo.tasks import Params, Task

Apply = Callable[[Params, Updates], Params]
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

    def __init__(self, task: Task, tx: Optimizer, apply_updates: Apply, steps: int) -> None:
        self.task, self.tx, self.steps = task, tx, steps
        self.length = chunk_length(steps)
        params, state, key = self._start(seed=0)
        loop = jax.jit(_loop(task, tx, apply_updates, self.length))
        began = time.perf_counter()
        self._loop = loop.lower(params, state, key, 0, task.data).compile()
        self.prepare_seconds = time.perf_counter() - began  # to trace, lower and compile

    def _start(self, seed: int) -> tuple[Params, OptState, Array]:
        weights, batches = jax.random.split(jax.random.key(seed))
        params = self.task.init(weights)
        return params, self.tx.init(params), batches

    def run(self, seed: int) -> Iterator[Chunk]:
        """Train from ``seed``, a chunk at a time."""
        params, state, key = self._start(seed)
        for done in range(0, self.steps, self.length):
            began = time.perf_counter()
            params, state, losses = self._loop(params, state, key, done, self.task.data)
            losses = np.asarray(losses)  # waits for the result
            seconds = time.perf_counter() - began
            yield Chunk(done + self.length, losses, params, seconds)


def _loop(task: Task, tx: Optimizer, apply_updates: Apply, length: int) -> Callable[..., Any]:
    def loop(
        params: Params, state: OptState, key: Array, start: Array, data: Any
    ) -> tuple[Params, OptState, Array]:
        def step(
            carry: tuple[Params, OptState], index: Array
        ) -> tuple[tuple[Params, OptState], Array]:
            params, state = carry
            batch = task.draw(jax.random.fold_in(key, index), data)
            loss, grads = jax.value_and_grad(task.loss)(params, batch)
            updates, state = tx.update(grads, state, params)
            return (apply_updates(params, updates), state), loss

        (params, state), losses = lax.scan(step, (params, state), start + jnp.arange(length))
        return params, state, losses

    return loop


def relative_difference(ours: Params, theirs: Params) -> float:
    """max over leaves of ||p - q||_inf / ||q||_inf."""

    def leaf(ours: Array, theirs: Array) -> float:
        p, q = np.asarray(ours), np.asarray(theirs)
        return float(np.abs(p - q).max() / max(np.abs(q).max(), np.finfo(q.dtype).tiny))

    return max(jax.tree.leaves(jax.tree.map(leaf, ours, theirs)))
