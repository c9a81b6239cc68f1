"""`in_blocks` for TPU: one kernel that decodes, runs the part and encodes, in one pass.

On TPU the shape of the blocks is another layout in memory, and XLA would copy every array to run in
it. The kernel takes the leaf as it lies, in tiles of some rows and `WIDTH` columns, which hold
whole blocks. What runs on a tile are the part's own operations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from gradtx.core.dtypes import cast
from gradtx.core.elementwise import Shape
from gradtx.precision.formats import FORMATS, Code, SplitFloat, scales_of
from gradtx.precision.moments import Given, Made, Moments, after_another
from gradtx.precision.narrow import noise

WIDTH = 256
ROWS = 1024
_LANES = 128


def can_run_in_kernel(what: Moments, given: Given) -> bool:
    """Whether the leaf can be cut into tiles and holds numbers that a TPU computes with, and XLA
    would not fuse it all by itself, as it does with bfloat16."""
    shape = given.shape(what)
    if not {*what.reads, *what.makes} - {None, "bfloat16"}:
        return False
    if len(shape) < 2 or shape[-1] % WIDTH or 0 in shape or math.prod(shape[:-1]) >= 2**24:
        return False
    kinds = {x.dtype for x in jax.tree.leaves((given.arrays, given.scalars))}
    return all(kind.itemsize <= 4 and kind.kind != "c" for kind in kinds)


def run_in_kernel(what: Moments, given: Given, interpret: bool = False) -> Made:
    """The new moments, stored, and what else the part makes. interpret: run it without a TPU."""
    shape, part = given.shape(what), what.part
    cut = Cut.of(shape)
    made = jax.eval_shape(partial(after_another, what), given)
    outputs = [*zip(what.makes, made[0], strict=True), *[(None, x) for x in made[1]]]
    inputs = list(zip(what.reads, given.arrays, strict=True))
    arrays = [y for name, x in inputs for y in cut.lay(name, x)]
    scalars = [_in_memory(x) for x in given.scalars]
    scalars += [_in_memory(lax.bitcast_convert_type(key, np.int32)) for key in given.keys]
    shapes = [y for name, x in outputs for y in jax.eval_shape(partial(cut.lay, name), x)]

    def kernel(*refs: Any) -> None:
        inside = iter(refs)
        numbers = [_from_memory(next(inside), x) for x in given.scalars]
        keys = iter([_key(next(inside)) for _ in given.keys])
        tiles = [_read(name, [next(inside) for _ in cut.tiles(name)]) for name, _ in inputs]
        row, column = cut.position()
        index = (row * cut.width + column).astype(np.uint32)

        def positions(axis: int) -> jax.Array:
            if axis == len(shape) - 1:
                return column
            inner = math.prod(shape[axis + 1 : -1])
            outer = _quotient(row, inner)
            return outer - shape[axis] * _quotient(outer, shape[axis]) if axis else outer

        for (name, _), x in zip(outputs, part(tiles, numbers, positions), strict=True):
            bits = FORMATS[name].bits if name else 0
            dither = noise(next(keys), index, bits) if bits else None
            _write(name, [next(inside) for _ in cut.tiles(name)], x, dither)

    specs = [tile for name, _ in inputs for tile in cut.tiles(name)]
    in_specs = [pl.BlockSpec(memory_space=pltpu.SMEM) for _ in scalars] + specs
    out_specs = [tile for name, _ in outputs for tile in cut.tiles(name)]
    results = pl.pallas_call(
        kernel,
        grid=cut.grid,
        in_specs=in_specs,
        out_specs=out_specs,
        out_shape=shapes,
        input_output_aliases=_aliases(what, len(scalars)),
        interpret=interpret,
    )(*scalars, *arrays)
    left = iter(results)
    whole = [cut.restore(x, [next(left) for _ in cut.tiles(name)]) for name, x in outputs]
    return whole[: len(what.makes)], whole[len(what.makes) :]


def _quotient(x: jax.Array, by: int) -> jax.Array:
    """x // by for 0 <= x < 2^24, without a division of integers, which a TPU lacks: the quotient of
    floats is off by one at most."""
    if by == 1:
        return x
    near = (x.astype(np.float32) * np.float32(1 / by)).astype(np.int32)
    rest = x - near * by
    return near + (rest >= by).astype(np.int32) - (rest < 0).astype(np.int32)


class Cut(NamedTuple):
    """A leaf of height x width in tiles of rows x WIDTH.

    Scales do not lie in columns beside the tiles, where each would take as much room as 128, but in
    an array (blocks in a row, height / 128, 128), padded to whole tiles.
    """

    height: int
    width: int
    rows: int

    @classmethod
    def of(cls, shape: Shape) -> Cut:
        """Tiles of at most ROWS rows."""
        height = math.prod(shape[:-1])
        return cls(height, shape[-1], min(ROWS, pl.cdiv(height, _LANES) * _LANES))

    @property
    def grid(self) -> tuple[int, int]:
        """The numbers of tiles."""
        return pl.cdiv(self.height, self.rows), self.width // WIDTH

    def position(self) -> tuple[jax.Array, jax.Array]:
        """The rows and the columns of the numbers in the tile at hand, int32."""
        i, j = pl.program_id(0), pl.program_id(1)
        row = i * self.rows + lax.broadcasted_iota(np.int32, (self.rows, WIDTH), 0)
        column = j * WIDTH + lax.broadcasted_iota(np.int32, (self.rows, WIDTH), 1)
        return row, column

    def tiles(self, name: str | None) -> list[pl.BlockSpec]:
        """Where the tiles lie of each of the arrays that are stored for a leaf in a format."""
        whole = pl.BlockSpec((self.rows, WIDTH), lambda i, j: (i, j))
        code = _code(name)
        if code is None:
            return [whole] * number_of_arrays(name)
        codes = pl.BlockSpec((self.rows, WIDTH * code.bits // 8), lambda i, j: (i, j))
        shape = (WIDTH // code.size, self.rows // _LANES, _LANES)
        return [codes, pl.BlockSpec(shape, lambda i, j: (j, i, 0))]

    def lay(self, name: str | None, stored: Any) -> list[jax.Array]:
        """Those arrays, as they are cut."""
        first, *rest = jax.tree.leaves(stored)
        flat = [x.reshape(self.height, -1) for x in (first, *rest)]
        if _code(name) is None:
            return flat
        codes, scales = flat
        rows = self.grid[0] * self.rows
        padded = jnp.pad(scales.T, ((0, 0), (0, rows - self.height)))
        return [codes, padded.reshape(-1, rows // _LANES, _LANES)]

    def restore(self, like: Any, arrays: Sequence[jax.Array]) -> Any:
        """The inverse of `lay`."""
        leaves, treedef = jax.tree.flatten(like)

        def whole(x: jax.Array, like: Any) -> jax.Array:
            if x.ndim == 3:
                x = x.reshape(x.shape[0], -1)[:, : self.height].T
            return x.reshape(like.shape)

        return jax.tree.unflatten(treedef, map(whole, arrays, leaves))


def number_of_arrays(name: str | None) -> int:
    """How many arrays are stored for a leaf in a format."""
    return 2 if _code(name) or name == "bfloat16+8" else 1


def _code(name: str | None) -> Code | None:
    return FORMATS[name].code if name else None


def _aliases(what: Moments, before: int) -> dict[int, int]:
    """By the number of an operand, of which so many come before the arrays, the number of the
    result that takes its memory."""

    def firsts(names: Sequence[str | None], first: int) -> list[range]:
        numbers = []
        for name in names:
            numbers.append(range(first, first + number_of_arrays(name)))
            first = numbers[-1].stop
        return numbers

    names = [*what.makes, *[None] * (len(what.replaces) - len(what.makes))]
    reads, makes = firsts(what.reads, before), firsts(names, 0)
    pairs = [
        (reads[i], made) for i, made in zip(what.replaces, makes, strict=True) if i is not None
    ]
    return {old: new for olds, news in pairs for old, new in zip(olds, news, strict=True)}


# -- scalars ---------------------------------------------------------------------------------------


def _in_memory(x: jax.Array) -> jax.Array:
    """A scalar or a key as the array of numbers that a kernel reads it from."""
    x = x.astype(np.int32) if x.dtype == np.bool_ else x
    return x.reshape(1, -1)


def _from_memory(ref: Any, like: jax.Array) -> jax.Array:
    return ref[0, 0] != 0 if like.dtype == np.bool_ else ref[0, 0]


def _key(ref: Any) -> tuple[jax.Array, jax.Array]:
    return ref[0, 0].astype(np.uint32), ref[0, 1].astype(np.uint32)


# -- tiles -----------------------------------------------------------------------------------------


def _read(name: str | None, refs: Sequence[Any]) -> jax.Array:
    """A tile of a leaf, decoded."""
    code = _code(name)
    if code is None:
        values = [ref[...] for ref in refs]
        return (
            FORMATS[name].decode(SplitFloat(*values) if len(values) > 1 else values[0])
            if name
            else values[0]
        )
    numbers, scales = refs[0][...], refs[1]
    numbers = _unpack(numbers) if code.bits == 4 else numbers
    blocks = [
        code.decode(block, scales[k].reshape(-1, 1))
        for k, block in enumerate(jnp.split(numbers, WIDTH // code.size, axis=1))
    ]
    return jnp.concatenate(blocks, axis=1)


def _write(name: str | None, refs: Sequence[Any], x: jax.Array, dither: jax.Array | None) -> None:
    """Encode a tile."""
    code = _code(name)
    if code is None:
        stored = FORMATS[name].encode(cast(x, np.float32), dither) if name else x
        for ref, value in zip(refs, jax.tree.leaves(stored), strict=True):
            ref[...] = value
        return
    number = WIDTH // code.size
    blocks = jnp.split(cast(x, np.float32), number, axis=1)
    dithers = jnp.split(dither, number, axis=1) if dither is not None else [None] * number
    codes = []
    for k, (block, part) in enumerate(zip(blocks, dithers, strict=True)):
        scale = scales_of(block)
        codes.append(code.encode(block, scale, part))
        refs[1][k] = scale.reshape(refs[1].shape[1:])
    whole = jnp.concatenate(codes, axis=1)
    refs[0][...] = (_pack(whole) if code.bits == 4 else whole).astype(refs[0].dtype)


# Two codes per byte, neighbours in a row. A TPU moves numbers between the columns of a tile by
# multiplying with a matrix of zeros and ones; products and sums of such small integers are exact.


def _unpack(packed: jax.Array) -> jax.Array:
    numbers = packed.astype(np.int32)
    low, high = numbers & 15, numbers >> 4
    return (_moved(low, _of_pairs(0).T) + _moved(high, _of_pairs(1).T)).astype(np.int32)


def _pack(codes: jax.Array) -> jax.Array:
    return (_moved(codes, _of_pairs(0) + 16 * _of_pairs(1))).astype(np.int32)


def _of_pairs(which: int) -> jax.Array:
    """(WIDTH, WIDTH / 2), the matrix that takes the first or the second of each pair of columns."""
    shape = (WIDTH, WIDTH // 2)
    row, column = (lax.broadcasted_iota(np.int32, shape, axis) for axis in (0, 1))
    return (row == 2 * column + which).astype(np.float32)


def _moved(x: jax.Array, matrix: jax.Array) -> jax.Array:
    return jnp.dot(
        x.astype(np.float32).astype(jnp.bfloat16),
        matrix.astype(jnp.bfloat16),
        preferred_element_type=np.float32,
    )
