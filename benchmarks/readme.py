"""Write the tables of the documentation: ``python -m benchmarks.readme``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import (
    authors,
    curves,
    device,
    exchanges,
    memory,
    meshes,
    modern,
    plans,
    programs,
    quality,
    solve,
)
from benchmarks.budget import DeviceResults
from benchmarks.parameters import PARAMETER_SETS
from benchmarks.recipes import RECIPES
from benchmarks.report import headline, markdown_table, ratio_text
from benchmarks.results import FOLDER, Results, newest
from gradtx.core.printing import plural

PAGES = [Path("docs") / name for name in ("performance.md", "planning.md", "many-devices.md")]
NONE_YET = "No results yet: `{}`."


def _libraries(folder: Path) -> str:
    """The results of gradtx and Optax side by side."""
    every = newest(folder, Results)
    if not every:
        return NONE_YET.format("python -m benchmarks")
    return "\n\n".join(_section(results, folder) for results in every)


def _section(results: Results, folder: Path) -> str:
    commands = ", ".join(f"`{command}`" for command in results.commands)
    minutes = f"{results.seconds / 60:.1f} minutes"
    parts = [
        f"**{headline(results)}** ({commands}; {minutes})",
        "Time of a step as a multiple of Optax's: 0.5 is twice as fast.",
        _matrix(results, "step"),
        "The same for tracing and lowering, what is paid before the first step:",
        _matrix(results, "trace_lower"),
    ]
    picture = folder / results.file_name.replace(".json", ".png")
    if picture.exists():
        parts.append(f"![step times and bytes](../benchmarks/results/{picture.name})")
    return "\n\n".join(parts)


def _matrix(results: Results, what: str) -> str:
    """Ratios of recipes (rows) on parameter sets (columns)."""
    cases = {(case.recipe, case.set): case for case in results.good()}
    recipes = [name for name in RECIPES if any(recipe == name for recipe, _ in cases)]
    sets = [name for name in PARAMETER_SETS if any(s == name for _, s in cases)]
    rows = [
        [RECIPES[recipe].title]
        + [ratio_text(cases[recipe, s], what) if (recipe, s) in cases else "" for s in sets]
        for recipe in recipes
    ]
    return markdown_table(["", *(PARAMETER_SETS[s].title for s in sets)], rows)


def _devices(folder: Path) -> str:
    """The results of `benchmarks.device`."""
    every = newest(folder / "device", DeviceResults)
    return "\n\n".join(map(device.page, every)) or NONE_YET.format("python -m benchmarks.device")


def _written(folder: Path, name: str, table: Callable[[list[dict[str, Any]]], str]) -> str:
    """The table of a smaller benchmark, and its picture if there is one."""
    path = folder / f"{name}.json"
    if not path.exists():
        return NONE_YET.format(f"python -m {table.__module__}")
    data = json.loads(path.read_text())
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items())
    about = f"{data['task']}. " if "task" in data else ""
    facts = [f"{about}`{data['command']}`", versions]
    if "device" in data:  # what is exact does not depend on it
        where = data["device"]
        gpu = f"{where['kind']}, " if where["platform"] == "gpu" else ""
        facts.insert(1, f"{gpu}{where['processor']}, {plural(where['cores'], 'core')}")
    parts = [table(data["rows"]), f"({'; '.join(facts)})"]
    if path.with_suffix(".png").exists():
        parts.append(f"![{path.stem}](../benchmarks/results/{name}.png)")
    return "\n\n".join(parts)


# What goes between `<!-- name:start -->` and `<!-- name:end -->`, a function of the files alone.
SECTIONS: dict[str, Callable[[Path], str]] = {
    "benchmarks": _libraries,
    "programs": lambda folder: programs.side_by_side(folder, ["vector"]),
    "modern": modern.side_by_side,
    "memory": lambda folder: _written(folder, "precision/memory-gpt2", memory.table),
    "quality": lambda folder: _written(folder, "precision/quality", quality.table),
    "curves": lambda folder: _written(folder, "quality/curves", curves.table),
    "device": _devices,
    "authors": lambda folder: _written(folder, "quality/authors", authors.table),
    "authors-gpu": lambda folder: _written(folder, "quality/authors-nvidia-h200", authors.table),
    "plans": lambda folder: _written(folder, "sharding/plans", plans.table),
    "meshes": lambda folder: _written(folder, "sharding/meshes", meshes.table),
    "exchanges": lambda folder: _written(folder, "sharding/exchanges", exchanges.table),
    "lbfgs": lambda folder: _written(folder, "solve/lbfgs", solve.table),
}


def markers(section: str) -> tuple[str, str]:
    """The comments around a section."""
    return f"<!-- {section}:start -->", f"<!-- {section}:end -->"


def replaced(text: str, folder: Path) -> str:
    """The text with its sections written anew.

    Raises: ValueError if it has none, or only one marker of a section.
    """
    sections = [name for name in SECTIONS if any(marker in text for marker in markers(name))]
    if not sections:
        raise ValueError(f"no {' followed by '.join(markers('benchmarks'))} in the file")
    for name in sections:
        start, end = markers(name)
        before, found_start, rest = text.partition(start)
        _, found_end, after = rest.partition(end)
        if not (found_start and found_end):
            raise ValueError(f"no {start} followed by {end} in the file")
        text = f"{before}{start}\n\n{SECTIONS[name](folder)}\n\n{end}{after}"
    return text


def main(arguments: list[str] | None = None) -> int:
    """Write the tables or, with --check, say whether they match the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__)
    parser.add_argument("--page", type=Path, help="the file to write; default: all with tables")
    parser.add_argument("--results", type=Path, default=FOLDER, help="the folder of results")
    parser.add_argument("--check", action="store_true", help="write nothing, fail if they differ")
    options = parser.parse_args(arguments)
    pages = PAGES if options.page is None else [options.page]
    return max(_rewrite(page, options.results, options.check) for page in pages)


def _rewrite(page: Path, results: Path, check: bool) -> int:
    """The exit code: 1 for a page that was to be checked and differs, 2 for one without tables."""
    text = page.read_text()
    try:
        new = replaced(text, results)
    except ValueError as error:
        print(f"{page}: {error}", file=sys.stderr)
        return 2
    if check:
        if new != text:
            print(f"{page}: not what {results.name} gives", file=sys.stderr)
        return int(new != text)
    page.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
