"""Step times beside the authors' code, in PyTorch: ``python -m benchmarks.authors CHECKOUTS``.

CHECKOUTS is a folder with clones, under their own names, of nikhilvyas/SOAP,
facebookresearch/optimizers, evanatyourservice/kron_torch, KellerJordan/Muon and LIONS-EPFL/scion;
what is missing is left out. Both sides have the same matrices, gradients and threads, and take
turns step by step, each awaited. A step that renews factors, bases or roots is *due*, the others
are *quiet*; the mean is over 10 steps, of which one is due. On one core (``taskset -c 0 python
...``) times are those of the processor, which other programs hardly change, otherwise those of the
clock. Where JAX has a GPU, both run on it, and PyTorch, like JAX, multiplies float32 in TF32
(``set_float32_matmul_precision("high")``). The results are written after every optimizer.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

import gradtx
from benchmarks.measure import cores, now
from benchmarks.options import names
from benchmarks.parameters import Shapes, blocks
from benchmarks.report import markdown_table, stroke
from benchmarks.results import FOLDER, device_facts, library_versions, write_rows
from gradtx import GradientTransformation

# How often matrices are renewed, for all: SOAP's default.
PERIOD = 10
# Gradients repeat after so many steps.
GRADIENTS = 3
HEADER = ["optimizer", "against", "quiet, ms", "ratio", "due, ms", "ratio", "mean, ms", "ratio"]
REPOSITORIES = ("SOAP", "optimizers", "kron_torch", "Muon", "scion")

Torch = Any  # an optimizer of PyTorch, whose types are not there without it


@dataclass(frozen=True)
class Pair:
    """An optimizer here and the authors' own, each as a function of its period.

    start: steps before the first period, whose last step is due.
    """

    against: str
    ours: Callable[[int], GradientTransformation]
    theirs: Callable[[list[Any], int], Torch]
    start: int = 0
    has_due: bool = False


def _adamw(params: list[Any], _: int) -> Torch:
    from torch.optim import AdamW

    return AdamW(params, 1e-3, weight_decay=1e-4, fused=True)


def _torch_muon(params: list[Any], _: int) -> Torch:
    from torch.optim import Muon

    return Muon(params, 1e-3)


def _muon(params: list[Any], _: int) -> Torch:
    from muon import SingleDeviceMuon

    return SingleDeviceMuon(params, 0.02)


def _scion(params: list[Any], _: int) -> Torch:
    from scion import Scion

    return Scion(params, 1e-3, momentum=0.1, norm="Spectral")


def _soap(params: list[Any], period: int) -> Torch:
    from soap import SOAP

    return SOAP(params, 3e-3, precondition_frequency=period)


def _kron(params: list[Any], period: int) -> Torch:
    from kron_torch import Kron

    return Kron(params, 1e-3, preconditioner_update_probability=1 / period)


def _shampoo(params: list[Any], period: int) -> Torch:
    from distributed_shampoo import AdamPreconditionerConfig, DistributedShampoo

    return DistributedShampoo(
        params,
        1e-2,
        betas=(0.9, 0.999),
        precondition_frequency=period,
        grafting_config=AdamPreconditionerConfig(beta2=0.999, epsilon=1e-8),
    )


PAIRS: dict[str, Pair] = {
    "adamw": Pair("torch.optim, fused", lambda _: gradtx.adamw(1e-3), _adamw),
    "torch.muon": Pair("torch.optim", lambda _: gradtx.torch.muon(1e-3), _torch_muon),
    "muon": Pair("KellerJordan/Muon", lambda _: gradtx.muon(0.02, bias_correction=False), _muon),
    "scion": Pair("LIONS-EPFL/scion", lambda _: gradtx.scion(1e-3, norm="spectral"), _scion),
    "soap": Pair(
        "nikhilvyas/SOAP",
        lambda period: gradtx.soap(precondition_frequency=period),
        _soap,
        start=1,
        has_due=True,
    ),
    "shampoo": Pair(
        "facebookresearch/optimizers",
        lambda period: gradtx.shampoo(precondition_frequency=period),
        _shampoo,
        has_due=True,
    ),
    "kron": Pair(
        "evanatyourservice/kron_torch",
        lambda period: gradtx.kron(preconditioner_update_probability=1 / period),
        _kron,
        has_due=True,
    ),
}

# -- the two sides -------------------------------------------------------------------------------


def draw(shapes: Shapes, seed: int) -> Any:
    """Normal noise of these shapes."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: rng.standard_normal(shape, np.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


class Ours:
    """An optimizer here, compiled, its parameters and state donated."""

    def __init__(self, tx: GradientTransformation, params: Any, grads: Sequence[Any]):
        self.params = jax.tree.map(jax.numpy.array, params)
        self.state = jax.jit(tx.init)(self.params)
        self.grads = [jax.tree.map(jax.numpy.array, each) for each in grads]

        def step(params: Any, state: Any, grads: Any) -> Any:
            return gradtx.step(tx, grads, state, params)

        jitted = jax.jit(step, donate_argnums=(0, 1))
        self.step = jitted.lower(self.params, self.state, self.grads[0]).compile()

    def __call__(self, index: int) -> float:
        """The seconds of one step."""
        began = now()
        self.params, self.state = self.step(
            self.params, self.state, self.grads[index % len(self.grads)]
        )
        jax.block_until_ready((self.params, self.state))  # type: ignore[no-untyped-call]
        return now() - began


