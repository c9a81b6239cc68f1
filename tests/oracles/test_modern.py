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


def _torch_muon(**arguments: float) -> Any:
    # The record's arithmetic is float64 throughout; PyTorch's own iteration is in bfloat16.
    return gradtx.torch.muon(**arguments, ns_dtype="float64")


BUILD: dict[str, Callable[..., Any]] = {
    "hyperball": _hyperball,
    "adam_mini": _adam_mini,
    "torch.muon": _torch_muon,
}


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


def worst(row: dict[str, Any], tx: Any, at_least: float = 0.0) -> tuple[float, str]:
    """The largest distance from the record, as a multiple of what is allowed, and where it is.

    at_least: the tolerance, relative to the way moved, where the row's own is smaller.
    """
    made, found = run(row, tx), [(0.0, "")]
    for name in row["leaves"]:
        wanted, start = RECORDED[f"{row['name']}/{name}"], RECORDED[f"params/{name}"]
        moved = np.linalg.norm(wanted[-1] - start)
        rtol = row["rtol"]
        steps = range(len(SETTINGS["keep_steps"]))
        if rtol is None:  # random keys: the last step, to twice the scatter that other keys give
            rtol, steps = 2 * row["scatter"][name], steps[-1:]
        for k in steps:
            step = SETTINGS["keep_steps"][k]
            error = np.linalg.norm(made[name][step - 1] - wanted[k]) / moved
            allowed = max(rtol, at_least)
            found.append((float(error / allowed), f"{name}, step {step}: off by {error:.2g}"))
    return max(found)


def build(row: dict[str, Any]) -> Any:
    function = BUILD.get(row["gradtx"]) or _function(row["gradtx"])
    assert function is not None
    return function(**row["kwargs"])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_follows_the_authors(row: dict[str, Any], x64: None) -> None:
    ratio, where = worst(row, build(row))
    assert ratio <= 1, where


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row["gradtx"] != "torch.muon"], ids=lambda row: row["name"]
)
def test_follows_the_authors_in_float32(row: dict[str, Any]) -> None:
    # Roots of eigenvalues as small as float32's error of the largest, beside an eps of that size.
    at_least = 5e-3 if row["gradtx"] == "shampoo" else 5e-5
    ratio, where = worst(row, build(row), at_least)
    assert ratio <= 1, where


# -- the trajectories tell conventions apart -----------------------------------------------------


def _descent(*parts: Any, rate: float, decay: float = 0.0) -> Any:
    decays = gradtx.add_decayed_weights(decay)
    return gradtx.chain(*parts, decays, gradtx.scale_by_learning_rate(rate))


def _masked_by_gradient(rate: float, decay: float) -> Any:
    """Cautious decay that asks the gradient and not the update."""

    @gradtx.per_leaf
    def adam_and_decay() -> Any:
        adam = gradtx.scale_by_adam(0.9, 0.95)

        def init(param: Any) -> Any:
            return adam.init(param)

        def update(grad: Any, state: Any, param: Any) -> Any:
            u, state = adam.update(grad, state)
            return u + jnp.where(grad * param >= 0, decay * param, 0), state

        return gradtx.Rule(init, update)

    return gradtx.chain(adam_and_decay(), gradtx.scale_by_learning_rate(rate))


