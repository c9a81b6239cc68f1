"""The command line: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from benchmarks.options import command, names
from benchmarks.parameters import PARAMETER_SETS, size
from benchmarks.plot import draw_plot
from benchmarks.progress import Progress
from benchmarks.recipes import RECIPES
from benchmarks.report import full_report
from benchmarks.results import FOLDER, CaseResult, Results
from benchmarks.run import count, fitting, missing_in, run, start


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Run gradtx and Optax side by side in one process, in turns. A complete run "
        "writes benchmarks/results/; a part of one, or a quick one, only where --json says.",
    )
    add = parser.add_argument
    add("--recipes", type=names("recipe", RECIPES), help="comma-separated; default: all")
    add("--sets", type=names("set", PARAMETER_SETS), help="comma-separated; default: all that fit")
    add("--device", default="", help="cpu, gpu, gpu:1, ...; default: JAX's first")
    add("--json", type=Path, help="where to write the results, with a .png beside them")
    add("--append", action="store_true", help="keep what --json has of other recipes and sets")
    add("--seconds", type=float, default=45.0, help="to aim at; a minimum is always done")
    add("--quick", action="store_true", help="tiny sizes, for tests")
    add("--list", action="store_true", help="list recipes, sets and devices")
    add("--show", type=Path, metavar="JSON", help="print the table of results that are there")
    return parser


def _device(text: str) -> jax.Device:
    platform, _, index = text.partition(":")
    try:
        return jax.devices(platform or None)[int(index or 0)]
    except (RuntimeError, IndexError, ValueError):
        there = ", ".join(map(str, jax.devices()))
        raise SystemExit(f"--device {text}: not among what JAX has: {there}, and cpu") from None


def _list() -> None:
    for name, recipe in RECIPES.items():
        print(f"recipe  {name:18} {recipe.title}; floor {recipe.floor:g} bytes a parameter")
    for name, one in PARAMETER_SETS.items():
        leaves, parameters = size(one.shapes(quick=False))
        only = f"; {one.platform} only" if one.platform else ""
        print(f"set     {name:18} {one.title}; {leaves} leaves, {parameters:,} parameters{only}")
    for device in jax.devices():
        print(f"device  {device.platform}:{device.id:<16} {device.device_kind}")


def _selection(options: argparse.Namespace, device: jax.Device) -> tuple[list[str], list[str]]:
    """The sets and recipes to run; prints what is left out and why."""
    recipes = options.recipes or list(RECIPES)
    for recipe in list(recipes):
        if library := missing_in(recipe):
            recipes.remove(recipe)
            print(f"{recipe}: left out, {library} does not have it", file=sys.stderr)
    sets = fitting(options.sets or list(PARAMETER_SETS), device.platform, options.quick)
    for name in sorted(set(options.sets or []) - set(sets)):
        needs = PARAMETER_SETS[name].platform
        print(f"{name}: left out, it runs on {needs} only", file=sys.stderr)
    if not (sets and recipes):
        raise SystemExit("nothing to run")
    return sets, recipes


def main(arguments: Sequence[str]) -> int:
    """Run, print, write; 1 if a case failed."""
    options = _parser().parse_args(arguments)
    if options.list:
        _list()
        return 0
    if options.show:
        print(full_report(Results.read(options.show)))
        return 0
    jax.config.update("jax_enable_compilation_cache", False)  # type: ignore[no-untyped-call]
    device = _device(options.device)
    sets, recipes = _selection(options, device)
    with jax.default_device(device), Progress(count(sets, recipes)) as progress:
        results = start(device, command("benchmarks", arguments), options.quick)
        complete = not (options.quick or options.recipes or options.sets)
        path = options.json or (FOLDER / results.file_name if complete else None)
        earlier = Results.read(path) if options.append and path and path.exists() else None

        def done(case: CaseResult, what: str) -> None:
            progress(case, what)
            if path is not None:  # so that a run that is cut short leaves what it has
                results.write(path.with_suffix(".partial"))

        seconds = 0.0 if options.quick else options.seconds
        run(results, sets, recipes, device, seconds, done)
    if earlier is not None:
        results = results.join(earlier)
    print(full_report(results))
    if path is not None:
        _write(results, path)
    return int(any(case.error is not None for case in results.cases))


def _write(results: Results, path: Path) -> None:
    results.write(path)
    path.with_suffix(".partial").unlink(missing_ok=True)
    drawn = draw_plot(results, path.with_suffix(".png"))
    where = path.name if path.is_absolute() else str(path)
    print(f"\nwritten: {where}{' and .png' if drawn else '; no picture: matplotlib is missing'}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
