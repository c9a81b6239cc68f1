"""Whether a device computes what the CPU does: some steps of an optimizer on both.

Programs of two compilers round differently. A moment that lies between two codes of a format then
takes one or the other, which is a difference of one code; later steps see it through the moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

import gradtx
from benchmarks.ahead import side_by_side
from benchmarks.measure import difference
from benchmarks.recipes import step_of
from gradtx import GradientTransformation, OptState, Params

SHAPES = {"wide": (32, 512), "tall": (300, 64), "square": (64, 64), "vector": (5000,)}
STEPS = 20


@dataclass(frozen=True)
class Agreement:
    """How far a device's parameters are from the CPU's, relative to how far those moved.

    error: what was raised instead.
    """

    optimizer: str
    difference: float
    tolerance: float
    error: str | None = None

    @property
    def good(self) -> bool:
        """Whether it is within the tolerance; NaN is not."""
        return self.error is None and self.difference <= self.tolerance

    @property
    def verdict(self) -> str:
        """That, in a word."""
        return "yes" if self.good else "NO" if self.error is None else "not compared"


@dataclass(frozen=True)
class Check:
    """An optimizer, and how much its parameters may differ.

    tolerance: ten times or more of what gradients that differ in their last bit made of it on one
    CPU: 3e-6 (AdamW) to 8e-6, with moments in fewer bits 2e-3.
    """

    build: Callable[[], GradientTransformation]
    tolerance: float


def _adamw() -> GradientTransformation:
    return gradtx.adamw(1e-3)


CHECKS = {
    "adamw": Check(_adamw, 1e-4),
    "accumulate_4": Check(lambda: gradtx.accumulate(_adamw(), 4), 1e-4),
    "lamb": Check(lambda: gradtx.lamb(1e-3, weight_decay=1e-2), 1e-4),
    "muon": Check(lambda: gradtx.muon(1e-3), 1e-3),
    "bfloat16": Check(lambda: gradtx.store(_adamw(), "bfloat16"), 1e-2),
    "int8": Check(lambda: gradtx.store(_adamw(), "int8"), 2e-2),
    "float8": Check(lambda: gradtx.store(_adamw(), "float8"), 2e-2),
    "int4": Check(lambda: gradtx.store(_adamw(), "int4"), 1e-1),
}


class Trainer(NamedTuple):
    """Parameters and a first state on a device, and the compiled step."""

    params: Params
    state: OptState
    step: Any

    def train(self, steps: int) -> Params:
        """The parameters after some steps."""
        params, state = self.params, self.state
        for number in range(steps):
            grads = _drawn(1 + number, 1.0, jax.tree.leaves(params)[0].device)
            params, state = self.step(params, state, grads)
        return params


def agreements(
    device: jax.Device, seconds: Callable[[], float], steps: int = STEPS
) -> Iterator[tuple[str, Agreement | TimeoutError]]:
    """Of every optimizer, in the `seconds` that are left."""
    places = (device, jax.devices("cpu")[0])
    work = {
        (name, where): partial(compiled, check, where)
        for name, check in CHECKS.items()
        for where in places
    }
    trainers = side_by_side(work, seconds())
    for name, check in CHECKS.items():
        both = [trainers[name, where] for where in places]
        error = next((x for x in both if isinstance(x, Exception)), None)
        if error is None and seconds() <= 0:
            error = TimeoutError("no time left")
        if isinstance(error, TimeoutError):
            yield name, error
            continue
        if error is not None:
            yield name, Agreement(name, np.nan, check.tolerance, f"{type(error).__name__}: {error}")
            continue
        trained = [x.train(steps) for x in both if isinstance(x, Trainer)]
        found = difference(trained, _drawn(0, 0.1, places[1]))
        yield name, Agreement(name, found, check.tolerance)


def compiled(check: Check, device: jax.Device) -> Trainer:
    """Ready to train on the device; products of matrices are of float32."""
    with jax.default_device(device), jax.default_matmul_precision("highest"):
        tx = check.build()
        params = _drawn(0, 0.1, device)
        state = jax.jit(tx.init)(params)
        return Trainer(
            params, state, jax.jit(step_of(gradtx, tx)).lower(params, state, params).compile()
        )


def _drawn(seed: int, scale: float, device: jax.Device) -> Params:
    random = np.random.default_rng(seed)
    return {
        name: jax.device_put(np.float32(scale) * random.standard_normal(shape, np.float32), device)
        for name, shape in SHAPES.items()
    }
