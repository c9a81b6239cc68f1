"""Count what compiled training steps of gradtx and Optax move, for a target that need not be there.

A step is update and apply_updates, jitted, with parameters and state donated. It is compiled for a
CPU, an H100 or a TPU ahead of time, by the compilers that run there, and never executed: the
figures are exact. Bytes are those that XLA says are accessed or, for a GPU, the operands and
results of all kernels; every branch of a conditional and a loop's body count once.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.compiler import CompileError, Compiler, Figures
from benchmarks.environments import MissingError, make
from benchmarks.options import command, names
from benchmarks.parameters import PARAMETER_SETS, size
from benchmarks.recipes import LIBRARIES
from benchmarks.report import markdown_table, stroke
from benchmarks.results import FOLDER, write_rows
from benchmarks.steps import STEPS
from gradtx.sharding.targets import EXAMPLES, Target

HEADER = ["parameters", "step", "bytes", "floor", "temporary", "kernels", "collectives"]

LEGEND = """\
Two figures with a slash are gradtx / Optax. bytes, temporary: accessed and temporary, a parameter.
floor: the bytes that the program cannot avoid; in brackets, where that is less, those of touching
each array once (a norm or a block's scale makes it read some twice) or of the mean step (a program
has every branch). kernels: what the program runs one after the other."""
SHARDED = """\
On a mesh every array is cut along its longest axis that the number of devices divides, as fully
sharded data parallel training does, and whole on each device where there is none; the gradients
too, so that the collectives are those of the optimizer alone. Bytes are those of all devices
together; kernels and collectives those of each."""

Row = dict[str, Any]


def _target(name: str) -> Target:
    try:
        return Target.parse(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.programs",
        description=__doc__,
        epilog="Results are written to benchmarks/results/programs/TARGET.json, beside what is "
        "there of other steps and sets. Accelerators need a Python of their own, with their "
        "compiler: it is made once, in the user's cache folder, if --python or the environment "
        "variables GRADTX_H100_PYTHON and GRADTX_TPU_PYTHON name none.",
    )
    add = parser.add_argument
    targets = f"{', '.join(EXAMPLES)}, ...; default: cpu"
    add("--target", type=_target, default="cpu", help=targets)
    add("--recipes", type=names("recipe", STEPS), help="comma-separated; default: all")
    sets = names("set", PARAMETER_SETS)
    default = "mlp,vector,gpt2"
    add("--sets", type=sets, default=default, help=f"comma-separated; default: {default}")
    add("--python", type=Path, help="the Python that has JAX, Optax and the target's compiler")
    add("--make", action="store_true", help="make the target's environment and stop")
    add("--json", type=Path, help="where to write the results instead")
    add("--show", action="store_true", help="print the results that are there, side by side")
    add("--list", action="store_true", help="list recipes and sets")
    return parser


def _list() -> None:
    for name, step in STEPS.items():
        print(f"recipe  {name:49} {step.title}; floor {step.program:g} bytes a parameter")
    for name, one in PARAMETER_SETS.items():
        leaves, parameters = size(one.shapes(quick=False))
        print(f"set     {name:49} {one.title}; {leaves} leaves, {parameters:,} parameters")


def measure(compiler: Callable[..., Figures], name: str, step: str) -> Row:
    """A step on a set of parameters, by both libraries or by gradtx alone."""
    leaves, parameters = size(PARAMETER_SETS[name].shapes(quick=False))
    floors = {"floor": STEPS[step].program, "touched_once": STEPS[step].floor}
    row: Row = {"set": name, "recipe": step, "leaves": leaves, "parameters": parameters, **floors}
    for library in LIBRARIES:
        row[library] = None
        if library in STEPS[step].libraries:
            try:
                figures = compiler("benchmarks.steps:on_set", library, step, name)
                row[library] = figures.per(parameters)
            except CompileError as error:
                row[library] = {"error": str(error)}
    return row


def cells(row: Row) -> list[str]:
    """A row of the table of one target."""
    return [
        PARAMETER_SETS[row["set"]].title,
        STEPS[row["recipe"]].title,
        _both(row, lambda side: f"{side['bytes']:.1f}"),
        _floor(row["floor"], row["touched_once"]),
        _both(row, lambda side: f"{side['temporary']:.2f}"),
        _both(row, lambda side: str(side["kernels"])),
        _both(row, lambda side: _list_of(side["collectives"])),
    ]


def _both(row: Row, text: Callable[[Row], str]) -> str:
    sides = [side for library in LIBRARIES if (side := row[library]) is not None]
    texts = ["failed" if "error" in side else text(side) for side in sides]
    return stroke(texts) if any(texts) else ""


def side_by_side(folder: Path, sets: Sequence[str]) -> str:
    """The results in a folder, a table for each set with a column for each target."""
    paths = sorted((folder / "programs").glob("*.json"))
    found = [json.loads(path.read_text()) for path in paths]
    parts = [f"{PARAMETER_SETS[name].title}:\n\n{_columns(found, name)}" for name in sets]
    every = (one for data in found for one in data["command"].split("; "))
    commands = ", ".join(f"`{one}`" for one in every if any(name in one for name in sets))
    versions = sorted({f"JAX {data['versions']['jax']}" for data in found})
    return "\n\n".join([*parts, f"({commands}; {', '.join(versions)})"])


def _columns(found: list[Row], name: str) -> str:
    tables: dict[str, dict[str, Row]] = {}
    for data in found:
        if rows := {row["recipe"]: row for row in data["rows"] if row["set"] == name}:
            tables[data["target"]] = rows
    body = [
        [step.title, _floor(step.program, step.floor)]
        + [_both(rows[key], _cell) if key in rows else "" for rows in tables.values()]
        for key, step in STEPS.items()
        if any(key in rows for rows in tables.values())
    ]
    return markdown_table(["", "floor", *tables], body)


def _cell(side: Row) -> str:
    """Bytes accessed, and temporary ones where there are any."""
    temporary = f" + {side['temporary']:.2g}" if side["temporary"] >= 0.05 else ""
    return f"{side['bytes']:.1f}{temporary}"


def _floor(program: float, touched_once: float) -> str:
    return f"{program:g}" + (f" ({touched_once:g})" if touched_once != program else "")


def _list_of(collectives: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(collectives.items())) or "none"


def _order(row: Row) -> tuple[int, int]:
    return list(PARAMETER_SETS).index(row["set"]), list(STEPS).index(row["recipe"])


def _kept(path: Path, facts: Row, rows: list[Row]) -> tuple[list[str], list[Row]]:
    """Of the results that are there, the commands, and the rows that were not measured anew; none
    if they are of other versions."""
    found = json.loads(path.read_text()) if path.exists() else {}
    if found.get("versions") != facts["versions"]:
        return [], []
    anew = [(row["set"], row["recipe"]) for row in rows]
    kept = [row for row in found["rows"] if (row["set"], row["recipe"]) not in anew]
    kept = [row for row in kept if row["set"] in PARAMETER_SETS and row["recipe"] in STEPS]
    return found["command"].split("; ") if kept else [], kept


def _write(path: Path, typed: str, target: Target, facts: Row, rows: list[Row]) -> None:
    commands, kept = _kept(path, facts, rows)
    commands = [*(one for one in commands if one != typed), typed]
    heading = {"target": target.name, "versions": facts["versions"]}
    every = sorted([*kept, *rows], key=_order)
    write_rows(path, "; ".join(commands), facts["device"], every, **heading)


def _run(options: argparse.Namespace, typed: str) -> list[Row]:
    """Measure, and write after each case, so that a run that is cut short leaves what it has."""
    target: Target = options.target
    path = options.json or FOLDER / "programs" / f"{target.file_name}.json"
    plan = [(name, step) for name in options.sets for step in options.recipes or STEPS]
    rows: list[Row] = []
    start = time.perf_counter()
    with Compiler(target, options.python or make(target.platform)) as compiler:
        for name, step in plan:
            rows.append(measure(compiler, name, step))
            _write(path, typed, target, compiler.facts, rows)
            done = f"{time.perf_counter() - start:5.0f} s  {len(rows):{len(str(len(plan)))}}"
            bytes_accessed = cells(rows[-1])[2]
            print(f"{done}/{len(plan)}  {name:8} {step}: {bytes_accessed}", file=sys.stderr)
    print(f"written: {path.name}", file=sys.stderr)
    return rows


def main(arguments: Sequence[str]) -> int:
    """Run and print; 1 if a step did not compile, 2 if nothing could be."""
    options = _parser().parse_args(arguments)
    if options.list:
        _list()
        return 0
    if options.show:
        print(side_by_side(FOLDER, options.sets))
        return 0
    try:
        if options.make:
            print(make(options.target.platform))
            return 0
        rows = _run(options, command("benchmarks.programs", arguments))
    except (MissingError, CompileError) as error:
        print(error, file=sys.stderr)
        return 2
    print(markdown_table(HEADER, [cells(row) for row in rows]))
    print(f"\n{LEGEND}" + (f"\n{SHARDED}" if options.target.shape else ""))
    failed = [(row, row[lib]["error"]) for row in rows for lib in LIBRARIES if _failed(row[lib])]
    for row, why in failed:
        print(f"\n{row['set']} {row['recipe']}: {why}")
    return int(bool(failed))


def _failed(side: Row | None) -> bool:
    return side is not None and "error" in side


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
