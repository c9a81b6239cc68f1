"""Bytes per parameter of each way to train with less memory: ``python -m benchmarks.memory``.

State and parameters from live buffers, temporary memory and bytes accessed from the compiled step
(update and apply_updates, donated), on GPT-2 124M.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.parameters import PARAMETER_SETS, draw, size
from benchmarks.report import markdown_table
from benchmarks.results import FOLDER, device_facts, write_rows
from benchmarks.ways import WAYS, Way
from gradtx import OptState, Params, Updates

HEADER = ["way", "params", "state", "of float32", "temporary", "accessed"]


def measure(way: Way, params: Params, count: int) -> dict[str, float]:
    """Bytes per parameter."""
    params = jax.tree.map(lambda x: x.astype(way.dtype), params)
    tx = way.build(1e-3)

    def step(params: Params, state: OptState, grads: Updates) -> tuple[Params, OptState]:
        updates, state = tx.update(grads, state, params)
        return way.library.apply_updates(params, updates), state

    state = jax.jit(tx.init)(params)
    program = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params).compile()
    memory: Any = program.memory_analysis()
    cost: Any = program.cost_analysis()
    return {
        "params": _bytes(params) / count,
        "state": _bytes(state) / count,
        "temporary": memory.temp_size_in_bytes / count,
        "accessed": cost["bytes accessed"] / count,
    }


def _bytes(tree: Params | OptState) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(tree))


def table(rows: list[dict[str, Any]]) -> str:
    """As Markdown."""
    whole = rows[0]["state"]

    def cells(row: dict[str, Any]) -> list[str]:
        figures = [f"{row[what]:.2f}" for what in ("params", "state")]
        figures += [f"{row['state'] / whole:.3f}", f"{row['temporary']:.2f}"]
        return [row["way"], *figures, f"{row['accessed']:.1f}"]

    return markdown_table(HEADER, [cells(row) for row in rows])


def main() -> None:
    """Measure all, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--set", default="gpt2", choices=PARAMETER_SETS, dest="name")
    options = parser.parse_args()
    parameter_set = PARAMETER_SETS[options.name]
    shapes = parameter_set.shapes(False)
    device = jax.devices()[0]
    params = jax.tree.map(jnp.asarray, draw(shapes, 0, 0.02, device))
    _, count = size(shapes)
    rows: list[dict[str, Any]] = []
    for name, way in WAYS.items():
        print(name, file=sys.stderr, flush=True)
        rows.append({"way": name, **measure(way, params, count)})
    print(f"bytes a parameter, {parameter_set.title}\n\n{table(rows)}")
    path = FOLDER / f"precision/memory-{options.name}.json"
    command = f"python -m benchmarks.memory --set {options.name}"
    write_rows(path, command, device_facts(device), rows)
    print(f"\nwritten: {path.name}")


if __name__ == "__main__":
    main()
