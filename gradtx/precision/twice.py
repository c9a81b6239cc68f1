"""`in_blocks` for GPU: the part is run in the shape of the blocks, twice.

Once for the scales alone, and once for the rest. In one shape everything fuses into one kernel, but
a moment that is read by a reduction and by what the reduction scales would be stored between.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import lax

from gradtx.core.dtypes import cast
from gradtx.core.elementwise import Part, Shape, Variable
from gradtx.precision.formats import FORMATS, Stored, code_of, scales_of
from gradtx.precision.moments import Given, Made, Moments, dither


def can_run_twice(what: Moments, given: Given) -> bool:
    """Whether some moment is in blocks, all of one size, and the leaf can be cut into them."""
    sizes = what.block_sizes
    return len(sizes) == 1 and math.prod(what.part.shape) % min(sizes) == 0


def run_twice(what: Moments, given: Given) -> Made:
    """The new moments, stored, and what else the part makes. The barrier keeps XLA from merging the
    two runs."""
    shape, (size,) = what.part.shape, what.block_sizes
    blocks = _in_blocks(shape, size)
    part = what.part
    formats = dict(zip(part.arrays, what.reads, strict=True))
    scalars = dict(zip(part.scalars, given.scalars, strict=True))
    pairs = zip(part.arrays, given.arrays, strict=True)
    pieces = {x: _cut(formats[x], y, blocks) for x, y in pairs}

    def run(part: Part, pieces: Mapping[Variable, Any]) -> list[jax.Array]:
        arrays = [_decode(formats[x], pieces[x]) for x in part.arrays]
        cut = blocks, partial(_positions, shape, size)
        made = part(arrays, [scalars[x] for x in part.scalars], cut)
        return [cast(x, np.float32) for x in made[: part.wanted]] + made[part.wanted :]

    first = part.making(
        [x for x, name in zip(part.makes, what.makes, strict=False) if code_of(name)]
    )
    scales = [scales_of(x, keeps_nan=True) for x in run(first, pieces)]
    stored = {x: pieces[x] for x in first.arrays if formats[x]}
    barrier: Any = lax.optimization_barrier
    stored, scales = barrier((stored, scales))
    made = run(part, pieces | stored)
    known = iter(scales)
    moments = [
        _encode(name, x, next(known) if code_of(name) else None, dither(name, key, x.shape), shape)
        for name, x, key in zip(what.makes, made, given.keys, strict=False)
    ]
    return moments, [x.reshape(shape) for x in made[part.wanted :]]


def _in_blocks(shape: Shape, size: int) -> Shape:
    """The shape of the blocks: along the last axis if it holds whole ones."""
    if shape[-1] % size == 0:
        return (*shape[:-1], shape[-1] // size, size)
    return (math.prod(shape) // size, size)


def _positions(shape: Shape, size: int, axis: int) -> jax.Array:
    """Where the numbers of a leaf in the shape of its blocks lie along an axis of the leaf."""
    blocks = _in_blocks(shape, size)
    at = partial(lax.broadcasted_iota, np.int32, blocks)
    within = at(len(blocks) - 2) * size + at(len(blocks) - 1)  # its last axis, or the whole
    if len(blocks) > 2 or len(shape) == 1:
        return within if axis == len(shape) - 1 else at(axis)
    return within // math.prod(shape[axis + 1 :]) % shape[axis]


def _cut(name: str | None, x: Any, blocks: Shape) -> Any:
    """An array, stored or not, in the shape of the blocks; codes with their scales."""
    code = code_of(name)
    if code is None:
        return jax.tree.map(lambda x: x.reshape(blocks), x)
    codes, scales = code.take(x)
    return codes.reshape(blocks), scales[..., None]


def _decode(name: str | None, piece: Any) -> jax.Array:
    """What `_cut` made, in float32."""
    code = code_of(name)
    if code is not None:
        return code.decode(*piece)
    return FORMATS[name].decode(piece) if name else piece


def _encode(
    name: str, x: jax.Array, scales: jax.Array | None, dither: jax.Array | None, shape: Shape
) -> Stored:
    """A moment in the shape of the blocks in its format, in the shape of the leaf."""
    code = code_of(name)
    if code is None or scales is None:
        return jax.tree.map(lambda x: x.reshape(shape), FORMATS[name].encode(x, dither))
    codes = code.encode(x, scales, dither).astype(code.dtype).reshape(shape)
    return code.join(codes, lax.squeeze(scales, (-1,)))
