"""The ways to train with less memory that `benchmarks.memory` and `benchmarks.quality` compare."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

import gradtx
from benchmarks.results import FOLDER, device_facts, library_versions

RESULTS = FOLDER / "precision"


@dataclass(frozen=True)
class Way:
    """An optimizer for a learning rate, and the dtype in which the parameters are kept."""

    build: Callable[[Any], Any]
    dtype: Any = np.float32
    library: Any = gradtx


def _stored(name: str) -> Way:
    return Way(lambda rate: gradtx.store(gradtx.adamw(rate), name))


BF16 = jnp.bfloat16
WAYS: dict[str, Way] = {
    "float32 (Optax)": Way(optax.adamw, library=optax),
    "float32": Way(gradtx.adamw),
    "all bfloat16 (Optax)": Way(optax.adamw, BF16, optax),
    "bfloat16 params, stochastic rounding": Way(
        lambda rate: gradtx.chain(gradtx.adamw(rate), gradtx.stochastic_rounding()), BF16
    ),
    "bfloat16 params, Kahan": Way(
        lambda rate: gradtx.chain(gradtx.adamw(rate), gradtx.kahan()), BF16
    ),
    "bfloat16 params, master weights": Way(
        lambda rate: gradtx.master_weights(gradtx.adamw(rate)), BF16
    ),
    "state bfloat16": _stored("bfloat16"),
    "state bfloat16+8": _stored("bfloat16+8"),
    "state float8": _stored("float8"),
    "state int8": _stored("int8"),
    "state int4": _stored("int4"),
    "bfloat16 params, stochastic rounding, state int8": Way(
        lambda rate: gradtx.chain(
            gradtx.store(gradtx.adamw(rate), "int8"), gradtx.stochastic_rounding()
        ),
        BF16,
    ),
}


def write(name: str, command: str, device: Any, rows: list[dict[str, Any]], **facts: Any) -> Path:
    """Write the rows with device, versions and command."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    heading = {"command": command, "device": device_facts(device), "versions": library_versions()}
    path.write_text(json.dumps({**heading, **facts, "rows": rows}, indent=1) + "\n")
    return path
