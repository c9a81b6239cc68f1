"""How well every public transformation works on a mesh of devices: ``python -m benchmarks.meshes``.

Eight virtual CPU devices, as one axis and as 2 x 4. For each example on which the laws are tried:

equal      two steps give the numbers of one device
placed     nothing of a fresh state lies off the mesh, what is shaped like a parameter lies as that,
           or, of a state that is spread, as `state_shardings` says
kept       after a step the state lies as before
once       three steps are compiled once
jitted     ``jax.jit(tx.init)`` puts the state where ``tx.init`` does
explicit   all of this where types say how arrays are divided (``AxisType.Explicit``), under
           ``jax.set_mesh``
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.report import markdown_table
from benchmarks.results import FOLDER, library_versions

RESULTS = FOLDER / "sharding" / "meshes.json"
MESHES = {"8": (8,), "2x4": (2, 4)}
CHECKS = ("equal", "placed", "kept", "once", "jitted", "explicit")

Cells = dict[str, str]  # for each check "yes", or why not


class Trial:
    """One example on one mesh."""

    def __init__(self, example: Any, sizes: tuple[int, ...], explicit: bool = False):
        import jax
        import numpy as np
        from jax.sharding import AxisType, NamedSharding, PartitionSpec

        given = importlib.import_module("tests.laws.running").given
        axes = ("data", "model")[: len(sizes)]
        kind = AxisType.Explicit if explicit else AxisType.Auto
        mesh = jax.make_mesh(sizes, axes, axis_types=(kind,) * len(sizes))
        rng = np.random.default_rng(0)
        shapes = {"w": (8, 16), "b": (16,), "s": ()}
        # As JAX itself spells them: another spelling is another place or type to it.
        rows = (*axes, None)[:2] if explicit else axes
        specs: Any = {"w": rows, "b": axes[-1:], "s": ()}

        def draw(low: float) -> Any:
            return {k: np.asarray(rng.uniform(low, 2, s), np.float32) for k, s in shapes.items()}

        def laid(tree: Any, extra: int = 0) -> Any:
            behind = (None,) * extra
            return {
                k: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*behind, *specs[k])))  # type: ignore[no-untyped-call]
                for k, x in tree.items()
            }

        self.example = example
        # Others in each step: of one gradient alone SOAP's second moments are rounding errors.
        self.params, self.grads = draw(0.5), [given(example, draw(-2)) for _ in range(3)]
        behind = int(bool(example.per_example))
        self.on_mesh = laid(self.params), [laid(grads, behind) for grads in self.grads]
        self.mesh, self.jax = mesh, jax
        self.tx = example.make()
        if example.spreads:  # it is made for parameters that lie otherwise
            self.tx = self.tx.replace(params=self.on_mesh[0])

    def step(self, grads: Any, state: Any, params: Any) -> Any:
        """One step, with the gradients that are given or, of a search, those of its objective: by
        others it finds nothing, and rounding decides where it ends."""
        import gradtx

        extra = self.example.extra
        if "value_fn" in extra:
            grads = self.jax.grad(extra["value_fn"])(params)
        return gradtx.step(self.tx, grads, state, params, **extra)

    def checks(self) -> Iterator[tuple[str, Callable[[], str]]]:
        """Each check but that of types, which returns "yes" or what is wrong."""
        jax = self.jax
        params, grads = self.on_mesh
        state = self.tx.init(params)
        step = jax.jit(self.step)
        done: list[Any] = []

        def steps() -> list[Any]:
            if not done:
                now = params, state
                for one in grads:
                    now = step(one, now[1], now[0])
                    done.append(now)
            return done

        yield "equal", lambda: self._equal(steps()[1])
        yield "placed", lambda: self._placed(state)
        yield "kept", lambda: self._moved(steps()[0][1], state)
        yield "once", lambda: _yes(steps() and step._cache_size() == 1, "compiled again")
        yield "jitted", lambda: self._moved(jax.jit(self.tx.init)(params), state)

    def _equal(self, got: Any) -> str:
        import numpy as np

        jax = self.jax
        step, now = jax.jit(self.step), (self.params, self.tx.init(self.params))
        for grads in self.grads[:2]:
            now = step(grads, now[1], now[0])
        for (path, x), y in zip(
            jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(now), strict=True
        ):
            if getattr(path[-1], "name", "") == "decrease_error":
                continue  # a difference of values, small beside their rounding
            a, b = (np.asarray(jax.device_get(v), np.complex128) for v in (x, y))
            scale = np.max(np.abs(b), initial=1e-30)
            if not np.allclose(a, b, rtol=0, atol=3e-5 * scale, equal_nan=True):
                return (
                    f"{jax.tree_util.keystr(path)} differs by {np.max(np.abs(a - b)) / scale:.0e}"
                )
        return "yes"

    def _placed(self, state: Any) -> str:
        import gradtx

        jax, params = self.jax, self.on_mesh[0]
        if self.example.spreads:
            return self._differs(state, gradtx.sharding.state_shardings(self.tx, params))
        for path, x in jax.tree_util.tree_leaves_with_path(state):
            if not isinstance(x, jax.Array):
                continue
            if len(x.sharding.device_set) < self.mesh.size:
                return f"{jax.tree_util.keystr(path)} is off the mesh"
            names = [k.key for k in path if getattr(k, "key", None) in params]
            if names and x.shape == params[names[-1]].shape:
                where = params[names[-1]].sharding
                if not x.sharding.is_equivalent_to(where, x.ndim):
                    return f"{jax.tree_util.keystr(path)} is {x.sharding.spec}"
        return "yes"

    def _moved(self, got: Any, state: Any) -> str:
        return self._differs(got, self.jax.tree.map(lambda x: x.sharding, state))

    def _differs(self, state: Any, shardings: Any) -> str:
        jax = self.jax
        found = jax.tree_util.tree_leaves_with_path(state)
        for (path, x), own in zip(found, jax.tree.leaves(shardings), strict=True):
            if isinstance(x, jax.Array) and not x.sharding.is_equivalent_to(own, x.ndim):
                return f"{jax.tree_util.keystr(path)} is {x.sharding}, not {own}"
        return "yes"


def _yes(holds: Any, otherwise: str) -> str:
    return "yes" if holds else otherwise


def _tried(check: Callable[[], str]) -> str:
    try:
        return check()
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def cells(example: Any, sizes: tuple[int, ...]) -> Cells:
    """The checks of one example on one mesh."""
    found: Cells = {}
    try:
        trial = Trial(example, sizes)
        for name, check in trial.checks():
            found[name] = _tried(check)
    except Exception as error:
        return dict.fromkeys(CHECKS, f"{type(error).__name__}: {error}".splitlines()[0][:200])

    def typed() -> str:
        trial = Trial(example, sizes, explicit=True)
        with trial.jax.set_mesh(trial.mesh):
            said = ((name, _tried(check)) for name, check in trial.checks())
            return next((f"{name}: {text}" for name, text in said if text != "yes"), "yes")

    return found | {"explicit": _tried(typed)}


def part(names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of some examples, in a process of its own."""
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("NPROC", "16")  # see tests/conftest.py
    jax: Any = importlib.import_module("jax")

    rows: list[dict[str, Any]] = []
    for example in importlib.import_module("tests.laws.registry").EXAMPLES:
        if str(example) in names:
            for mesh, sizes in MESHES.items():
                rows.append({"example": str(example), "mesh": mesh} | cells(example, sizes))
            jax.clear_caches()
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """How many of the examples pass each check, on each mesh."""
    lines = []
    for mesh in MESHES:
        own = [row for row in rows if row["mesh"] == mesh]
        passed = [sum(row[check] == "yes" for row in own) for check in CHECKS]
        share = sum(passed) / max(1, len(own) * len(CHECKS))
        lines.append([mesh, str(len(own)), *map(str, passed), f"{100 * share:.1f}%"])
    return markdown_table(["mesh", "examples", *CHECKS, "cells"], lines)


