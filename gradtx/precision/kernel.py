"""`in_blocks` for TPU: one kernel that decodes, runs the part and encodes, in one pass.

On TPU the shape of the blocks is another layout in memory, and XLA would copy every array to run in
it. The kernel takes the leaf as it lies, in tiles of some rows and `WIDTH` columns, which hold
whole blocks. What runs on a tile are the part's own operations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.extend.core import JaxprEqn

from gradtx.core.dtypes import cast
from gradtx.core.elementwise import Shape
from gradtx.precision.formats import FORMATS, Code, SplitFloat, code_of, scales_of
from gradtx.precision.moments import Given, Made, Moments, after_another
from gradtx.precision.narrow import noise

WIDTH = 256
# At most so many rows make a tile, and at most so many bytes all the tiles that are in a TPU's
# memory at once: of its 16 MB the rest is for what is computed between them.
ROWS = 512
MEMORY = 4 * 2**20
_LANES = 128


def can_run_in_kernel(what: Moments, given: Given) -> bool:
    """Whether the leaf can be cut into tiles and holds numbers that a TPU computes with, and XLA
    would not fuse it all by itself, as it does with bfloat16."""
    shape = what.part.shape
    if not {*what.reads, *what.makes} - {None, "bfloat16"}:
        return False
    if (
        not given.arrays
        or not shape
        or shape[-1] % WIDTH
        or not 0 < math.prod(shape) // WIDTH < 2**24
    ):
        return False
    decoded = [
        jax.eval_shape(FORMATS[name].decode, x) if name else x
        for name, x in zip(what.reads, given.arrays, strict=True)
    ]
    jaxpr = jax.make_jaxpr(what.part)(decoded, given.scalars)
    return all(map(_has_kernel_form, jaxpr.eqns))


def _has_kernel_form(equation: JaxprEqn) -> bool:
    """Whether compilers of kernels for TPU know an operation, for numbers of these dtypes."""
    avals: list[Any] = [x.aval for x in equation.invars]
    name, dtypes = equation.primitive.name, [aval.dtype for aval in avals]
    if any(dtype.itemsize > 4 or dtype in (np.float16, np.complex64) for dtype in dtypes):
        return False
    integer = dtypes and jnp.issubdtype(dtypes[-1], jnp.integer)
    if name in ("div", "rem", "pow"):
        return not integer
    return name not in _UNKNOWN and not (name == "select_n" and dtypes[-1] == np.bool_)


_UNKNOWN = {"cbrt", "expm1", "reduce_precision"}


def run_in_kernel(
    what: Moments, given: Given, numbers: jax.Array | None = None, interpret: bool = False
) -> Made:
    """The new moments, stored, and what else the part makes.

    numbers: of a shard of the leaf, the `numbers_of` the leaf there; None for a whole leaf.
    interpret: run it without a TPU.
    """
    part = what.part
    shape = part.shape if numbers is None else (*numbers.shape[:-1], numbers.shape[-1] * WIDTH)
    local = replace(what, part=replace(part, shape=shape))
    made = jax.eval_shape(partial(after_another, local), given)
    outputs = [*zip(what.makes, made[0], strict=True), *[(None, x) for x in made[1]]]
    inputs = list(zip(what.reads, given.arrays, strict=True))
    cut = Cut.of(shape, [(name, jax.tree.leaves(x)) for name, x in inputs + outputs])
    arrays = [y for name, x in inputs for y in cut.lay(name, x)]
    arrays += [] if numbers is None else [cut.lay_by_block(numbers, WIDTH)]
    scalars = [_in_memory(x) for x in given.scalars]
    scalars += [_in_memory(lax.bitcast_convert_type(key, np.int32)) for key in given.keys]
    shapes = [y for name, x in outputs for y in jax.eval_shape(partial(cut.lay, name), x)]

    def kernel(*refs: Any) -> None:
        inside = iter(refs)
        known = [_from_memory(next(inside), x) for x in given.scalars]
        keys = iter([_key(next(inside)) for _ in given.keys])
        tiles = [_read(name, [next(inside) for _ in cut.tiles(name)], cut) for name, _ in inputs]
        number = cut.number() if numbers is None else _as_column(next(inside)[cut.column(WIDTH, 0)])
        column = lax.broadcasted_iota(np.int32, (cut.rows, WIDTH), 1)
        index = (number * WIDTH + column).astype(np.uint32)
        tile = (cut.rows, WIDTH), partial(_position, part.shape, number, column)
        for (name, _), x in zip(outputs, part(tiles, known, tile), strict=True):
            bits = FORMATS[name].bits if name else 0
            dither = noise(next(keys), index, bits) if bits else None
            _write(name, [next(inside) for _ in cut.tiles(name)], x, dither, cut)

    specs = [tile for name, _ in inputs for tile in cut.tiles(name)]
    in_specs = [pl.BlockSpec(memory_space=pltpu.SMEM) for _ in scalars] + specs
    in_specs += [] if numbers is None else [cut.tile_by_block(WIDTH)]
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
    whole = [cut.restore(name, x, [next(left) for _ in cut.tiles(name)]) for name, x in outputs]
    return whole[: len(what.makes)], whole[len(what.makes) :]


def numbers_of(shape: Shape) -> jax.Array:
    """The numbers of a leaf's stretches of WIDTH, int32, in the order of memory; they lie on a mesh
    as the leaf does."""
    stretches = (*shape[:-1], shape[-1] // WIDTH)
    return jnp.arange(math.prod(stretches), dtype=np.int32).reshape(stretches)


def _position(shape: Shape, number: jax.Array, column: jax.Array, axis: int) -> jax.Array:
    """Where numbers lie along an axis of a leaf, from the number of their stretch and their column
    in it."""
    in_row = shape[-1] // WIDTH
    row = _quotient(number, in_row)
    if axis == len(shape) - 1:
        return (number - row * in_row) * WIDTH + column
    outer = _quotient(row, math.prod(shape[axis + 1 : -1]))
    position = outer - shape[axis] * _quotient(outer, shape[axis]) if axis else outer
    return jnp.broadcast_to(position, column.shape)


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

    A vector is such a leaf of width WIDTH; it lies in memory as an array of 128 columns does, which
    is how a tile of it is read and written.

    Scales do not lie in columns beside the tiles, where each would take as much room as 128: see
    `lay_by_block`.
    """

    height: int
    width: int
    rows: int
    is_vector: bool

    @classmethod
    def of(cls, shape: Shape, stored: Sequence[tuple[str | None, Sequence[Any]]]) -> Cut:
        """Tiles of as many rows as may be, for arrays stored for a leaf in formats. Two of each
        are in memory: one is worked on while the next is fetched."""
        is_vector = len(shape) == 1
        width = WIDTH if is_vector else shape[-1]
        height = math.prod(shape) // width
        row = 0.0  # bytes of a row of tiles
        for name, arrays in stored:
            scales = 1 if code_of(name) else 0
            tiled = sum(x.size * x.dtype.itemsize for x in arrays[: len(arrays) - scales])
            row += tiled / height * WIDTH / width + scales * arrays[-1].size * 4 / height
        most = max(min(ROWS, int(MEMORY / (2 * row))) // _LANES, 1) * _LANES
        rows = pl.cdiv(height, pl.cdiv(height, most))  # in tiles of one height, if that can be
        return cls(height, width, pl.cdiv(rows, _LANES) * _LANES, is_vector)

    @property
    def grid(self) -> tuple[int, int]:
        """The numbers of tiles."""
        return pl.cdiv(self.height, self.rows), self.width // WIDTH

    def number(self) -> jax.Array:
        """(rows, 1), the `numbers_of` the leaf in the tile at hand."""
        i, j = pl.program_id(0), pl.program_id(1)
        row = i * self.rows + lax.broadcasted_iota(np.int32, (self.rows, 1), 0)
        return row * (self.width // WIDTH) + j

    def tiles(self, name: str | None) -> list[pl.BlockSpec]:
        """Where the tiles lie of each of the arrays that are stored for a leaf in a format."""

        def tile(columns: int) -> pl.BlockSpec:
            rows = self.rows
            if self.is_vector:
                rows, columns = rows * columns // _LANES, _LANES
            return pl.BlockSpec((rows, columns), lambda i, j: (i, j))

        code = code_of(name)
        if code is None:
            return [tile(WIDTH)] * number_of_arrays(name)
        codes = tile(WIDTH * code.bits // 8)
        return [codes, self.tile_by_block(code.size)]

    # What there is one of for each block of so many numbers. The blocks of a tile lie one after
    # another if it is of a vector, and otherwise in columns.

    def columns(self, size: int) -> int:
        """The columns of blocks in a tile."""
        return 1 if self.is_vector else WIDTH // size

    def in_column(self, size: int) -> int:
        """The blocks in each of them."""
        return self.rows * WIDTH // size // self.columns(size)

    def tile_by_block(self, size: int) -> pl.BlockSpec:
        """Where the tiles lie of what `lay_by_block` makes: those of a row of tiles together."""
        number = self.width // WIDTH * self.columns(size)
        return pl.BlockSpec((number, self.in_column(size)), lambda i, j: (0, i))

    def lay_by_block(self, x: jax.Array, size: int) -> jax.Array:
        """An array of one for each block as (columns of blocks in the leaf, blocks in each)."""
        columns = x.reshape(-1, self.width // WIDTH * self.columns(size)).T
        return jnp.pad(columns, ((0, 0), (0, -columns.shape[1] % self.in_column(size))))

    def column(self, size: int, k: int) -> Any:
        """Where in the tile of `tile_by_block` a column of the tile at hand lies."""
        return pl.ds(pl.program_id(1) * self.columns(size) + k, 1), slice(None)

    def blocks(self, code: Code, tile: jax.Array) -> list[jax.Array]:
        """A tile as columns of blocks."""
        if self.is_vector:
            return [tile.reshape(-1, code.size)]
        return jnp.split(tile, self.columns(code.size), axis=1)

    def joined(self, blocks: Sequence[jax.Array]) -> jax.Array:
        """The inverse of `blocks`."""
        return jnp.concatenate(blocks, axis=1).reshape(self.rows, WIDTH)

    def lay(self, name: str | None, stored: Any) -> list[jax.Array]:
        """Those arrays, as they are cut."""
        arrays, code = jax.tree.leaves(stored), code_of(name)
        whole = (-1, _LANES) if self.is_vector else (self.height, -1)
        if code is None:
            return [x.reshape(whole) for x in arrays]
        codes, scales = arrays
        return [codes.reshape(whole), self.lay_by_block(scales, code.size)]

    def restore(self, name: str | None, like: Any, arrays: Sequence[jax.Array]) -> Any:
        """The inverse of `lay`."""
        leaves, treedef = jax.tree.flatten(like)
        arrays = list(arrays)
        if code_of(name):
            columns = arrays[-1]
            arrays[-1] = columns[:, : leaves[-1].size // len(columns)].T
        shaped = [x.reshape(y.shape) for x, y in zip(arrays, leaves, strict=True)]
        return jax.tree.unflatten(treedef, shaped)


def number_of_arrays(name: str | None) -> int:
    """How many arrays are stored for a leaf in a format."""
    return 2 if code_of(name) or name == "bfloat16+8" else 1


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


def _read(name: str | None, refs: Sequence[Any], cut: Cut) -> jax.Array:
    """A tile of a leaf, decoded."""
    code = code_of(name)
    if code is None:
        values = [ref[...].reshape(cut.rows, WIDTH) for ref in refs]
        whole = SplitFloat(*values) if len(values) > 1 else values[0]
        return FORMATS[name].decode(whole) if name else values[0]
    codes, scales = refs[0][...].reshape(cut.rows, -1), refs[1]
    codes = _unpack(codes) if code.bits == 4 else codes
    columns = enumerate(cut.blocks(code, codes))
    return cut.joined(
        [code.decode(x, _as_column(scales[cut.column(code.size, k)])) for k, x in columns]
    )


def _write(
    name: str | None, refs: Sequence[Any], x: jax.Array, dither: jax.Array | None, cut: Cut
) -> None:
    """Encode a tile."""
    code = code_of(name)
    if code is None:
        stored = FORMATS[name].encode(cast(x, np.float32), dither) if name else x
        for ref, value in zip(refs, jax.tree.leaves(stored), strict=True):
            ref[...] = value.reshape(ref.shape)
        return
    assert dither is not None
    codes = []
    pairs = zip(cut.blocks(code, cast(x, np.float32)), cut.blocks(code, dither), strict=True)
    for k, (block, random) in enumerate(pairs):
        scales = scales_of(block)
        codes.append(code.encode(block, scales, random))
        refs[1][cut.column(code.size, k)] = _as_row(scales)
    whole = cut.joined(codes)
    whole = _pack(whole) if code.bits == 4 else whole
    refs[0][...] = whole.astype(refs[0].dtype).reshape(refs[0].shape)


# Numbers, one a row of a tile, in a column or in a row. Not every compiler for TPU reshapes one to
# the other, but each transposes arrays of a multiple of 8 rows and 128 columns.


def _as_column(row: jax.Array) -> jax.Array:
    pieces = jnp.split(row, row.shape[1] // _LANES, axis=1)
    columns = jnp.concatenate(pieces * (8 // math.gcd(8, len(pieces)))).T
    return jnp.concatenate([columns[:, k : k + 1] for k in range(len(pieces))])


def _as_row(column: jax.Array) -> jax.Array:
    pieces = jnp.split(column, column.shape[0] // _LANES)
    rows = jnp.concatenate(pieces * (8 // math.gcd(8, len(pieces))), axis=1).T
    return jnp.concatenate([rows[k : k + 1] for k in range(len(pieces))], axis=1)


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
