"""Compile training steps for a target in a process of its own, which has the compiler for it.

`Compiler` starts ``python -m benchmarks.compiler TARGET`` with another Python and asks it, one line
of JSON for each step: the name of a function, and its arguments. The function returns a `Training`,
and the answer is what its compiled program does; or it returns a plan that it made itself.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from benchmarks.hlo import tally
from benchmarks.kept import kept, key_of
from benchmarks.recipes import Step
from benchmarks.results import library_versions
from gradtx import OptState, Params, Updates
from gradtx.sharding import Plan
from gradtx.sharding.targets import ENVIRONMENT, Target

ROOT = Path(__file__).parents[1]


class Training(NamedTuple):
    """A training step, and the shapes of its arguments."""

    step: Step
    params: Params
    state: OptState
    grads: Updates


@dataclass(frozen=True)
class Figures:
    """What a program does in one call, on all devices together.

    bytes: accessed. temporary: bytes. kernels, collectives: on each device. quiet, due: bytes and
    kernels of a step in which nothing is due that happens now and then, and of one in which it is.
    seconds: to compile it, which is no exact figure.
    """

    bytes: float
    temporary: float
    kernels: int
    collectives: dict[str, int]
    quiet: tuple[float, int]
    due: tuple[float, int]
    seconds: float = field(compare=False)

    def per(self, parameters: int) -> dict[str, Any]:
        """The fields by name, bytes for each parameter."""
        found = asdict(self)
        for name in ("bytes", "temporary"):
            found[name] /= parameters
        for name in ("quiet", "due"):
            size, kernels = found[name]
            found[name] = [size / parameters, kernels]
        return found


class CompileError(Exception):
    """A step that cannot be traced, or a program that cannot be compiled."""


class Compiler:
    """Compiles for a target by a Python that has its compiler. keep: a folder in which to keep the
    figures of programs, and to look for them."""

    def __init__(self, target: Target, python: Path, keep: Path | None = None):
        self.target, self.python, self.keep = target, python, keep
        self._start()

    def _start(self) -> None:
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [str(self.python), "-m", "benchmarks.compiler", self.target.name]
            + ([str(self.keep)] if self.keep else []),
            cwd=ROOT,
            env=os.environ | ENVIRONMENT[self.target.platform],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        self.facts = self._answer()

    def __enter__(self) -> Compiler:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.communicate()
        self.log.close()

    def __call__(self, function: str, *arguments: str | int) -> Figures:
        """Compile what a function, "module:name", returns for these arguments.

        Raises: CompileError.
        """
        answer = self._ask(function, arguments)
        quiet, due = (tuple(answer.pop(path)) for path in ("quiet", "due"))
        return Figures(**answer, quiet=quiet, due=due)

    def plan(self, function: str, *arguments: str | int) -> Plan:
        """The plan that a function makes there for these arguments, with the optimizer's text.

        Raises: CompileError.
        """
        made = Plan(**self._ask(function, arguments))
        kinds = {kind: (number, size) for kind, (number, size) in (made.collectives or {}).items()}
        return replace(made, collectives=kinds)

    def _ask(self, function: str, arguments: Sequence[str | int]) -> dict[str, Any]:
        if self.process.poll() is not None:  # XLA took the process with it
            self._start()
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([function, *arguments]) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            self.log.seek(0)
            said = self.log.read().strip()[-1000:]
            raise CompileError(f"{self.python} ended with status {status}:\n{said}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise CompileError(answer["error"])
        return answer


# -- in the other process ------------------------------------------------------------------------


def _placed(tree: Any, devices: Sequence[jax.Device], sharded: bool) -> Any:
    """The shapes with their shardings: on one device; or each array cut along its longest axis
    that the number of devices divides, as fully sharded data parallel training does, and whole on
    every device where there is none."""
    mesh = Mesh(np.array(devices), ("data",))

    def sharding(shape: tuple[int, ...]) -> Sharding:
        if not sharded:
            return SingleDeviceSharding(devices[0])
        fitting = [axis for axis, length in enumerate(shape) if length % len(devices) == 0]
        cut = max(fitting, key=lambda axis: shape[axis], default=None)
        names = ("data" if axis == cut else None for axis in range(len(shape)))
        return NamedSharding(mesh, PartitionSpec(*names))  # type: ignore[no-untyped-call]

    def leaf(x: Any) -> jax.ShapeDtypeStruct:
        where = sharding(x.shape)
        return jax.ShapeDtypeStruct(  # type: ignore[no-untyped-call]
            x.shape, x.dtype, sharding=where
        )

    return jax.tree.map(leaf, tree)


def lower(training: Training, target: Target, devices: Sequence[jax.Device]) -> jax.stages.Lowered:
    """Lower a step that donates its parameters and its state."""
    params, state, grads = (
        _placed(tree, devices, target.shape is not None)
        for tree in (training.params, training.state, training.grads)
    )
    # On one device nothing needs to be said, and a first step may change the state's structure.
    places = jax.tree.map(lambda x: x.sharding, (params, state)) if target.shape else None
    jitted = jax.jit(training.step, donate_argnums=(0, 1), out_shardings=places)
    return jitted.trace(params, state, grads).lower(lowering_platforms=(target.platform,))


def figures(lowered: Any, target: Target, devices: Sequence[jax.Device]) -> Figures:
    """Compile a step, and count."""
    start = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    text, cost = compiled.as_text() or "", compiled.cost_analysis()
    counted, *paths = (tally(text, due) for due in (None, 0, 1))
    quiet, due = ((path.bytes * len(devices), path.kernels) for path in paths)
    # For CPU XLA counts itself. For GPU it says nothing, and for TPU it knows nothing of kernels
    # that are not its own and counts fast memory like the main one.
    size = cost["bytes accessed"] if target.platform == "cpu" else counted.bytes
    temporary = compiled.memory_analysis().temp_size_in_bytes
    return Figures(
        size * len(devices),
        temporary * len(devices),
        counted.kernels,
        dict(counted.collectives),
        quiet,
        due,
        round(seconds, 1),
    )


def _serve(target: Target, keep: Path | None = None) -> None:
    """Answer on what was standard output; what else is printed goes to standard error."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(row: dict[str, Any]) -> None:
        print(json.dumps(row), file=answers, flush=True)

    jax.config.update("jax_enable_compilation_cache", False)  # type: ignore[no-untyped-call]
    try:
        devices = target.devices()
    except Exception as error:
        answer({"error": f"no compiler for {target.name}: {error}"})
        return
    versions = library_versions() | _compiler(target)
    answer({"device": _facts(devices), "versions": versions})

    def row(made: Training | Plan) -> dict[str, Any]:
        """What is answered on what a function returned: the figures of a step, or the plan."""
        if isinstance(made, Plan):
            return vars(made) | {"optimizer": str(made.optimizer)}
        lowered = lower(made, target, devices)

        def count() -> dict[str, Any]:
            return asdict(figures(lowered, target, devices))

        return kept(keep, key_of(lowered, target.name, versions), count) if keep else count()

    for line in sys.stdin:
        function, *arguments = json.loads(line)
        module, _, name = function.partition(":")
        try:
            answer(row(getattr(importlib.import_module(module), name)(*arguments)))
        except Exception as error:
            answer({"error": f"{type(error).__name__}: {error}"[:500]})


def _compiler(target: Target) -> dict[str, str]:
    """The package that compiles, with its version."""
    names: dict[str, str] = {"cuda": "jax-cuda12-pjrt", "tpu": "libtpu"}
    return {name: version(name) for name in [names.get(target.platform, "")] if name}


def _facts(devices: Sequence[jax.Device]) -> dict[str, Any]:
    return {
        "kind": devices[0].device_kind,
        "platform": devices[0].platform,
        "count": len(devices),
    }


if __name__ == "__main__":
    _serve(Target.parse(sys.argv[1]), *map(Path, sys.argv[2:]))
