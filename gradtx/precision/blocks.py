"""How an array is cut into blocks, each with a scale of its own.

A block is a run of elements along the last axis; the last of a row may be shorter. Where that axis
is shorter than a block, the array is one row, in order of memory.

Where a mesh would divide such a block between devices, each shard is cut by itself, into smaller
runs or into tiles. How an array is cut can be told from the shape of its scales.
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
    """An array of a shape in runs of a size."""

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
        """Where elements in the shape inside, or of the blocks, lie along an axis of the array."""

        def at(axis: int) -> jax.Array:
            return lax.broadcasted_iota(np.int32, inside, axis)

        last = len(self.rows) - 1
        within = at(last) * self.size + at(last + 1) if len(inside) > last + 1 else at(last)
        if self.rows == self.shape:
            return within if axis == last else at(axis)
        return within // math.prod(self.shape[axis + 1 :]) % self.shape[axis]

    def padded(self, x: jax.Array) -> jax.Array:
        """An array in the shape of the blocks; 0 where it has no element."""
        rows = x.reshape(self.rows)
        missing = [*[(0, 0)] * (rows.ndim - 1), (0, -rows.shape[-1] % self.size)]
        return (rows if self.is_even else jnp.pad(rows, missing)).reshape(self.blocks)

    def filled(self) -> jax.Array | None:
        """Where it has one, (number in a row, size); None if it has everywhere."""
        if self.is_even:
            return None
        *_, number, size = self.blocks
        return lax.iota(np.int32, number * size).reshape(number, size) < self.rows[-1]

    def of_blocks(self, x: jax.Array, keeps_nan: bool = False) -> jax.Array:
        """`scales_of` what is in the shape of the blocks."""
        return scales_of(x, keeps_nan, self.filled())

    def stored(self, scales: jax.Array) -> jax.Array:
        """Scales without the axes of a block."""
        return lax.squeeze(scales, (-1,))

    def broadcast(self, scales: jax.Array) -> jax.Array:
        """The inverse of `stored`."""
        return scales[..., None]

    def scales_of(self, x: jax.Array) -> jax.Array:
        """`scales_of` the blocks of what is in the shape inside, (*scales, 1)."""
        if self.is_even:
            return scales_of(x)
        # Not `reduce_window`, which XLA does not divide rightly between the devices of a mesh.
        *outer, length = self.rows
        whole = length - length % self.size
        blocks = x[..., :whole].reshape(*outer, whole // self.size, self.size)
        last = x[..., None, whole:]
        return jnp.concatenate([scales_of(blocks), scales_of(last)], axis=-2)

    def spread(self, scales: jax.Array) -> jax.Array:
        """The scales so that they broadcast with what is in the shape inside."""
        if self.is_even:
            return scales
        *outer, length = self.rows
        whole = jnp.broadcast_to(scales, (*scales.shape[:-1], self.size))
        return whole.reshape(*outer, -1)[..., :length]


class Tiles(NamedTuple):
    """An array of a shape in tiles of a shape, by which it can be divided evenly."""

    shape: Shape
    tile: Shape

    @property
    def is_even(self) -> bool:
        """Whether there are whole blocks only."""
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
        """`scales_of` what is in the shape of the blocks."""
        return scales_of(x, keeps_nan, axes=range(1, len(self.blocks), 2))

    def scales_of(self, x: jax.Array) -> jax.Array:
        """The same, as blocks are what one computes with."""
        return self.of_blocks(x)

    def stored(self, scales: jax.Array) -> jax.Array:
        """Scales without the axes of a block."""
        return lax.squeeze(scales, range(1, len(self.blocks), 2))

    def broadcast(self, scales: jax.Array) -> jax.Array:
        """The inverse of `stored`."""
        return jnp.expand_dims(scales, tuple(range(1, len(self.blocks), 2)))

    def spread(self, scales: jax.Array) -> jax.Array:
        """Such scales already broadcast with what is in the shape inside."""
        return scales


Cut = Runs | Tiles


def cut_of(shape: Shape, scales: Shape) -> Cut:
    """How an array was cut whose scales have a shape.

    Of runs of different sizes, which are powers of two, there are different numbers.
    """
    sizes = [LARGEST_RUN >> k for k in range(LARGEST_RUN.bit_length())]
    runs = next((one for size in sizes if (one := Runs(shape, size)).scales == scales), None)
    return runs or Tiles(shape, tuple([n // k for n, k in zip(shape, scales, strict=True)]))


def cut_for(shape: Shape, shard: Shape, size: int) -> Cut:
    """How to cut an array of which each device holds a shard, so that each holds whole blocks: in
    runs of this size, if it does, and otherwise in smaller ones, or in tiles.

    A tile is as long as it can be on the last axis, and on others only where it were too small.
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
# Of smaller ones the scales would be more than an eighth of the codes.
_SMALLEST_TILE = 32


def is_whole(cut: Cut, parts: int) -> bool:
    """Whether blocks stay whole if any axis of the array is divided into so many parts."""
    if parts == 1 or isinstance(cut, Tiles):
        return True
    return cut.rows == cut.shape and cut.rows[-1] % (parts * cut.size) == 0


def _are_whole(runs: Runs, shard: Shape) -> bool:
    """Whether each device that holds a shard holds whole runs, as it does of a row that is not
    divided."""
    shape = runs.shape
    if shape == shard:
        return True
    if runs.rows == shape:
        return shape[-1] == shard[-1] or shard[-1] % runs.size == 0
    # In order of memory: a shard of the first axis is one piece of it.
    axis = max(i for i, (n, own) in enumerate(zip(shape, shard, strict=True)) if n != own)
    return math.prod(shape[:axis]) == 1 and math.prod(shard) % runs.size == 0


def scales_of(
    blocks: jax.Array,
    keeps_nan: bool = False,
    filled: jax.Array | None = None,
    axes: Sequence[int] = (-1,),
) -> jax.Array:
    """The largest magnitude of each block, over its axes, which are kept: with a minus sign where
    no element is negative, NaN where one is not finite. It is at least 2^-126, so that its
    reciprocal is finite, or zero.

    keeps_nan: whether the compiler never loses a NaN in a maximum, as XLA for CPU may. There a sum
    shows it. filled: where there is an element, and not some finite number; None for everywhere.
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
