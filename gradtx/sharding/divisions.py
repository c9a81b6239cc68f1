"""How a tree of PartitionSpecs divides parameters, and how state is divided with them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import PartitionSpec

from gradtx.core.leaves import KeyPath, at, describe, shown
from gradtx.core.meshes.manual import manual_axes, varies_over
from gradtx.core.state import OptState, Params
from gradtx.sharding.pieces import Axes, Division, Shape, axes_of, parts, whole

# A tree of PartitionSpecs like the params, or a prefix of one; None is PartitionSpec().
Specs = Any
# By path, the shape of an array and how it is divided.
Layout = Mapping[KeyPath, tuple[Shape, Division]]


def leaves_of(tree: Any) -> list[tuple[KeyPath, Any]]:
    """The arrays of a tree, with their key paths."""
    return jax.tree_util.tree_flatten_with_path(tree)[0]


def division_by(specs: Specs, where: str) -> Callable[[KeyPath, Any], Division]:
    """A function from a parameter's key path, and an array of its rank, to its division."""
    entries, _ = jax.tree_util.tree_flatten_with_path(specs, is_leaf=_is_spec)
    by_path = dict(entries)
    for path, spec in entries:
        if not _is_spec(spec):
            raise TypeError(
                f"{where}: specs {at(shown(path))} must be a PartitionSpec or None, "
                f"got {describe(spec)}"
            )

    def division(path: KeyPath, x: Any) -> Division:
        above = [path[:n] for n in range(len(path), -1, -1) if path[:n] in by_path]
        if not above:
            known = ", ".join(shown(p) or "the root" for p in list(by_path)[:8])
            raise ValueError(
                f"{where}: {at(shown(path))}: specs has no PartitionSpec for it; it has them for "
                f"{known}. Give a tree like the params, or one spec for all"
            )
        spec = by_path[above[0]] or ()
        rank = len(x.shape)
        if len(spec) > rank:
            raise ValueError(
                f"{where}: {at(shown(path))}: {spec} is longer than the rank of {describe(x)}"
            )
        found = tuple(_axes(entry, f"{where}: {at(shown(path))}: {spec}") for entry in spec)
        return (*found, *whole((0,) * (rank - len(found))))

    return division


def _is_spec(x: Any) -> bool:
    return x is None or isinstance(x, PartitionSpec)


def _axes(entry: Any, where: str) -> Axes:
    """The manual mesh axes in an entry of a PartitionSpec; outside of a shard_map, all axes."""
    names = () if entry is None else entry if isinstance(entry, tuple) else (entry,)
    manual, known = manual_axes(), jax.sharding.get_abstract_mesh().axis_names
    for name in names:
        if manual and name not in known:
            raise ValueError(
                f"{where}: the mesh has no axis {name!r}; its axes: {', '.join(known)}"
            )
    return tuple(name for name in names if not manual or name in manual)


def layout_of_state(
    state: OptState, params: Params, division: Callable[[KeyPath, Any], Division]
) -> Layout:
    """How the arrays of a state are divided, given whole shapes: each like the parameter that it
    belongs to, along the leading dimensions whose lengths are the parameter's. Along others, and
    without a parameter, every device holds all."""
    of_params = {path: (x.shape, division(path, x)) for path, x in leaves_of(params)}

    def of_leaf(path: KeyPath, shape: Shape) -> Division:
        of_param, divided = _param_of(path, of_params)
        same = [a == b for a, b in zip(shape, of_param, strict=False)] + [False]
        first = divided[: same.index(False)]
        return (*first, *whole(shape[len(first) :]))

    return {path: (x.shape, of_leaf(path, x.shape)) for path, x in leaves_of(state)}


def _param_of(path: KeyPath, params: Layout) -> tuple[Shape, Division]:
    """The parameter with the longest path that occurs in a path of the state."""
    for length in range(len(path), -1, -1):
        for start in range(len(path) - length + 1):
            if (found := path[start : start + length]) in params:
                return params[found]
    return (), ()


def divisions_of(shape: Shape, piece: jax.Array) -> list[Division]:
    """The divisions that may have cut this piece out of a whole array of this shape, by its own
    shape and the axes that it varies over."""
    if len(piece.shape) != len(shape):
        return []
    axes = [name for name in manual_axes() if not varies_over(piece) or name in varies_over(piece)]
    groups = [group for n in range(len(axes) + 1) for group in itertools.combinations(axes, n)]
    fitting = [
        [g for g in groups if own * parts(g) == n and (own != n or not g)]
        for own, n in zip(piece.shape, shape, strict=True)
    ]
    every = itertools.product(*fitting)
    return [d for d in every if len(axes_of(d)) == sum(map(len, d))]
