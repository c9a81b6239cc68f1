"""Arrays inside `jax.shard_map`: each device holds a piece of a whole array.

A division says for each dimension of the whole which mesh axes cut it, from the slowest to the
fastest, as a `PartitionSpec` does.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import jax
from jax import lax

from gradtx.core.meshes.manual import manual_axes

Shape = tuple[int, ...]
Axes = tuple[str, ...]
# One entry for each dimension.
Division = tuple[Axes, ...]


def parts(axes: Axes) -> int:
    """Into how many pieces these mesh axes cut a dimension."""
    sizes = manual_axes()
    return math.prod(sizes[axis] for axis in axes)


def whole(shape: Shape) -> Division:
    """The division of an array of which every device holds all."""
    return ((),) * len(shape)


def axes_of(division: Division) -> frozenset[str]:
    """All mesh axes that cut some dimension."""
    return frozenset(axis for axes in division for axis in axes)


def piece_shape(shape: Shape, division: Division) -> Shape:
    """The shape of a piece of an array of this shape."""
    return tuple(n // parts(axes) for n, axes in zip(shape, division, strict=True))


def whole_shape(shape: Shape, division: Division) -> Shape:
    """The shape of the array of which this is the shape of a piece."""
    return tuple(n * parts(axes) for n, axes in zip(shape, division, strict=True))


def joined(shape: Shape, divisions: Iterable[Division]) -> Division:
    """A division for arrays of one shape that are combined: for each dimension, the first cut that
    one of them has, unless its mesh axes cut another dimension already."""
    made, used = list(whole(shape)), set[str]()
    for division in divisions:
        for i, axes in enumerate(division):
            if axes and not made[i] and used.isdisjoint(axes):
                made[i] = axes
                used.update(axes)
    return tuple(made)


@dataclass(frozen=True, eq=False)
class Piece:
    """One device's part of an array of this shape, either held or made once it is known which part
    is asked for.

    division: how it is held or, if it is not, how it is made with the least communication.
    make: from a division to the piece.
    """

    shape: Shape
    division: Division
    make: Callable[[Division], jax.Array]
    held: jax.Array | None = None

    @classmethod
    def of(cls, array: jax.Array, division: Division) -> Piece:
        """A piece that is held."""
        shape = whole_shape(jax.numpy.shape(array), division)
        return cls(shape, division, lambda wanted: _laid(array, division, wanted), array)

    def divided(self, division: Division) -> jax.Array:
        """The array, divided in this way."""
        return self.make(division)

    def as_held(self) -> Piece:
        """The same piece, held."""
        return self if self.held is not None else Piece.of(self.here, self.division)

    @property
    def here(self) -> jax.Array:
        """The array as it is divided."""
        return self.make(self.division) if self.held is None else self.held

    @property
    def all(self) -> jax.Array:
        """The whole array."""
        return self.make(whole(self.shape))


def _laid(x: jax.Array, old: Division, new: Division) -> jax.Array:
    for i, (before, after) in enumerate(zip(old, new, strict=True)):
        if before and before != after:
            x = _gathered(x, i, before)
    for i, (before, after) in enumerate(zip(old, new, strict=True)):
        if after and before != after:
            x = cut(x, i, after)
    return x


def cut(x: jax.Array, dimension: int, axes: Axes) -> jax.Array:
    """This device's piece of a dimension."""
    size = x.shape[dimension] // parts(axes)
    return lax.dynamic_slice_in_dim(x, lax.axis_index(axes) * size, size, dimension)


def _gathered(x: jax.Array, dimension: int, axes: Axes) -> jax.Array:
    made: jax.Array = lax.all_gather(x, axes, axis=dimension, tiled=True, **_SAME_EVERYWHERE)
    return made


# So that the type says that the result is the same everywhere. Older versions of JAX cannot.
_HAS_TO = "to" in inspect.signature(lax.all_gather).parameters
_SAME_EVERYWHERE: dict[str, str] = {"to": "invarying"} if _HAS_TO else {}


def combined(dimensions: Sequence[int], division: Division) -> tuple[Axes, Division]:
    """The mesh axes that cut some of the dimensions, and the division of the others."""
    across = tuple(axis for i in dimensions for axis in division[i])
    return across, tuple(axes for i, axes in enumerate(division) if i not in dimensions)
