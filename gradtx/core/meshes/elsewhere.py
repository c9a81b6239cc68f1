"""Arguments of an eager update that lie on other devices than the rest: which, and what to do.

JAX refuses to combine them, with an error about functions that no user wrote. Nothing is checked
before it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding, Sharding

from gradtx.core.leaves import Leaves, describe
from gradtx.core.state import OptState, Params, Updates


class _Lying(NamedTuple):
    """An array that stays on the devices it was put on: JAX calls it committed."""

    what: str
    array: jax.Array

    @property
    def place(self) -> tuple[Any, ...]:
        """Equal for arrays that one program can take: the devices and, of a mesh, its axes."""
        sharding: Sharding = self.array.sharding
        devices = frozenset(sharding.device_set)
        if isinstance(sharding, NamedSharding) and len(devices) > 1:
            return devices, tuple(sharding.mesh.shape.items())
        return (devices,)

    def __str__(self) -> str:
        sharding = self.array.sharding
        if len(sharding.device_set) == 1:
            (device,) = sharding.device_set
            return f"{self.what}, {describe(self.array)}, lies on {device}"
        if isinstance(sharding, NamedSharding):
            axes = ", ".join(f"{name}={size}" for name, size in sharding.mesh.shape.items())
            return f"{self.what}, {describe(self.array)}, lies on the mesh ({axes})"
        return f"{self.what}, {describe(self.array)}, lies on {len(sharding.device_set)} devices"


def check_together(
    name: str, error: Exception, updates: Updates, state: OptState, params: Params | None
) -> None:
    """Raise ValueError if an update failed because its arguments lie on different devices.

    Raises: ValueError, which names the first argument that lies elsewhere than the params or,
    without params, the updates.
    """
    ours = not type(error).__module__.startswith("jax")
    if ours and "incompatible devices" not in str(error):
        return
    arrays = [*_arrays("params", params), *_arrays("updates", updates), *_state_arrays(state)]
    other = next((x for x in arrays if x.place != arrays[0].place), None)
    if other is None:
        return
    like = "params" if params is not None else "updates"
    way_out = "jax.device_put(state, gradtx.sharding.state_shardings(tx, params))"
    if not other.what.startswith("state"):
        kind = other.what.split(" ")[0]
        way_out = f"jax.device_put({kind}, jax.tree.map(lambda x: x.sharding, {like}))"
    raise ValueError(
        f"{name}: {other}, and {arrays[0]}: put all on the same devices, such as {way_out}"
    ) from error


def _arrays(kind: str, tree: Any) -> Iterator[_Lying]:
    leaves = Leaves.of(tree)
    for path, x in zip(leaves.paths, leaves.values, strict=True):
        yield from _lying(f"{kind} at {path}" if path else kind, x)


def _state_arrays(state: OptState) -> Iterator[_Lying]:
    for keys, x in jax.tree_util.tree_flatten_with_path(state)[0]:
        yield from _lying(f"state{jax.tree_util.keystr(keys)}", x)


def _lying(what: str, x: Any) -> Iterator[_Lying]:
    """The array, if it was put somewhere: JAX moves other arrays as it needs them."""
    concrete = isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer)
    if concrete and getattr(x, "committed", True):
        yield _Lying(what, x)
