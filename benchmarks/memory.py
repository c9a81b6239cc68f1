"""Bytes a parameter of each way to train with less memory: ``python -m benchmarks.memory``.

State and parameters from live buffers, temporary memory and bytes accessed from the compiled step
(update and apply_updates, donated), on GPT-2 124M.
"""

from __future__ import annotations

import argparse
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.parameters import PARAMETER_SETS, draw, size
from benchmarks.results import write_rows
from benchmarks.ways import WAYS, Way

HEADER = "| way | params | state | of float32 | temporary | accessed |"


def measure(way: Way, params: Any, count: int) -> dict[str, float]:
    """Bytes a parameter."""
    params = jax.tree.map(lambda x: x.astype(way.dtype), params)
    tx = way.build(1e-3)

    def step(params: Any, state: Any, grads: Any) -> Any:
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


def _bytes(tree: Any) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(tree))


def main() -> None:
    """Measure all and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--set", default="gpt2", choices=PARAMETER_SETS, dest="name")
    options = parser.parse_args()
    parameter_set = PARAMETER_SETS[options.name]
    shapes = parameter_set.shapes(False)
    device = jax.devices()[0]
    params = jax.tree.map(jnp.asarray, draw(shapes, 0, 0.02, device))
    _, count = size(shapes)
    print(f"bytes a parameter, {parameter_set.title}\n\n{HEADER}\n|{' --- |' * 6}", flush=True)
    rows: list[dict[str, Any]] = []
    whole = 0.0
    for name, way in WAYS.items():
        row = measure(way, params, count)
        rows.append({"way": name, **row})
        whole = whole or row["state"]
        part = row["state"] / whole
        print(
            f"| {name} | {row['params']:.2f} | {row['state']:.2f} | {part:.3f} "
            f"| {row['temporary']:.2f} | {row['accessed']:.1f} |",
            flush=True,
        )
    name = f"precision/memory-{options.name}"
    path = write_rows(name, f"python -m benchmarks.memory --set {options.name}", device, rows)
    print(f"\nwritten: {path.name}")


if __name__ == "__main__":
    main()
