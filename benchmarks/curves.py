"""Loss against steps and against time: ``python -m benchmarks.curves``.

The character model of Python's manual is trained by AdamW and by the optimizers that came after it.
Each has the best of five learning rates, found on a seed of its own: an optimizer is a function of
its rate, so that one vmapped program trains with all five. The curves are single runs from three
other seeds. The optimizers take turns at them, a twentieth of the steps each, so that what else the
machine does slows all. On one core (``taskset -c 0 python ...``) times are those of the processor,
which other programs hardly change, otherwise those of the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax import lax

import gradtx
from benchmarks.measure import cores, now
from benchmarks.plot import draw_curves, seconds_at, smooth
from benchmarks.report import markdown_table
from benchmarks.results import FOLDER, device_facts, write_rows
from gradtx import GradientTransformation
from gradtx.demo.tasks import Params, Task, text
from gradtx.demo.training import Chunk, Trainer
from gradtx.demo.trials import in_turn

Rate = float | jax.Array

DECAY = 0.01
# Of how many steps a stored loss is the mean.
POINT = 5
SWEEP_SEED = 1000
HEADER = [
    "optimizer", "learning rate", "last loss", "held-out loss", "step, ms", "steps to AdamW's last",
    "seconds to it",
]  # fmt: skip


Build = Callable[[gradtx.Schedule], GradientTransformation]


def _muon(rate: gradtx.Schedule) -> GradientTransformation:
    """With steps as long as those of AdamW, which takes the other arrays: one rate is both's."""
    return gradtx.muon(
        rate,
        weight_decay=DECAY,
        adam_weight_decay=DECAY,
        muon_weight_dimension_numbers=gradtx.matching("qkv|mix|up|down"),
        consistent_rms=0.2,
    )


def _shampoo(rate: gradtx.Schedule) -> GradientTransformation:
    return gradtx.shampoo(
        rate, weight_decay=DECAY, precondition_frequency=10, merge_small_dims=False
    )


# Each as a function of its rate, and the rate in the middle of the first five that are tried.
ENTRIES: dict[str, tuple[Build, float]] = {
    "AdamW": (lambda rate: gradtx.adamw(rate, weight_decay=DECAY), 8e-3),
    "Muon": (_muon, 3.2e-2),
    "SOAP": (lambda rate: gradtx.soap(rate, weight_decay=DECAY), 8e-3),
    "Shampoo": (_shampoo, 8e-3),
    "Kron": (lambda rate: gradtx.kron(rate, weight_decay=DECAY), 2e-3),
}


def by_layer(task: Task) -> Task:
    """The same task with the matrices of each layer apart, as these optimizers want them."""

    def init(key: jax.Array) -> Params:
        params = task.init(key)
        depth = len(params["blocks"]["mix"])
        layers = [jax.tree.map(lambda x, i=i: x[i], params["blocks"]) for i in range(depth)]
        return params | {"blocks": layers}

    def logits(params: Params, inputs: jax.Array) -> jax.Array:
        layers = jax.tree.map(lambda *x: jax.numpy.stack(x), *params["blocks"])
        return task.logits(params | {"blocks": layers}, inputs)

    return replace(task, init=init, logits=logits)


