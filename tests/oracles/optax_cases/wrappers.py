"""Transformations of groups, on some steps, in other layouts, with measurements."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from .case import LINEAR, MASK, Args, Both, args, matrices, resolve

LABELS = {"scalar": "a", "vectors": ["b", "c"], "matrix": "a", "kernel": {"conv": "b"}}
PREFIX = {"scalar": "c", "vectors": "a", "matrix": "b", "kernel": "a"}


def by_dimension(params: Any) -> Any:
    return jax.tree.map(lambda p: "abc"[min(p.ndim, 2)], params)


def is_frozen_by_name(params: Any) -> Any:
    return {name: name == "matrix" for name in params}


def every_third(step: Any) -> Any:
    return step % 3 == 0


def late(step: Any) -> Any:
    return step >= 20


def never(step: Any) -> Any:
    return jnp.asarray(False)


def against_norm(step: Any, *, value: Any) -> Any:
    return value < 2.0


def norm_of_gradients(params: Any, grads: Any) -> dict[str, Any]:
    return {"value": optax.global_norm(grads)}


def norm(updates: Any) -> Any:
    return optax.global_norm(updates)


def itself(updates: Any) -> Any:
    return updates


def largest(updates: Any) -> Any:
    return jax.tree.map(lambda u: jnp.max(jnp.abs(u)), updates)


def _groups(lib: Any) -> Any:
    return {
        "a": lib.adamw(0.1, weight_decay=0.01),
        "b": lib.chain(lib.clip_by_global_norm(1.0), lib.sgd(resolve(lib, LINEAR), 0.9)),
        "c": lib.set_to_zero(),
    }


def _made(text: str, build: Callable[[Any], Any]) -> Both:
    return Both(text, build)


GROUPS = _made("groups", _groups)
ADAM = _made("adam", lambda lib: lib.adam(0.1))
ADAMW = _made("adamw", lambda lib: lib.adamw(resolve(lib, LINEAR), weight_decay=0.1))
MOMENTUM = _made("momentum", lambda lib: lib.sgd(0.1, 0.9))
CLIPPED = _made(
    "clipped", lambda lib: lib.chain(lib.clip_by_global_norm(0.5), lib.rmsprop(0.05, eps=1e-4))
)
_LATE = "the measurements of a first state are empty there, so that its structure changes"
MEASURES = _made(
    "measures",
    lambda lib: {
        "norm": norm,
        "mean": lib.measure_with_ema(norm, 0.9),
        "largest": lib.measure_with_ema(largest, 0.5, debias=False),
    },
)

_PARTITIONS = [
    args(GROUPS, LABELS),
    args(GROUPS, PREFIX),
    args(GROUPS, by_dimension),
    args(GROUPS, "b"),
    args(GROUPS, LABELS, mask_compatible_extra_args=True),
]

TRANSFORMATIONS: dict[str, list[Args]] = {
    "freeze": [args(True), args(False), args(MASK), args({**MASK, "kernel": True})],
    "snapshot": [args("norm", norm), args("largest", largest), args("itself", itself)],
    "monitor": [
        args(MEASURES).but(states=False, why=_LATE),
        args(Both("norm alone", lambda lib: {"norm": norm})).but(states=False, why=_LATE),
        args(Both("two", lambda lib: {"largest": largest, "norm": norm})).but(
            states=False, why=_LATE
        ),
    ],
}
OPTIMIZERS: dict[str, list[Args]] = {
    "partition": _PARTITIONS,
    "multi_transform": _PARTITIONS[:4],
    "selective_transform": [
        args(ADAM, freeze_mask=MASK),
        args(ADAMW, freeze_mask=True),
        args(CLIPPED, freeze_mask={**MASK, "vectors": [True, False]}),
        args(MOMENTUM, freeze_mask=False),
    ],
    "masked": [
        args(ADAM, MASK),
        args(ADAMW, matrices),
        args(CLIPPED, is_frozen_by_name),
        args(MOMENTUM, MASK, mask_compatible_extra_args=True),
    ],
    "conditionally_transform": [
        args(ADAM, every_third),
        args(MOMENTUM, late),
        args(ADAMW, never),
        args(CLIPPED, against_norm, True).but(extra=norm_of_gradients),
    ],
    "conditionally_mask": [
        args(ADAM, every_third),
        args(MOMENTUM, late),
        args(ADAMW, never),
        args(CLIPPED, against_norm, True).but(extra=norm_of_gradients),
    ],
    "apply_if_finite": [args(ADAM, 3), args(ADAMW, 0), args(MOMENTUM, 10), args(CLIPPED, 1)],
    "flatten": [args(ADAM), args(ADAMW), args(MOMENTUM), args(CLIPPED)],
}
