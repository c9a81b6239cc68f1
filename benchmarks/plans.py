"""What optimizers need on many devices, from one billion parameters on 8 x H100 to 70 billion on
1024 TPUs: ``python -m benchmarks.plans``.

Each step is compiled by the target's own compiler, on a machine that has none of them.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jax.sharding import AbstractMesh

from benchmarks.environments import MissingError, python_for
from benchmarks.report import markdown_table
from benchmarks.results import FOLDER, library_versions
from gradtx.demo.plans import DEFAULT, cells, named
from gradtx.sharding import Plan, models, on_mesh, plan
from gradtx.sharding.targets import ENVIRONMENT, Target

RESULTS = FOLDER / "sharding" / "plans.json"

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A model on a mesh of a target's devices. zero: an axis over which the state is spread too."""

    model: str
    target: str
    mesh: tuple[tuple[str, int], ...]
    layout: models.Layout
    zero: str | None = None

    @property
    def title(self) -> str:
        """As the table shows it."""
        over = " x ".join(f"{name} {n}" for name, n in self.mesh)
        layout = self.layout + (", zero" if self.zero else "")
        return f"{self.model}, {self.target}: {over}, {layout}"

    def rows(self, optimizers: Sequence[str]) -> list[Row]:
        """The plan of each optimizer, compiled in this process."""
        axes, sizes = zip(*self.mesh, strict=True)
        params = models.parameters(self.model, AbstractMesh(sizes, axes), self.layout)
        chosen = named(optimizers, self.model)
        if "muon" in chosen and self.asks_users:
            chosen["on_mesh(muon, params)"] = on_mesh(chosen["muon"], params)
        return [
            vars(plan(tx, params, zero=self.zero, target=self.target))
            | {"optimizer": name, "case": self.title}
            for name, tx in chosen.items()
        ]

    @property
    def asks_users(self) -> bool:
        """Whether neither the compiler nor `zero` knows how the parameters lie."""
        return Target.parse(self.target).platform == "tpu" and self.zero is None


_CHIPS = (("data", 64), ("model", 16))
CASES = [
    Case("llama-1b", "h100x8", (("data", 8),), "replicated"),
    Case("llama-1b", "h100x8", (("data", 8),), "replicated", "data"),
    Case("llama-1b", "h100x8", (("data", 8),), "full"),
    Case("llama-8b", "v5e:8x8", (("data", 16), ("model", 4)), "tensor"),
    Case("llama-8b", "v5e:8x8", (("data", 16), ("model", 4)), "tensor", "data"),
    Case("llama-8b", "v5e:8x8", (("data", 16), ("model", 4)), "full"),
    Case("llama-70b", "v5p:8x8x16", _CHIPS, "tensor"),
    Case("llama-70b", "v5p:8x8x16", _CHIPS, "tensor", "data"),
    Case("llama-70b", "v5p:8x8x16", _CHIPS, "full"),
]


def table(rows: Sequence[Row]) -> str:
    """The rows in MiB a device, as Markdown, a table for each case."""
    header = ["MiB a device", "parameters", "gradients", "state", "temporary", "collectives"]
    parts = []
    for title in dict.fromkeys(row["case"] for row in rows):
        own = [row for row in rows if row["case"] == title]
        parts += [f"**{title}**", markdown_table(header, [_cells(row) for row in own])]
    return "\n\n".join(parts)


def _cells(row: Row) -> list[str]:
    made = Plan(**{name: row[name] for name in row if name != "case"})
    *sizes, _, collectives = cells(made)
    return [f"`{row['optimizer']}`", *sizes, collectives]


def _there(case: Case, optimizers: Sequence[str]) -> list[Row]:
    """The rows of a case, compiled by a Python that has the target's compiler."""
    platform = Target.parse(case.target).platform
    command = [str(python_for(platform)), "-m", "benchmarks.plans", "--case", case.title]
    done = subprocess.run(
        [*command, *(word for name in optimizers for word in ("--optimizer", name))],
        env=os.environ | ENVIRONMENT[platform] | {"PYTHONPATH": str(FOLDER.parents[1])},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    rows: list[Row] = json.loads(done.stdout.splitlines()[-1])
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Compile the cases and write the results, or print those that are there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plans", description=__doc__)
    add = parser.add_argument
    add("--models", help="comma-separated; default: all")
    add("--optimizer", action="append", help="may be given again; default: five")
    add("--json", type=Path, default=RESULTS, help="where the results are")
    add("--show", action="store_true", help="print the results that are there")
    add("--case", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    optimizers = options.optimizer or list(DEFAULT)
    if options.show:
        print(table(json.loads(options.json.read_text())["rows"]))
        return 0
    if options.case:
        (case,) = (case for case in CASES if case.title == options.case)
        print(json.dumps(case.rows(optimizers)))
        return 0
    chosen = options.models.split(",") if options.models else list(models.MODELS)
    rows = []
    for case in CASES:
        if case.model in chosen:
            try:
                rows += _there(case, optimizers)
            except MissingError as error:
                print(f"{case.title}: {error}", file=sys.stderr)
                return 2
            print(f"{case.title}: done", file=sys.stderr)
    given = sys.argv[1:] if arguments is None else arguments
    facts = {"command": shlex.join(["python", "-m", "benchmarks.plans", *given])}
    options.json.write_text(
        json.dumps(facts | {"versions": library_versions(), "rows": rows}, indent=1) + "\n"
    )
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
