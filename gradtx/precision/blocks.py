"""How an array is cut into blocks, each with a scale of its own.

A block is a run of elements along the last axis; the last block of a row may be shorter. Where
that axis is shorter than a block, the array is treated as one row, in memory order.

Where a mesh would divide such a block between devices, the array is cut into smaller runs, or into
tiles, that lie inside the shards. The shape of its scales says how an array is cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core.elementwise import Shape


class Runs(NamedTuple):
    """An array of this shape, cut into runs of this size."""

    shape: Shape
    size: int

    @property
    def scales(self) -> Shape:
        """The shape in which scales are stored."""
        return self.blocks[:-1]

    @property
    def rows(self) -> Shape:
        """The shape in which blocks lie along the last axis."""
        along = self.shape and self.shape[-1] >= self.size
        return self.shape if along else (math.prod(self.shape),)

    @property
    def is_even(self) -> bool:
        """Whether rows consist of whole blocks."""
        return self.rows[-1] % self.size == 0

    @property
    def blocks(self) -> Shape:
        """(..., number in a row, size)"""
        *outer, length = self.rows
        return (*outer, -(-length // self.size), self.size)

    @property
    def inside(self) -> Shape:
        """The shape in which to compute: that of the blocks or, if rows are uneven, that of the
        rows, so that nothing is padded."""
        return self.blocks if self.is_even else self.rows

    def positions(self, inside: Shape, axis: int) -> jax.Array:
        """Positions along an axis of the array, for elements laid out in `inside`, which is
        `self.inside` or `self.blocks`."""

        def at(axis: int) -> jax.Array:
            return lax.broadcasted_iota(np.int32, inside, axis)

        last = len(self.rows) - 1
        within = at(last) * self.size + at(last + 1) if len(inside) > last + 1 else at(last)
        if self.rows == self.shape:
            return within if axis == last else at(axis)
        return within // math.prod(self.shape[axis + 1 :]) % self.shape[axis]

    def padded(self, x: jax.Array) -> jax.Array:
        """The array in the shape of the blocks, padded with zeros."""
        rows = x.reshape(self.rows)
        missing = [*[(0, 0)] * (rows.ndim - 1), (0, -rows.shape[-1] % self.size)]
        return (rows if self.is_even else jnp.pad(rows, missing)).reshape(self.blocks)

    def filled(self) -> jax.Array | None:
        """Where blocks hold elements, (number in a row, size); None if there is no padding."""
        if self.is_even:
            return None
        *_, number, size = self.blocks
        return lax.iota(np.int32, number * size).reshape(number, size) < self.rows[-1]

    def of_blocks(self, x: jax.Array, keeps_nan: bool = False) -> jax.Array:
        """`scales_of` an array in the shape of the blocks."""
        return scales_of(x, keeps_nan, self.filled())

    def stored(self, scales: jax.Array) -> jax.Array:
        """Scales as they are stored, without the axes inside a block."""
        return lax.squeeze(scales, (-1,))

    def broadcast(self, scales: jax.Array) -> jax.Array:
        """The inverse of `stored`."""
        return scales[..., None]

    def scales_of(self, x: jax.Array) -> jax.Array:
        """`scales_of` the blocks of an array in the shape `inside`, (*scales, 1)."""
        if self.is_even:
            return scales_of(x)
        # Not `reduce_window`, which XLA does not divide correctly between the devices of a mesh.
        *outer, length = self.rows
        whole = length - length % self.size
        blocks = x[..., :whole].reshape(*outer, whole // self.size, self.size)
        last = x[..., None, whole:]
        return jnp.concatenate([scales_of(blocks), scales_of(last)], axis=-2)

    def spread(self, scales: jax.Array) -> jax.Array:
        """The scales in a form that broadcasts with an array in the shape `inside`."""
        if self.is_even:
            return scales
        *outer, length = self.rows
        whole = jnp.broadcast_to(scales, (*scales.shape[:-1], self.size))
        return whole.reshape(*outer, -1)[..., :length]


class Tiles(NamedTuple):
    """An array of this shape, cut into tiles of a shape that divides it evenly."""

    shape: Shape
    tile: Shape

    @property
    def is_even(self) -> bool:
        """Whether all blocks are whole, as tiles always are."""
        return True

    @property
    def scales(self) -> Shape:
        """The shape in which scales are stored."""
        return tuple([n // size for n, size in zip(self.shape, self.tile, strict=True)])

    @property
    def blocks(self) -> Shape:
        """(number along the first axis, size along it, number along the second, ...)"""
        return tuple([n for pair in zip(self.scales, self.tile, strict=True) for n in pair])

    @property
    def inside(self) -> Shape:
        """The shape in which to compute."""
        return self.blocks

    def positions(self, inside: Shape, axis: int) -> jax.Array:
        """Where elements of the blocks lie along an axis of the array."""
        number, within = (
            lax.broadcasted_iota(np.int32, inside, i) for i in (2 * axis, 2 * axis + 1)
        )
        return number * self.tile[axis] + within

    def padded(self, x: jax.Array) -> jax.Array:
        """An array in the shape of the blocks."""
        return x.reshape(self.blocks)

    def of_blocks(self, x: jax.Array, keeps_nan: bool = False) -> jax.Array:
        """`scales_of` an array in the shape of the blocks."""
        return scales_of(x, keeps_nan, axes=range(1, len(self.blocks), 2))

    def scales_of(self, x: jax.Array) -> jax.Array:
        """The same as `of_blocks`, since `inside` is the shape of the blocks."""
        return self.of_blocks(x)

    def stored(self, scales: jax.Array) -> jax.Array:
        """Scales as they are stored, without the axes inside a block."""
        return lax.squeeze(scales, range(1, len(self.blocks), 2))

    def broadcast(self, scales: jax.Array) -> jax.Array:
        """The inverse of `stored`."""
        return jnp.expand_dims(scales, tuple(range(1, len(self.blocks), 2)))

    def spread(self, scales: jax.Array) -> jax.Array:
        """The scales as they are: they already broadcast with an array in the shape `inside`."""
        return scales


Cut = Runs | Tiles


def cut_of(shape: Shape, scales: Shape) -> Cut:
    """How an array of this shape was cut, read from the shape of its scales.

    Sizes of runs are powers of two, so different sizes give different numbers of runs.
    """
    sizes = [LARGEST_RUN >> k for k in range(LARGEST_RUN.bit_length())]
    runs = next((one for size in sizes if (one := Runs(shape, size)).scales == scales), None)
    return runs or Tiles(shape, tuple([n // k for n, k in zip(shape, scales, strict=True)]))


def cut_for(shape: Shape, shard: Shape, size: int) -> Cut:
    """How to cut an array of which each device holds a shard, so that each holds whole blocks: into
    runs of this size if that is enough, and otherwise into smaller ones, or into tiles.

    A tile is as long as possible along the last axis, and longer than 1 along others only where it
    would be too small without.
    """
    runs = Runs(shape, size)
    if _are_whole(runs, shard):
        return runs
    tile: list[int] = []
    for n, own in zip(reversed(shape), reversed(shard), strict=True):
        room = 1 if math.prod(tile) >= _SMALLEST_TILE else size // math.prod(tile)
        tile.append(n if n == own <= room else math.gcd(own, 2 ** (room.bit_length() - 1)))
    if math.prod(tile) < _SMALLEST_TILE:
        return runs  # it is a small array: XLA puts the parts of a block together
    found = Tiles(shape, tuple(reversed(tile)))
    return cut_of(shape, found.scales)


LARGEST_RUN = 256
# With smaller tiles the scales would take more than an eighth of the bytes of 8-bit codes.
_SMALLEST_TILE = 32


def is_whole(cut: Cut, parts: int) -> bool:
    """Whether blocks stay whole if any axis of the array is divided into this many parts."""
    if parts == 1 or isinstance(cut, Tiles):
        return True
    return cut.rows == cut.shape and cut.rows[-1] % (parts * cut.size) == 0


def _are_whole(runs: Runs, shard: Shape) -> bool:
    """Whether the shard on each device consists of whole runs, as it does where rows are not
    divided."""
    shape = runs.shape
    if shape == shard:
        return True
    if runs.rows == shape:
        return shape[-1] == shard[-1] or shard[-1] % runs.size == 0
    # In memory order, a shard along the first axis is one contiguous piece.
    axis = max(i for i, (n, own) in enumerate(zip(shape, shard, strict=True)) if n != own)
    return math.prod(shape[:axis]) == 1 and math.prod(shard) % runs.size == 0


def scales_of(
    blocks: jax.Array,
    keeps_nan: bool = False,
    filled: jax.Array | None = None,
    axes: Sequence[int] = (-1,),
) -> jax.Array:
    """The largest magnitude of each block, over these axes, which are kept: with a minus sign where
    no element is negative, and NaN where one is not finite. It is zero, or at least 2^-126, so that
    its reciprocal is finite.

    keeps_nan: whether the compiler is sure to keep a NaN in a maximum. XLA for CPU may lose it, and
    a sum then detects it. filled: where there are elements; elsewhere the block holds arbitrary
    finite numbers. None means everywhere.
    """
    high = blocks if filled is None else jnp.where(filled, blocks, -np.inf)
    low = blocks if filled is None else jnp.where(filled, blocks, np.inf)
    axes = tuple(axes)
    highest = jnp.max(high, axis=axes, keepdims=True)
    lowest = jnp.min(low, axis=axes, keepdims=True)
    if keeps_nan:
        zero_if_finite = (highest - highest) + (lowest - lowest)
    else:
        zero_if_finite = jnp.sum(blocks - blocks, axis=axes, keepdims=True)
    return _scales(highest, lowest, zero_if_finite)


def _scales(highest: jax.Array, lowest: jax.Array, zero_if_finite: jax.Array) -> jax.Array:
    size = jnp.maximum(highest, -lowest)
    size = jnp.where(size > 0, jnp.maximum(size, _SMALLEST_NORMAL), size) + zero_if_finite
    return jnp.where(lowest >= 0, -size, size)


_SMALLEST_NORMAL = np.float32(2.0**-126)
