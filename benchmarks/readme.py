"""Write the README's tables from the newest results: ``python -m benchmarks.readme``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.bars import HEADER, bar_rows
from benchmarks.parameters import PARAMETER_SETS
from benchmarks.recipes import RECIPES
from benchmarks.report import headline, markdown_table, ratio_text, stroke
from benchmarks.results import FOLDER, CaseResult, Results, newest

START, END = "<!-- benchmarks:start -->", "<!-- benchmarks:end -->"


def generated(folder: Path) -> str:
    """All tables; the same for the same files."""
    every = newest(folder)
    if not every:
        return "No results yet: `python -m benchmarks`."
    return "\n\n".join(_section(results, folder) for results in every)


def _section(results: Results, folder: Path) -> str:
    commands = ", ".join(f"`{command}`" for command in results.commands)
    minutes = f"{results.seconds / 60:.1f} minutes"
    parts = [f"**{headline(results)}** ({commands}; {minutes})"]
    if bars := bar_rows(results):
        parts.append(markdown_table(HEADER, bars))
    parts.append("Step time, gradtx / Optax:")
    parts.append(_matrix(results, "step"))
    programs = _programs(results)
    if programs:
        parts += ["The compiled programs, gradtx / Optax:", programs]
    parts += ["Trace + lower, gradtx / Optax:", _matrix(results, "trace_lower")]
    picture = folder / results.file_name.replace(".json", ".png")
    if picture.exists():
        parts.append(f"![step times and bytes](benchmarks/results/{picture.name})")
    return "\n\n".join(parts)


def _matrix(results: Results, what: str) -> str:
    """Recipes by parameter sets."""
    cases = {(case.recipe, case.set): case for case in results.good()}
    recipes = [name for name in RECIPES if any(recipe == name for recipe, _ in cases)]
    sets = [name for name in PARAMETER_SETS if any(s == name for _, s in cases)]
    rows = [
        [RECIPES[recipe].title]
        + [ratio_text(cases[recipe, s], what) if (recipe, s) in cases else "" for s in sets]
        for recipe in recipes
    ]
    return markdown_table(["", *(PARAMETER_SETS[s].title for s in sets)], rows)


def _programs(results: Results) -> str:
    """What the programs move on GPT-2; on GPU also what many leaves cost in launches."""
    counted = ("gpt2",) if results.device["platform"] == "cpu" else ("gpt2", "resnet50", "matrices")
    header = ["", "", "bytes a parameter", "floor", "temporary", "of copy bandwidth", "equations"]
    cases = [case for case in results.good() if case.set in counted]
    rows = [_program_row(case, results.copy_bandwidth) for case in cases]
    return markdown_table([*header, "loops or kernels"], rows) if rows else ""


def _program_row(case: CaseResult, bandwidth: float) -> list[str]:
    sides = (case.gradtx, case.optax)
    return [
        PARAMETER_SETS[case.set].title,
        RECIPES[case.recipe].title,
        stroke(f"{s.bytes:.1f}" for s in sides),
        f"{case.floor_bytes:g}",
        stroke(f"{s.temps:.2f}" for s in sides),
        stroke(f"{case.of_bandwidth(s, bandwidth):.2f}" for s in sides),
        stroke(str(s.equations) for s in sides),
        stroke(str(s.kernels) for s in sides),
    ]


def replaced(text: str, tables: str) -> str:
    """The text with its tables between the markers. Raises: ValueError where they are missing."""
    before, found_start, rest = text.partition(START)
    _, found_end, after = rest.partition(END)
    if not (found_start and found_end):
        raise ValueError(f"no {START} followed by {END} in the file")
    return f"{before}{START}\n\n{tables}\n\n{END}{after}"


def main(arguments: list[str] | None = None) -> int:
    """Write the tables, or with --check say whether they are what the results give."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__)
    parser.add_argument("--readme", type=Path, default=Path("README.md"), help="the file to write")
    parser.add_argument("--results", type=Path, default=FOLDER, help="the folder of results")
    parser.add_argument("--check", action="store_true", help="write nothing, fail if they differ")
    options = parser.parse_args(arguments)
    text = options.readme.read_text()
    try:
        new = replaced(text, generated(options.results))
    except ValueError as error:
        print(f"{options.readme}: {error}", file=sys.stderr)
        return 2
    if options.check:
        if new != text:
            print(f"{options.readme}: not what {options.results.name} gives", file=sys.stderr)
        return int(new != text)
    options.readme.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
