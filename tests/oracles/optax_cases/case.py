"""What a case of a comparison with Optax is."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


def show(value: Any) -> str:
    return "mask" if value is MASK else getattr(value, "__name__", repr(value))


class Args(NamedTuple):
    """Arguments of one construction, and what is particular about comparing it.

    rtol: of params and state, looser than 1e-12 only with a reason in `why`. states: whether the
    states must be alike, key paths included. extra: extra arguments of update, from params and
    gradients. steps: how many to compare.
    """

    positional: tuple[Any, ...]
    named: dict[str, Any]
    rtol: float = 1e-12
    states: bool = True
    extra: Callable[[Any, Any], dict[str, Any]] | None = None
    steps: int = 50
    narrow_rtol: float = 1e-6
    why: str = ""

    def __repr__(self) -> str:
        named = [f"{k}={show(v)}" for k, v in self.named.items()]
        return ", ".join([*map(show, self.positional), *named])

    def but(self, **particular: Any) -> "Args":
        """The same, compared otherwise; `why` says why."""
        if {"rtol", "states", "steps", "narrow_rtol"} & particular.keys():
            assert particular.get("why") or self.why, "say why"
        return self._replace(**particular)


class Both:
    """An argument that each library builds for itself."""

    def __init__(self, text: str, build: Callable[[Any], Any]):
        self.text, self.build = text, build

    def __repr__(self) -> str:
        return self.text


def args(*positional: Any, **named: Any) -> Args:
    return Args(positional, named)


def resolve(lib: Any, value: Any) -> Any:
    if isinstance(value, Both):
        return value.build(lib)
    if isinstance(value, tuple | list):
        return type(value)(resolve(lib, v) for v in value)
    if isinstance(value, dict):
        return {k: resolve(lib, v) for k, v in value.items()}
    return value


def named(lib: Any, name: str) -> Any:
    """By its name; Optax's contrib is flat in gradtx."""
    return getattr(lib, name) if hasattr(lib, name) else getattr(lib.contrib, name)


def build(lib: Any, name: str, case: Args) -> Any:
    positional = [resolve(lib, v) for v in case.positional]
    return named(lib, name)(*positional, **{k: resolve(lib, v) for k, v in case.named.items()})


def in_float64(lib: Any, schedule: Any) -> Any:
    """Optax divides an int32 step in float32, even with 64-bit types: give it a float64 step."""
    return (lambda step: schedule(jnp.asarray(step, jnp.float64))) if lib is optax else schedule


COSINE = Both(
    "cosine_decay_schedule(0.1, 40)",
    lambda lib: in_float64(lib, lib.cosine_decay_schedule(0.1, 40)),
)
LINEAR = Both(
    "linear_schedule(0.01, 0.5, 30)",
    lambda lib: in_float64(lib, lib.linear_schedule(0.01, 0.5, 30)),
)


def matrices(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, tree)


MASK = {"scalar": True, "vectors": False, "matrix": True, "kernel": {"conv": False}}