def main(arguments: list[str] | None = None) -> int:
    """Try everything and write the results, or print those that are there."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.meshes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", help="examples whose name holds this")
    add("--first", action="store_true", help="of each name the first example")
    add("--processes", type=int, default=os.cpu_count() or 1)
    add("--json", type=Path, default=RESULTS, help="where the results are")
    add("--show", action="store_true", help="print the results that are there, and what fails")
    options = parser.parse_args(arguments)
    if options.show:
        rows = json.loads(options.json.read_text())["rows"]
    else:
        examples = importlib.import_module("tests.laws.registry").EXAMPLES
        if options.first:
            examples = {one.name: one for one in reversed(examples)}.values()
        tried = (one for one in examples if not one.narrow_params)
        chosen = [str(one) for one in tried if (options.only or "") in str(one)]
        parts = [chosen[i :: 4 * options.processes] for i in range(4 * options.processes)]
        context = multiprocessing.get_context("spawn")
        rows = []
        with ProcessPoolExecutor(options.processes, mp_context=context) as pool:
            for made in pool.map(part, filter(None, parts)):
                rows += made
                print(f"{len(rows)} of {2 * len(chosen)}", file=sys.stderr)
        rows.sort(key=lambda row: (row["example"], row["mesh"]))
        given = sys.argv[1:] if arguments is None else arguments
        facts: dict[str, Any] = {
            "command": shlex.join(["python", "-m", "benchmarks.meshes", *given])
        }
        facts |= {"versions": library_versions()}
        options.json.write_text(json.dumps(facts | {"rows": rows}, indent=1) + "\n")
    print(table(rows))
    for row in rows:
        for check in CHECKS:
            if row[check] != "yes":
                print(f"{row['example']} on {row['mesh']}: {check}: {row[check]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
