"""What less memory costs in quality: ``python -m benchmarks.quality``.

The character model of Python's manual is trained for the same number of steps with each way to keep
parameters and state. The figure is the mean loss of the last tenth of the steps, over three seeds.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.typing import DTypeLike

from benchmarks.plot import draw_quality
from benchmarks.report import markdown_table
from benchmarks.results import FOLDER, device_facts, write_rows
from benchmarks.ways import WAYS, Way
from gradtx.demo.tasks import Params, Task, text
from gradtx.demo.training import Trainer

RATE = 3e-3
HEADER = ["way", "last loss", "spread", "against float32"]


def kept_in(task: Task, dtype: DTypeLike) -> Task:
    """The same task with its parameters in a dtype; the model still computes in float32."""

    def init(key: jax.Array) -> Params:
        return jax.tree.map(lambda x: x.astype(dtype), task.init(key))

    def logits(params: Params, inputs: jax.Array) -> jax.Array:
        return task.logits(jax.tree.map(lambda x: x.astype(np.float32), params), inputs)

    return replace(task, init=init, logits=logits)


def train(way: Way, task: Task, steps: int, seeds: int) -> np.ndarray:
    """The losses, [seeds, steps]."""
    trainer = Trainer(kept_in(task, way.dtype), way.build(RATE), way.library.apply_updates, steps)
    runs = [np.concatenate([chunk.losses for chunk in trainer.run(seed)]) for seed in range(seeds)]
    return np.stack(runs)


def last(losses: np.ndarray) -> np.ndarray:
    """The mean loss of the last tenth of the steps, for each seed."""
    return np.asarray(losses[:, -max(losses.shape[1] // 10, 1) :].mean(1))


def table(rows: list[dict[str, Any]]) -> str:
    """As Markdown."""
    base = np.mean(rows[0]["losses"])

    def cells(row: dict[str, Any]) -> list[str]:
        mean, spread = np.mean(row["losses"]), np.std(row["losses"])
        return [row["way"], f"{mean:.4f}", f"{spread:.4f}", f"{100 * (mean / base - 1):+.2f}%"]

    return markdown_table(HEADER, [cells(row) for row in rows])


def main() -> None:
    """Train all, print, write and draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    task, rows = text(), []
    order = ["float32", *(name for name in WAYS if name != "float32")]
    for name in order:
        began = time.perf_counter()
        losses = train(WAYS[name], task, options.steps, options.seeds)
        rows.append({"way": name, "losses": last(losses).tolist()})
        seconds = time.perf_counter() - began
        print(f"{name}: {last(losses).mean():.4f}, {seconds:.0f} s", file=sys.stderr, flush=True)
    print(table(rows))
    command = f"python -m benchmarks.quality --steps {options.steps} --seeds {options.seeds}"
    facts = {"task": task.about, "learning_rate": RATE}
    path = FOLDER / "precision/quality.json"
    write_rows(path, command, device_facts(jax.devices()[0]), rows, **facts)
    draw_quality(rows, task.about, path.with_suffix(".png"))
    print(f"\nwritten: {path.name} and quality.png")


if __name__ == "__main__":
    main()