class Theirs:
    """An optimizer of PyTorch."""

    def __init__(self, build: Callable[[list[Any]], Torch], params: Any, grads: Sequence[Any]):
        import torch

        self.on_gpu = jax.default_backend() == "gpu"
        place = "cuda" if self.on_gpu else "cpu"

        def tensors(tree: Any) -> list[Any]:  # outputs first, as layers of PyTorch have it
            return [torch.from_numpy(x.T.copy()).to(place) for x in jax.tree.leaves(tree)]

        self.params = [torch.nn.Parameter(x) for x in tensors(params)]
        self.grads = list(map(tensors, grads))
        self.optimizer = build(self.params)

    def __call__(self, index: int) -> float:
        """The seconds of one step."""
        for param, grad in zip(self.params, self.grads[index % len(self.grads)], strict=True):
            param.grad = grad.clone()  # some step in place on it
        self._wait()
        began = now()
        self.optimizer.step()
        self._wait()
        return now() - began

    def _wait(self) -> None:
        if self.on_gpu:
            import torch

            torch.cuda.synchronize()


def compare(name: str, shapes: Shapes, periods: int, period: int) -> dict[str, Any]:
    """The times of one optimizer, step by step in turn."""
    pair = PAIRS[name]
    params, grads = draw(shapes, 0), [draw(shapes, seed) for seed in range(1, GRADIENTS + 1)]
    sides: list[Callable[[int], float]] = [
        Ours(pair.ours(period), params, grads),
        Theirs(lambda tensors: pair.theirs(tensors, period), params, grads),
    ]
    # The first period, in which PyTorch allocates and may compile, is not counted.
    for index in range(pair.start + period):
        for side in sides:
            side(index)
    samples: list[list[list[float]]] = [[[], []], [[], []]]
    for index in range(pair.start + period, pair.start + (1 + periods) * period):
        due = pair.has_due and (index + 1 - pair.start) % period == 0
        for i in (0, 1) if index % 2 else (1, 0):
            samples[i][due].append(sides[i](index))
    ours, theirs = (_summary(*each) for each in samples)
    return {"optimizer": name, "against": pair.against, "gradtx": ours, "theirs": theirs}


def _summary(quiet: list[float], due: list[float]) -> dict[str, Any]:
    """What is written of a side."""
    usual = statistics.median(quiet)
    rare = statistics.median(due) if due else usual
    mean = ((PERIOD - 1) * usual + rare) / PERIOD
    return {"quiet_s": usual, "due_s": rare, "mean_s": mean, "samples_s": [quiet, due]}


def table(rows: list[dict[str, Any]]) -> str:
    """As Markdown; figures with a slash are gradtx / the authors'."""

    def cells(row: dict[str, Any]) -> list[str]:
        sides = row["gradtx"], row["theirs"]
        found = [row["optimizer"], row["against"]]
        for what in ("quiet_s", "due_s", "mean_s"):
            if what == "due_s" and not sides[0]["samples_s"][1]:
                found += ["", ""]
                continue
            found.append(stroke(f"{1e3 * side[what]:.3g}" for side in sides))
            found.append(f"{sides[0][what] / sides[1][what]:.2f}")
        return found

    return markdown_table(HEADER, [cells(row) for row in rows])


def main() -> None:
    """Compare, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.authors", description=__doc__)
    add = parser.add_argument
    add("checkouts", type=Path, help="a folder with the authors' repositories")
    add("--optimizers", type=names("optimizer", PAIRS), default=list(PAIRS))
    add("--width", type=int, default=768, help="of the blocks of GPT-2; 768 is GPT-2 small's")
    add("--layers", type=int, default=1, help="blocks")
    add("--periods", type=int, default=4, help="to time")
    add("--period", type=int, default=PERIOD, help="while timing; the mean is over 10 steps")
    add("--json", type=Path, default=FOLDER / "quality/authors.json")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(cores())
    torch.set_float32_matmul_precision("high")  # on CPU the same as "highest"
    sys.path[:0] = [str(options.checkouts / name) for name in REPOSITORIES]
    shapes, rows = blocks(options.width, options.layers), []
    pinned = "taskset -c 0 " if cores() == 1 else ""
    command = (
        f"{pinned}python -m benchmarks.authors CHECKOUTS --width {options.width}"
        f" --layers {options.layers} --periods {options.periods} --period {options.period}"
    )
    several = "s" if options.layers > 1 else ""
    about = f"the matrices of {options.layers} block{several} of GPT-2 of width {options.width}"
    versions = library_versions() | {"torch": torch.__version__}
    load = [os.getloadavg()[0]]
    for name in options.optimizers:
        try:
            rows.append(compare(name, shapes, options.periods, options.period))
        except Exception as error:
            if len(options.optimizers) == 1:
                raise
            print(f"{name}: left out: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        print(table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
        facts = {"task": about, "load": [*load, os.getloadavg()[0]], "versions": versions}
        write_rows(options.json, command, device_facts(jax.devices()[0]), rows, **facts)
    print(table(rows))
    print(f"\nwritten: {options.json.name}")


if __name__ == "__main__":
    main()
