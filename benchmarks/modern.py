"""Count what the optimizers of today cost on GPT-2's shapes, whose steps are not all alike.

SOAP, Shampoo and Kron do their dearest work now and then: a step in which it is due is counted
beside a quiet one, and both in their mean over a period. Programs are compiled for a CPU, an H100
or a TPU ahead of time, as by `python -m benchmarks.programs`, and never executed.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

import gradtx
from benchmarks.compiler import CompileError, Compiler, Training
from benchmarks.environments import make
from benchmarks.options import command, names
from benchmarks.parameters import Shapes, abstract, blocks, equal_leaves, gpt2, size
from benchmarks.recipes import step_of
from benchmarks.report import markdown_table
from benchmarks.results import FOLDER, write_rows
from benchmarks.targets import EXAMPLES, Target
from gradtx import GradientTransformation

Row = dict[str, Any]


@dataclass(frozen=True)
class Modern:
    """An optimizer. period: the steps after which what is rare is due again, 1 if nothing is."""

    title: str
    build: Callable[[], GradientTransformation]
    period: float = 1

    def training(self, shapes: Shapes) -> Training:
        """A step on parameters of these shapes."""
        tx, params = self.build(), abstract(shapes, np.float32)
        return Training(step_of(gradtx, tx), params, jax.eval_shape(tx.init, params), params)


# Kron's factors are due on every step at first, and at last on 3 of 100.
KRON = 1 / 0.03
# Shampoo's roots are due on every step by default; here as often as SOAP's bases.
EVERY = 10
MODERN: dict[str, Modern] = {
    "adamw": Modern("AdamW", lambda: gradtx.adamw(1e-3)),
    "soap": Modern("SOAP", lambda: gradtx.soap(3e-3), EVERY),
    "soap_1024": Modern(
        "SOAP, axes up to 1024", lambda: gradtx.soap(3e-3, max_precond_dim=1024), EVERY
    ),
    "shampoo": Modern(
        "Shampoo, every 10", lambda: gradtx.shampoo(1e-2, precondition_frequency=EVERY), EVERY
    ),
    "kron": Modern("Kron", lambda: gradtx.kron(1e-3), KRON),
    "kron_one_diag": Modern(
        "Kron, one diagonal", lambda: gradtx.kron(1e-3, memory_save_mode="one_diag"), KRON
    ),
    "procrustes": Modern("Kron, Procrustes", lambda: gradtx.kron(1e-3, method="procrustes"), KRON),
    "muon": Modern("Muon", lambda: gradtx.muon(1e-2)),
    "muon_jordan": Modern("Muon, Jordan's", lambda: gradtx.muon(1e-2, bias_correction=False)),
    "muon_polar_express": Modern(
        "Muon, Polar Express", lambda: gradtx.muon(1e-2, ns_coeffs="polar_express")
    ),
    "muon_spectral": Modern("Muon, spectral scale", lambda: gradtx.muon(1e-2, scale="spectral")),
    "normuon": Modern("NorMuon", lambda: gradtx.normuon(0.02)),
    "scion": Modern("Scion", lambda: gradtx.scion(1e-3)),
    "hyperball": Modern(
        "AdamW by hyperball", lambda: gradtx.hyperball(gradtx.scale_by_adam(), 1e-2)
    ),
    "mars": Modern("MARS", lambda: gradtx.mars(3e-3)),
    "laprop": Modern("LaProp", lambda: gradtx.laprop(4e-4)),
    "stable_adamw": Modern("StableAdamW", lambda: gradtx.stable_adamw(1e-3)),
    "came": Modern("CAME", lambda: gradtx.came(2e-4)),
    "adam_mini": Modern("Adam-mini", lambda: gradtx.adam_mini(1e-3)),
    "torch_muon": Modern("gradtx.torch.muon", lambda: gradtx.torch.muon(1e-3)),
}


def squares(layers: int = 12) -> Shapes:
    """Matrices for which TPU's decompositions compile in seconds: of more than 256 rows they take
    minutes for each size."""
    return equal_leaves(8 * layers, (256, 256))


SETS: dict[str, Callable[..., Shapes]] = {"gpt2": gpt2, "blocks": blocks, "squares": squares}
TITLES = {"gpt2": "GPT-2", "blocks": "GPT-2's matrices", "squares": "8 matrices of 256 x 256"}
# For matrices only.
MATRICES = ("torch_muon",)


def training(name: str, parameters: str, layers: int) -> Training:
    """A step on a set of parameters, all by their names."""
    return MODERN[name].training(SETS[parameters](layers=layers))


def measure(compiler: Compiler, name: str, parameters: str, layers: int, limit: float) -> Row:
    """A step on GPT-2, or on its matrices, of some layers; limit: seconds until it is given up."""
    shapes = SETS[parameters](layers=layers)
    leaves, count = size(shapes)
    state = jax.tree.leaves(MODERN[name].training(shapes).state)
    held = sum(x.size * x.dtype.itemsize for x in state) / count
    row: Row = {"set": parameters, "layers": layers, "recipe": name, "leaves": leaves}
    row |= {"parameters": count, "period": MODERN[name].period, "state": held}
    given_up = threading.Timer(limit, compiler.process.kill)
    given_up.start()
    try:
        figures = compiler("benchmarks.modern:training", name, parameters, layers)
        return row | figures.per(count)
    except CompileError as error:
        late = not given_up.is_alive()
        return row | {"error": f"not compiled in {limit:g} s" if late else str(error)}
    finally:
        given_up.cancel()


def amortised(row: Row) -> float:
    """The bytes of a step, in the mean over a period."""
    rare = 1 / row["period"]
    return float((1 - rare) * row["quiet"][0] + rare * row["due"][0])


def _is_rare(row: Row) -> bool:
    return bool(row["period"] > 1)


HEADER = ["", "state", "bytes", "when due", "in the mean", "temporary", "kernels", "compile s"]


def cells(row: Row) -> list[str]:
    """A row of the table of one target; of a step that has no rare work, what all steps do."""
    start = [MODERN[row["recipe"]].title, f"{row['state']:.1f}"]
    if "error" in row:
        return [*start, row["error"], "", "", "", "", ""]
    (quiet, few), (due, many) = row["quiet"], row["due"]
    rare = _is_rare(row)
    return [
        *start,
        f"{quiet if rare else row['bytes']:.1f}",
        f"{due:.0f}" if rare else "",
        f"{amortised(row):.0f}" if rare else "",
        f"{row['temporary']:.1f}",
        f"{few} / {many}" if rare else f"{row['kernels']}",
        f"{row['seconds']:.0f}",
    ]


def tables(rows: Iterable[Row]) -> str:
    """A table for each set and number of layers."""
    parts: dict[str, list[list[str]]] = {}
    for row in rows:
        title = f"{TITLES[row['set']]}, layers: {row['layers']}"
        parts.setdefault(title, []).append(cells(row))
    return "\n\n".join(f"{title}:\n\n{markdown_table(HEADER, own)}" for title, own in parts.items())


# What is shown on a page: a set and its number of layers.
SHOWN = (("gpt2", 12), ("blocks", 1), ("squares", 12))


def side_by_side(folder: Path) -> str:
    """The results in a folder, a table for each set with a column for each target."""
    found = [json.loads(path.read_text()) for path in sorted((folder / "modern").glob("*.json"))]
    parts = [f"{TITLES[own[0]]}, layers: {own[1]}:\n\n{_columns(found, *own)}" for own in SHOWN]
    versions = sorted({f"JAX {data['versions']['jax']}" for data in found})
    return "\n\n".join([*parts, f"(`python -m benchmarks.modern`; {', '.join(versions)})"])


def _columns(found: list[Row], parameters: str, layers: int) -> str:
    columns: dict[str, dict[str, Row]] = {}
    for data in found:
        rows = [row for row in data["rows"] if (row["set"], row["layers"]) == (parameters, layers)]
        if counted := {row["recipe"]: row for row in rows if "error" not in row}:
            columns[data["target"]] = counted
    body = []
    for name, one in MODERN.items():
        if known := [rows[name] for rows in columns.values() if name in rows]:
            shown = [_cell(rows[name]) if name in rows else "" for rows in columns.values()]
            body.append([one.title, f"{known[0]['state']:.1f}", *shown])
    return markdown_table(["", "state", *columns], body)


def _cell(row: Row) -> str:
    """Bytes accessed, quiet / due: in the mean, and temporary ones where there are any."""
    temporary = f" + {row['temporary']:.2g}" if row["temporary"] >= 0.05 else ""
    if not _is_rare(row):
        return f"{row['bytes']:.1f}{temporary}"
    return f"{row['quiet'][0]:.0f} / {row['due'][0]:.0f}: {amortised(row):.0f}{temporary}"


def _path(target: Target) -> Path:
    return FOLDER / "modern" / f"{target.file_name}.json"


def _key(row: Row) -> tuple[str, int, str]:
    return row["set"], row["layers"], row["recipe"]


def _write(path: Path, typed: str, target: Target, device: Row, versions: Row, row: Row) -> None:
    """The row beside those that are there, in the place of an older one of the same case."""
    found: Row = json.loads(path.read_text()) if path.exists() else {"rows": [], "command": typed}
    rows = [*(one for one in found["rows"] if _key(one) != _key(row)), row]
    rows.sort(key=lambda one: (one["set"], -one["layers"], list(MODERN).index(one["recipe"])))
    commands = [*(one for one in found["command"].split("; ") if one != typed), typed]
    write_rows(path, "; ".join(commands), device, rows, target=target.name, versions=versions)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.modern", description=__doc__)
    add = parser.add_argument
    add("--target", type=Target.parse, default="cpu", help=f"{', '.join(EXAMPLES[::3])}, ...")
    add("--recipes", type=names("recipe", MODERN), help="comma-separated; default: all")
    add("--set", choices=SETS, default="gpt2")
    add("--layers", type=int, default=12)
    add("--limit", type=float, default=600, help="seconds until a program is given up")
    add("--python", type=Path, help="the Python that has JAX and the target's compiler")
    add("--show", action="store_true", help="print the results that are there")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run and print; 1 if a step did not compile."""
    options = _parser().parse_args(arguments)
    target: Target = options.target
    path, typed, rows = _path(target), command("benchmarks.modern", arguments), []
    if options.show:
        print(tables(json.loads(path.read_text())["rows"]))
        return 0
    with Compiler(target, options.python or make(target.platform)) as compiler:
        facts = compiler.facts
        for name in options.recipes or MODERN:
            if name in MATRICES and options.set == "gpt2":
                continue
            rows.append(measure(compiler, name, options.set, options.layers, options.limit))
            _write(path, typed, target, facts["device"], facts["versions"], rows[-1])
            print(" | ".join(cells(rows[-1])), file=sys.stderr, flush=True)
    print(tables(rows))
    return int(any("error" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
