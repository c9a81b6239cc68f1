"""Optimizers of recent papers beside the trajectories of their authors' own code.

`tests/golden/modern` holds them: parameters in float64 after some of 30 steps, on gradients that do
not depend on the parameters, with a spike in the middle. A row passes where each leaf stays within
`rtol` of the way that it moved.
"""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
import gradtx.torch

FOLDER = Path(__file__).parents[1] / "golden" / "modern"
SETTINGS = json.loads((FOLDER / "settings.json").read_text())
RECORDED = np.load(FOLDER / "trajectories.npz")

# Recorded in PyTorch's layout, outputs first; these are told inputs and outputs apart in JAX's.
OUTPUTS_LAST = ("scion", "normuon", "muon", "hyperball")
TO_JAX = {"matrix": (1, 0), "square": (1, 0), "kernel": (2, 3, 1, 0)}


# Where the settings are not the arguments.
def _hyperball(inner: str, learning_rate: float, **moments: float) -> Any:
    if inner == "muon":
        # Its iteration has converged: the coefficients of the record's code are (2, -1.5, 0.5).
        beta = moments["momentum"]
        direction = gradtx.scale_by_muon((2, -1.5, 0.5), 12, beta, 1e-7, bias_correction=False)
    else:
        direction = gradtx.scale_by_adam(**moments)
    return gradtx.hyperball(direction, learning_rate)


def _adam_mini(**arguments: float) -> Any:
    blocks = {"matrix": "rows", "square": 2, "vector|scalar|tensor": "whole"}
    return gradtx.adam_mini(**arguments, blocks=blocks, mask=~gradtx.matching("vector"))


BUILD: dict[str, Callable[..., Any]] = {"hyperball": _hyperball, "adam_mini": _adam_mini}


def _function(name: str) -> Callable[..., Any] | None:
    module, _, function = name.rpartition(".")
    return getattr(gradtx.torch if module else gradtx, function, None)


def _is_there(row: dict[str, Any]) -> bool:
    function = _function(row["gradtx"])
    takes = inspect.signature(function).parameters if function else {}
    return function is not None and (row["gradtx"] in BUILD or {*row["kwargs"]} <= {*takes})


ROWS = [row for row in SETTINGS["rows"] if _is_there(row)]


def run(row: dict[str, Any], tx: Any) -> dict[str, list[np.ndarray]]:
    """The leaves after each of the steps, in the layout of the record."""
    order = TO_JAX if row["gradtx"] in OUTPUTS_LAST else {}

    def laid(name: str, x: np.ndarray) -> jax.Array:
        return jnp.asarray(x.transpose(order[name]) if name in order else x)

    params = {name: laid(name, RECORDED[f"params/{name}"]) for name in row["leaves"]}
    state, step = tx.init(params), jax.jit(gradtx.step, static_argnums=0)
    made: dict[str, list[np.ndarray]] = {name: [] for name in params}
    for t in range(SETTINGS["steps"]):
        grads = {name: laid(name, RECORDED[f"grads/{name}"][t]) for name in params}
        params, state = step(tx, grads, state, params)
        for name, x in params.items():
            back = np.argsort(order[name]) if name in order else range(x.ndim)
            made[name].append(np.asarray(x).transpose(tuple(back)))
    return made


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_follows_the_authors(row: dict[str, Any], x64: None) -> None:
    function = BUILD.get(row["gradtx"]) or _function(row["gradtx"])
    assert function is not None
    made = run(row, function(**row["kwargs"]))
    for name in row["leaves"]:
        wanted, start = RECORDED[f"{row['name']}/{name}"], RECORDED[f"params/{name}"]
        moved = np.linalg.norm(wanted[-1] - start)
        rtol = row["rtol"]
        steps = range(len(SETTINGS["keep_steps"]))
        if rtol is None:  # random keys: the last step, to twice the scatter that other keys give
            rtol, steps = 2 * row["scatter"][name], steps[-1:]
        for k in steps:
            error = np.linalg.norm(made[name][SETTINGS["keep_steps"][k] - 1] - wanted[k])
            step = SETTINGS["keep_steps"][k]
            assert error <= rtol * moved, f"{name}, step {step}: off by {error / moved:.2g}"
