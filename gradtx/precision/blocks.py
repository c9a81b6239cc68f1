"""How an array is cut into blocks, each with a scale of its own.

A block is a run of elements along the last axis; the last of a row may be shorter. Where that axis
is shorter than a block, the array is one row, in order of memory.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core.elementwise import Shape


class Cut(NamedTuple):
    """An array of a shape in blocks of a size."""

    shape: Shape
    size: int

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

    def scales_of(self, x: jax.Array) -> jax.Array:
        """`scales_of` the blocks, (..., number in a row, 1), of what is in the shape inside."""
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


def scales_of(
    blocks: jax.Array, keeps_nan: bool = False, filled: jax.Array | None = None
) -> jax.Array:
    """(..., 1), the largest magnitude of each block: with a minus sign where no element is
    negative, NaN where one is not finite. It is at least 2^-126, so that its reciprocal is finite,
    or zero.

    keeps_nan: whether the compiler never loses a NaN in a maximum, as XLA for CPU may. There a sum
    shows it. filled: where there is an element, and not some finite number; None for everywhere.
    """
    high = blocks if filled is None else jnp.where(filled, blocks, -np.inf)
    low = blocks if filled is None else jnp.where(filled, blocks, np.inf)
    highest = jnp.max(high, axis=-1, keepdims=True)
    lowest = jnp.min(low, axis=-1, keepdims=True)
    if keeps_nan:
        zero_if_finite = (highest - highest) + (lowest - lowest)
    else:
        zero_if_finite = jnp.sum(blocks - blocks, axis=-1, keepdims=True)
    return _scales(highest, lowest, zero_if_finite)


def _scales(highest: jax.Array, lowest: jax.Array, zero_if_finite: jax.Array) -> jax.Array:
    size = jnp.maximum(highest, -lowest)
    size = jnp.where(size > 0, jnp.maximum(size, _SMALLEST_NORMAL), size) + zero_if_finite
    return jnp.where(lowest >= 0, -size, size)


_SMALLEST_NORMAL = np.float32(2.0**-126)
