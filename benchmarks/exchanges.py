"""What eight devices send each other in a step, beside Optax: ``python -m benchmarks.exchanges``.

Virtual CPU devices as 2 x 4, with four layers of a transformer whose matrices are divided over both
axes. Collectives are counted in the compiled steps: exact, without noise. The bytes are those that
one device sends or receives in all of them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import markdown_table
from benchmarks.results import FOLDER, library_versions

RESULTS = FOLDER / "sharding" / "exchanges.json"

LAYERS, WIDTH, HIDDEN = 4, 64, 256
# The shape of each parameter of a layer, and which axes of the mesh divide it.
LAYER: dict[str, tuple[tuple[int, ...], tuple[str | None, ...]]] = {
    **dict.fromkeys(("query", "key", "value"), ((WIDTH, WIDTH), ("data", "model"))),
    "output": ((WIDTH, WIDTH), ("model", "data")),
    "up": ((WIDTH, HIDDEN), ("data", "model")),
    "down": ((HIDDEN, WIDTH), ("model", "data")),
    "scale": ((WIDTH,), (None,)),
}

Row = dict[str, Any]


def cases(gradtx: Any, optax: Any) -> dict[str, tuple[Any, Any]]:
    """By name an optimizer of gradtx and that of Optax, None where it has none."""

    def both(make: Callable[[Any], Any]) -> tuple[Any, Any]:
        return make(gradtx), make(optax)

    return {
        "adamw": both(lambda lib: lib.adamw(1e-3)),
        "lion": both(lambda lib: lib.lion(1e-3)),
        "clip, adamw": both(lambda lib: lib.chain(lib.clip_by_global_norm(1.0), lib.adamw(1e-3))),
        "lamb": both(lambda lib: lib.lamb(1e-3)),
        "adafactor": both(lambda lib: lib.adafactor(1e-3, min_dim_size_to_factor=32)),
        "muon": (gradtx.muon(1e-3), optax.contrib.muon(1e-3)),
        "soap": (gradtx.soap(1e-3), None),
        "shampoo": (gradtx.shampoo(1e-3), None),
        "kron": (gradtx.kron(1e-3), None),
        "galore": (gradtx.galore(1e-3, rank=8), None),
        'store(adamw, "int8")': (gradtx.store(gradtx.adamw(1e-3), "int8"), None),
        "accumulate(adamw, 4)": (
            gradtx.accumulate(gradtx.adamw(1e-3), 4),
            optax.MultiSteps(optax.adamw(1e-3), 4),
        ),
    }


def counted(names: Sequence[str] | None = None) -> list[Row]:
    """The collectives of each case, in this process, which must have eight devices."""
    jax: Any = importlib.import_module("jax")
    gradtx, optax = map(importlib.import_module, ("gradtx", "optax"))
    axes = ("data", "model")
    mesh = jax.make_mesh((2, 4), axes, axis_types=(jax.sharding.AxisType.Auto,) * 2)

    def parameter(name: str) -> Any:
        shape, spec = LAYER[name]
        where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
        return jax.device_put(jax.random.normal(jax.random.key(0), shape), where)

    params = {f"{i}/{name}": parameter(name) for i in range(LAYERS) for name in LAYER}
    size = sum(4 * math.prod(shape) for shape, _ in LAYER.values()) * LAYERS

    def collectives(tx: Any) -> Row | None:
        if tx is None:
            return None

        def step(grads: Any, state: Any, params: Any) -> Any:
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        state = tx.init(params)
        text = jax.jit(step).lower(params, state, params).compile().as_text()
        found = gradtx.sharding.collectives(text)
        return {"number": len(found), "share": sum(one.bytes for one in found) / size}

    return [
        {"optimizer": name, "gradtx": collectives(ours), "optax": collectives(theirs)}
        for name, (ours, theirs) in cases(gradtx, optax).items()
        if names is None or name in names
    ]


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    header = ["collectives, bytes / those of the parameters", "gradtx", "Optax"]
    return markdown_table(
        header,
        [[f"`{row['optimizer']}`", _text(row["gradtx"]), _text(row["optax"])] for row in rows],
    )


def _text(found: Row | None) -> str:
    if found is None:
        return "-"
    share = found["share"]
    size = "<0.01" if 0 < share < 0.01 else f"{share:.2f}"
    return f"{found['number']}, {size}" if found["number"] else "none"


def main(arguments: list[str] | None = None) -> int:
    """Count, write the results and print them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exchanges", description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the results are written")
    options = parser.parse_args(arguments)
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    os.environ["JAX_PLATFORMS"] = "cpu"
    given = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "-m", "benchmarks.exchanges", *given])
    data: dict[str, Any] = {"command": command, "versions": library_versions(), "rows": counted()}
    options.json.write_text(json.dumps(data, indent=1) + "\n")
    print(table(data["rows"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