scale_by_adam = gradtx.scale_by_adam
WRONG: dict[str, dict[str, Callable[[], Any]]] = {
    "laprop/amsgrad": {
        "eps in the root": lambda: gradtx.laprop(0.01, 0.95, 0.99, 1e-4, amsgrad=True),
        "averaged first": lambda: gradtx.amsgrad(0.01, 0.95, 0.99, 1e-8, max_of="raw"),
        "no maximum": lambda: gradtx.laprop(0.01, 0.95, 0.99, 1e-8),
    },
    "laprop/default": {"averaged first": lambda: gradtx.adam(4e-4, eps=1e-15)},
    "stable_adamw/decay": {
        "decay by the whole rate": lambda: _descent(
            gradtx.scale_by_stable_adam(0.95, 0.99), rate=0.01, decay=0.1
        ),
        "never shortened": lambda: gradtx.adamw(0.01, 0.95, 0.99, 1e-6, weight_decay=0.1),
        "the step itself is clipped": lambda: gradtx.chain(
            scale_by_adam(0.95, 0.99, 1e-6),
            gradtx.clip_by_block_rms(1.0),
            gradtx.add_decayed_weights(0.1),
            gradtx.scale_by_learning_rate(0.01),
        ),
    },
    "came/decay": {
        "decay without the rate": lambda: gradtx.came(1e-3, 0.9, 0.99, 0.999, weight_decay=100.0),
        "no residuals": lambda: _descent(
            gradtx.scale_by_factored_rms(min_dim_size_to_factor=1),
            gradtx.clip_by_block_rms(1.0),
            gradtx.ema(0.9, debias=False),
            rate=1e-3,
            decay=0.1,
        ),
    },
    "came/clip": {
        "not clipped": lambda: gradtx.came(1e-3, eps=1e-12, eps_instability=1e-8, clip_threshold=9),
    },
    "mars/adamw_decay": {
        "not clipped": lambda: _descent(
            gradtx.scale_by_mars_correction(0.05, 0.9, clip=None),
            scale_by_adam(0.9, 0.98),
            rate=0.01,
            decay=0.1,
        ),
        "gamma alone": lambda: _descent(
            gradtx.scale_by_mars_correction(0.05, 0.5),
            scale_by_adam(0.9, 0.98),
            rate=0.01,
            decay=0.1,
        ),
        "L2": lambda: gradtx.chain(
            gradtx.add_decayed_weights(0.1),
            gradtx.mars(0.01, 0.9, 0.98, gamma=0.05, optimize_1d=True),
        ),
    },
    "mars/adamw": {"all alike": lambda: gradtx.mars(3e-3, optimize_1d=True)},
    "scion/auto": {
        "no pull": lambda: gradtx.scion(0.01, unconstrained=True),
        "the old gradients' weight": lambda: gradtx.scion(0.01, momentum=0.9),
    },
    "scion/sign": {
        "not over the inputs": lambda: gradtx.scion(
            1 / 256, 0.1, "sign", 20.0, norm_kwargs={"normalized": False}
        ),
        "over the outputs": lambda: gradtx.scion(
            1 / 256,
            0.1,
            "sign",
            20.0,
            weight_dimension_numbers=gradtx.MuonDimensionNumbers(1, 0),
        ),
    },
    "scion/col_norm": {
        "rows": lambda: gradtx.scion(0.01, 0.1, "row_norm"),
        "not normalized": lambda: gradtx.scion(0.01, 0.1, "col_norm"),
    },
    "normuon/decay": {
        "corrected": lambda: gradtx.normuon(0.01, 0.9, 0.9, 0.1, bias_correction=True),
        "Muon": lambda: gradtx.muon(0.01, beta=0.9, weight_decay=0.1, bias_correction=False),
        "of inputs": lambda: gradtx.chain(
            gradtx.scale_by_muon(beta=0.9, bias_correction=False),
            gradtx.normalize_neurons(
                0.9, weight_dimension_numbers=gradtx.MuonDimensionNumbers(1, 0)
            ),
            gradtx.transforms.orthogonal.scale_by_shape(),
            gradtx.add_decayed_weights(0.1),
            gradtx.scale_by_learning_rate(0.01),
        ),
    },
    "muon/polar_express": {
        "five of the others": lambda: gradtx.muon(
            0.01, "dion", bias_correction=False, scale="spectral"
        ),
        "corrected": lambda: gradtx.muon(0.01, "polar_express", scale="spectral"),
    },
    "muon/split_rows": {
        "one matrix": lambda: gradtx.muon(0.01, bias_correction=False, consistent_rms=0.2),
        "another order": lambda: gradtx.muon(
            0.01, bias_correction=False, consistent_rms=0.2, split_outputs=(3, 3, 6)
        ),
    },
    "muon/rms": {
        "corrected": lambda: gradtx.muon(0.01, weight_decay=0.1, consistent_rms=0.2),
    },
    "cautious_weight_decay/adamw": {
        "everywhere": lambda: gradtx.adamw(0.01, 0.9, 0.95, weight_decay=0.5),
        "by the gradient": lambda: _masked_by_gradient(0.01, 0.5),
    },
    "hyperball/adam": {
        "on no ball": lambda: gradtx.chain(
            scale_by_adam(0.9, 0.95), gradtx.scale_by_trust_ratio(), gradtx.scale(-0.02)
        ),
    },
    "adam_mini/default": {
        "Adam": lambda: gradtx.adam(1e-3),
        "heads by rows": lambda: gradtx.adam_mini(blocks={"matrix|square": "rows", ".": "whole"}),
        "columns": lambda: gradtx.adam_mini(
            blocks={"matrix": "columns", "square": 2, ".": "whole"}
        ),
    },
}


@pytest.mark.parametrize(
    ("name", "convention"), [(row, name) for row, wrongs in WRONG.items() for name in wrongs]
)
def test_another_convention_is_told_apart(name: str, convention: str, x64: None) -> None:
    (row,) = [row for row in ROWS if row["name"] == name]
    assert worst(row, WRONG[name][convention]())[0] > 2