def scheduled(build: Build, rate: Rate, steps: int) -> GradientTransformation:
    """The optimizer whose rate rises to this one in a tenth of the steps and falls to zero."""
    return build(gradtx.warmup_cosine_decay_schedule(0.0, rate, steps // 10, steps))


@dataclass(frozen=True)
class Sweep:
    """The last losses with five rates, each twice the one before."""

    rates: list[float]
    losses: list[float]

    @property
    def best(self) -> int:
        """The index of the best rate."""
        return int(np.argmin(self.losses))


def sweep(build: Build, middle: float, task: Task, steps: int) -> Sweep:
    """The five rates around one by one program, moved by four times while an outer one is best."""
    weights, draws = jax.random.split(jax.random.key(SWEEP_SEED))
    start, batches = task.init(weights), task.batches(draws, 0, steps)

    @jax.jit
    @jax.vmap
    def losses(rate: jax.Array) -> jax.Array:
        tx = scheduled(build, rate, steps)

        def step(carry: Any, batch: Any) -> tuple[Any, jax.Array]:
            params, state = carry
            loss, grads = jax.value_and_grad(task.loss)(params, batch)
            return gradtx.step(tx, grads, state, params), loss

        return lax.scan(step, (start, tx.init(start)), batches)[1]

    while True:
        rates = [middle * 2.0**k for k in range(-2, 3)]
        found = Sweep(rates, last(np.asarray(losses(np.asarray(rates, np.float32)))).tolist())
        if 0 < found.best < 4:
            return found
        middle *= 4.0 if found.best else 0.25


def last(losses: np.ndarray) -> np.ndarray:
    """The mean loss of the last tenth of the steps, for each run; infinite if it diverged."""
    means = losses[:, -max(losses.shape[1] // 10, 1) :].mean(1)
    return np.where(np.isfinite(means), means, np.inf)


Timed = tuple[Chunk, float]


def timed(run: Iterator[Chunk]) -> Iterator[Timed]:
    """Each chunk with its seconds."""
    began = now()
    for chunk in run:
        yield chunk, now() - began
        began = now()


def runs(trainers: list[Trainer], seeds: int, say: Callable[[str], None]) -> list[list[Timed]]:
    """The chunks of each optimizer, seed after seed."""
    done: list[list[Timed]] = [[] for _ in trainers]
    for seed in range(seeds):
        for chunks in in_turn([timed(trainer.run(seed)) for trainer in trainers]):
            for own, chunk in zip(done, chunks, strict=True):
                own.append(chunk)
        say(f"seed {seed}: trained")
    return done


def row(name: str, swept: Sweep, task: Task, timings: list[Timed]) -> dict[str, Any]:
    """What is written of an optimizer."""
    chunks = [chunk for chunk, _ in timings]
    steps = chunks[-1].steps
    losses = np.concatenate([chunk.losses for chunk in chunks]).reshape(-1, steps)
    seconds = np.reshape([seconds for _, seconds in timings], (len(losses), -1))
    ends = [chunk.params for chunk in chunks if chunk.steps == steps]
    return {
        "optimizer": name,
        "rates": swept.rates,
        "swept": swept.losses,
        "rate": swept.rates[swept.best],
        "steps": steps,
        "losses": last(losses).tolist(),
        "held_out": [task.score(params)[0] for params in ends],
        # Some steps do more than others, as a schedule may have it, but the same in every run.
        "chunk_s": np.median(seconds, axis=0).tolist(),
        "curves": losses.reshape(len(losses), -1, POINT).mean(2).tolist(),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """As Markdown."""
    base = smooth(np.asarray(rows[0]["curves"])).mean(0)[-1]

    def cells(row: dict[str, Any]) -> list[str]:
        means = smooth(np.asarray(row["curves"])).mean(0)
        there = np.flatnonzero(means <= base)
        part = (int(there[0]) + 1) / len(means) if len(there) else None
        return [
            row["optimizer"],
            f"{row['rate']:.3g}",
            *(f"{np.mean(x):.3f} ± {np.ptp(x) / 2:.3f}" for x in (row["losses"], row["held_out"])),
            f"{1e3 * sum(row['chunk_s']) / row['steps']:.1f}",
            "never" if part is None else f"{part * row['steps']:.0f}",
            "never" if part is None else f"{seconds_at(row, part):.1f}",
        ]

    return markdown_table(HEADER, [cells(row) for row in rows])


def main() -> None:
    """Sweep, train, print, write and draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curves", description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    task, began = by_layer(text()), time.perf_counter()

    def say(what: str) -> None:
        print(f"{time.perf_counter() - began:5.0f} s  {what}", file=sys.stderr, flush=True)

    swept, trainers = {}, []
    for name, (build, middle) in ENTRIES.items():
        swept[name] = found = sweep(build, middle, task, options.steps)
        say(f"{name}: {found}")
        tx = scheduled(build, found.rates[found.best], options.steps)
        trainers.append(Trainer(task, tx, gradtx, options.steps))
    load = [os.getloadavg()[0]]
    chunks = runs(trainers, options.seeds, say)
    load.append(os.getloadavg()[0])
    rows = [row(name, swept[name], task, own) for name, own in zip(ENTRIES, chunks, strict=True)]
    print(table(rows))
    pinned = "taskset -c 0 " if cores() == 1 else ""
    command = f"{pinned}python -m benchmarks.curves --steps {options.steps} --seeds {options.seeds}"
    path = FOLDER / "quality/curves.json"
    device = device_facts(jax.devices()[0])
    write_rows(path, command, device, rows, task=task.about, load=load)
    draw_curves(json.loads(path.read_text()), path.with_suffix(".png"))
    print(f"\nwritten: {path.name} and curves.png")


if __name__ == "__main__":
    main()
