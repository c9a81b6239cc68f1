"""`in_blocks` for TPU: one kernel that decodes, runs the part and encodes, in one pass.

On TPU the shape of the blocks has another memory layout, and XLA would copy every array to compute
in it. The kernel takes the leaf as it lies in memory, in tiles of some rows and `WIDTH` columns,
which hold whole blocks. On a tile it runs the part's own operations, one band of rows after
another.

A vector lies in memory like an array of 128 columns. An array that has 128 columns is therefore
taken as a vector, whose blocks continue from one row to the next.
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
from jax.extend.core import JaxprEqn

from gradtx.core.dtypes import cast
from gradtx.core.elementwise import Shape
from gradtx.precision.blocks import Runs, scales_of
from gradtx.precision.formats import Code, Format, SplitFloat, code_of
from gradtx.precision.moments import Given, Made, Moments, after_another
from gradtx.precision.narrow import noise

WIDTH = 256
# The most rows of a tile and, in `MEMORY`, the most bytes of all tiles that are in a TPU's memory
# at once: the rest of its 16 MB is for intermediate results.
ROWS = 512
# A tile is worked on in a loop over bands of this many rows, which keeps both the intermediate
# results and the program small.
BAND = 128
MEMORY = 4 * 2**20
_LANES = 128
# Up to here float32 represents every whole number.
_EXACT = 2**24


def can_run_in_kernel(what: Moments, given: Given) -> bool:
    """Whether the leaf can be cut into tiles and kernels support the part's operations, and XLA
    would not fuse it all by itself, as it does with bfloat16."""
    shape = what.part.shape
    forms = [form for form in (*what.reads, *what.makes) if form]
    if all(form.name == "bfloat16" for form in forms):
        return False
    if not given.arrays or not shape or not 0 < math.prod(stretches(shape)) < _EXACT:
        return False
    fits = shape[-1] >= WIDTH or _is_vector(shape)
    codes = [code for form in forms if (code := form.code)]
    if not all(isinstance(cut, Runs) and WIDTH % cut.size == 0 for cut in what.cuts):
        return False
    halved = any(code.bits < 8 for code in codes)
    if not fits or (halved and shape[-1] % 2):
        return False
    decoded = [
        jax.eval_shape(form.decode, x) if form else x
        for form, x in zip(what.reads, given.arrays, strict=True)
    ]
    jaxpr = jax.make_jaxpr(what.part)(decoded, given.scalars)
    return all(map(_has_kernel_form, jaxpr.eqns))


def stretches(shape: Shape) -> Shape:
    """The shape, its last axis counted in stretches of WIDTH, of which the last may be shorter. An
    array that is taken as a vector has one axis."""
    if _is_vector(shape):
        shape = (math.prod(shape),)
    return (*shape[:-1], -(-shape[-1] // WIDTH))


def _is_vector(shape: Shape) -> bool:
    columns = shape[-1] == _LANES and math.prod(shape) % WIDTH == 0
    return len(shape) == 1 or columns


def _has_kernel_form(equation: JaxprEqn) -> bool:
    """Whether kernel compilers for TPU support an operation on these dtypes."""
    avals: list[Any] = [x.aval for x in equation.invars]
    name, dtypes = equation.primitive.name, [aval.dtype for aval in avals]
    if any(dtype.itemsize > 4 or dtype in (np.float16, np.complex64) for dtype in dtypes):
        return False
    integer = dtypes and jnp.issubdtype(dtypes[-1], jnp.integer)
    if name in ("div", "rem", "pow"):
        return not integer
    return name not in _UNKNOWN and not (name == "select_n" and dtypes[-1] == np.bool_)


_UNKNOWN = {"cbrt", "expm1", "reduce_precision"}


def run_in_kernel(what: Moments, given: Given, interpret: bool = False) -> Made:
    """The new moments, stored, and the other results of the part. interpret: run without a TPU."""
    part = what.part
    made = jax.eval_shape(partial(after_another, what), given)
    outputs = [*zip(what.makes, made[0], strict=True), *[(None, x) for x in made[1]]]
    inputs = list(zip(what.reads, given.arrays, strict=True))
    tiling = Tiling.of(part.shape, [(form, jax.tree.leaves(x)) for form, x in inputs + outputs])
    arrays = [y for form, x in inputs for y in tiling.lay(form, x)]
    scalars = [_in_memory(x) for x in given.scalars]
    scalars += [_in_memory(lax.bitcast_convert_type(key, np.int32)) for key in given.keys]
    shapes = [y for form, x in outputs for y in jax.eval_shape(partial(tiling.lay, form), x)]

    def run_on(band: Band, refs: Sequence[Any]) -> None:
        inside = iter(refs)
        known = [_from_memory(next(inside), x) for x in given.scalars]
        keys = iter([_key(next(inside)) for _ in given.keys])
        pieces = [
            _read(form, [next(inside) for _ in tiling.tiles(form)], band) for form, _ in inputs
        ]
        number = band.number()
        column = lax.broadcasted_iota(np.int32, (BAND, WIDTH), 1)
        index = _index(part.shape, number, column).astype(np.uint32)
        piece = (BAND, WIDTH), partial(_position, part.shape, number, column)
        for (form, _), x in zip(outputs, part(pieces, known, piece), strict=True):
            bits = form.bits if form else 0
            dither = noise(next(keys), index, bits) if bits else None
            _write(form, [next(inside) for _ in tiling.tiles(form)], x, dither, band)

    def kernel(*refs: Any) -> None:
        tile = pl.program_id(0), pl.program_id(1)

        def turn(k: jax.Array, _: None) -> None:
            run_on(Band(tiling, tile, k), refs)

        lax.fori_loop(0, tiling.rows // BAND, turn, None)

    specs = [tile for form, _ in inputs for tile in tiling.tiles(form)]
    in_specs = [pl.BlockSpec(memory_space=pltpu.SMEM) for _ in scalars] + specs
    out_specs = [tile for form, _ in outputs for tile in tiling.tiles(form)]
    results = pl.pallas_call(
        kernel,
        grid=tiling.grid,
        in_specs=in_specs,
        out_specs=out_specs,
        out_shape=shapes,
        input_output_aliases=_aliases(what, len(scalars)),
        interpret=interpret,
    )(*scalars, *arrays)
    left = iter(results)
    whole = [
        tiling.restore(form, x, [next(left) for _ in tiling.tiles(form)]) for form, x in outputs
    ]
    return whole[: len(what.makes)], whole[len(what.makes) :]


def _index(shape: Shape, number: jax.Array, column: jax.Array) -> jax.Array:
    """The place of elements in memory, from the number of their stretch and their column in it."""
    *_, in_row = stretches(shape)
    surplus = in_row * WIDTH - shape[-1]
    if _is_vector(shape) or not surplus:
        return number * WIDTH + column
    return number * WIDTH - _divided(number, in_row)[0] * surplus + column


def _position(shape: Shape, number: jax.Array, column: jax.Array, axis: int) -> jax.Array:
    """The place of these elements along an axis of the leaf."""
    if len(shape) == 1:
        return number * WIDTH + column
    if _is_vector(shape):
        half, last = _divided(column, _LANES)
        row = number * (WIDTH // _LANES) + half
    else:
        *_, in_row = stretches(shape)
        row, first = _divided(number, in_row)
        last = first * WIDTH + column
    if axis == len(shape) - 1:
        return last
    outer, _ = _divided(row, math.prod(shape[axis + 1 : -1]))
    position = _divided(outer, shape[axis])[1] if axis else outer
    return jnp.broadcast_to(position, column.shape)


def _divided(x: jax.Array, by: int) -> tuple[jax.Array, jax.Array]:
    """x // by and x % by for 0 <= x < 2^24, without integer division, which a TPU lacks: the
    quotient of floats is off by one at most."""
    if by == 1:
        return x, jnp.zeros_like(x)
    near = (x.astype(np.float32) * np.float32(1 / by)).astype(np.int32)
    rest = x - near * by
    up, down = (rest >= by).astype(np.int32), (rest < 0).astype(np.int32)
    return near + up - down, rest + (down - up) * by


class Tiling(NamedTuple):
    """A leaf of height x width in tiles of rows x WIDTH.

    A vector is taken as a leaf of width WIDTH with its last row padded; its tiles are read and
    written in rows of 128. length: the length of each row, or of the vector, without padding.

    Scales are not laid out in columns beside the tiles, where each would take the room of 128: see
    `lay_by_block`.
    """

    height: int
    width: int
    rows: int
    length: int
    is_vector: bool

    @classmethod
    def of(cls, shape: Shape, stored: Sequence[tuple[Format | None, Sequence[Any]]]) -> Tiling:
        """Tiles of as many rows as fit, for the arrays stored for a leaf in these formats. Two
        tiles of each are in memory: one is worked on while the next is fetched."""
        is_vector = _is_vector(shape)
        length = math.prod(shape) if is_vector else shape[-1]
        width = WIDTH if is_vector else length
        height = pl.cdiv(math.prod(shape), width)
        row = 0.0  # bytes of a row of tiles
        for form, arrays in stored:
            scales = 1 if code_of(form) else 0
            tiled = sum(x.size * x.dtype.itemsize for x in arrays[: len(arrays) - scales])
            row += tiled / height * WIDTH / width + scales * arrays[-1].size * 4 / height
        most = max(min(ROWS, int(MEMORY / (2 * row))) // _LANES, 1) * _LANES
        rows = pl.cdiv(height, pl.cdiv(height, most))  # in tiles of equal height, if possible
        return cls(height, width, pl.cdiv(rows, _LANES) * _LANES, length, is_vector)

    @property
    def grid(self) -> tuple[int, int]:
        """The number of tiles along each axis."""
        return pl.cdiv(self.height, self.rows), pl.cdiv(self.width, WIDTH)

    def tiles(self, form: Format | None) -> list[pl.BlockSpec]:
        """For each of the arrays stored for a leaf in a format, where its tiles lie."""

        def tile(columns: int) -> pl.BlockSpec:
            rows = self.rows
            if self.is_vector:
                rows, columns = rows * columns // _LANES, _LANES
            return pl.BlockSpec((rows, columns), lambda i, j: (i, j))

        code = code_of(form)
        if code is None:
            return [tile(WIDTH)] * number_of_arrays(form)
        codes = tile(WIDTH * code.bits // 8)
        return [codes, self.tile_by_block(code.size)]

    # Arrays with one entry for each block of `size` numbers. The blocks of a tile lie one after
    # another if the leaf is a vector, and otherwise in columns.

    def columns(self, size: int) -> int:
        """The number of columns of blocks in a tile."""
        return 1 if self.is_vector else WIDTH // size

    def in_column(self, size: int) -> int:
        """The number of blocks in each of these columns."""
        return self.rows * WIDTH // size // self.columns(size)

    def tile_by_block(self, size: int) -> pl.BlockSpec:
        """Where the tiles of a result of `lay_by_block` lie, one for a whole row of tiles."""
        number = pl.cdiv(self.width, WIDTH) * self.columns(size)
        return pl.BlockSpec((number, self.in_column(size)), lambda i, j: (0, i))

    def lay_by_block(self, x: jax.Array, size: int) -> jax.Array:
        """An array with one entry per block as (columns of blocks in the leaf, blocks in each)."""
        number = pl.cdiv(self.width, WIDTH) * self.columns(size)
        in_row = 1 if self.is_vector else pl.cdiv(self.width, size)
        columns = x.reshape(-1, in_row).T
        missing = number - in_row, -columns.shape[1] % self.in_column(size)
        return jnp.pad(columns, [(0, n) for n in missing])

    def lay(self, form: Format | None, stored: Any) -> list[jax.Array]:
        """The arrays stored for a leaf in a format, laid out as they are cut into tiles."""
        arrays, code = jax.tree.leaves(stored), code_of(form)

        def whole(x: jax.Array, bits: int = 8) -> jax.Array:
            if not self.is_vector:
                return x.reshape(self.height, -1)
            flat = x.reshape(-1)
            missing = self.height * WIDTH * bits // 8 - flat.size
            return jnp.pad(flat, (0, missing)).reshape(-1, _LANES)

        if code is None:
            return [whole(x) for x in arrays]
        codes, scales = arrays
        return [whole(codes, code.bits), self.lay_by_block(scales, code.size)]

    def restore(self, form: Format | None, like: Any, arrays: Sequence[jax.Array]) -> Any:
        """The inverse of `lay`."""
        leaves, treedef = jax.tree.flatten(like)
        arrays, code = list(arrays), code_of(form)
        if code:
            in_row = 1 if self.is_vector else pl.cdiv(self.width, code.size)
            arrays[-1] = arrays[-1][:in_row, : leaves[-1].size // in_row].T
        shaped = [
            x.reshape(-1)[: like.size].reshape(like.shape)
            for x, like in zip(arrays, leaves, strict=True)
        ]
        return jax.tree.unflatten(treedef, shaped)


class Band(NamedTuple):
    """Some rows of a tile: the tile's place in the grid, and the band's number k in the tile."""

    tiling: Tiling
    tile: tuple[jax.Array, jax.Array]
    k: jax.Array

    def number(self) -> jax.Array:
        """(BAND, 1), the number of the stretch of WIDTH that each row is."""
        i, j = self.tile
        first = i * self.tiling.rows + self.k * BAND
        row = first + lax.broadcasted_iota(np.int32, (BAND, 1), 0)
        return row * pl.cdiv(self.tiling.width, WIDTH) + j

    def filled(self) -> jax.Array | None:
        """Where the band holds elements; None if there is no padding."""
        if self.tiling.length % WIDTH == 0:
            return None
        column = lax.broadcasted_iota(np.int32, (BAND, WIDTH), 1)
        stretch = self.number() if self.tiling.is_vector else self.tile[1]
        return stretch * WIDTH + column < self.tiling.length

    def part(self, length: int) -> Any:
        """The band's part of an axis of a tile along which bands lie one after another."""
        share = length * BAND // self.tiling.rows
        return pl.ds(pl.multiple_of(self.k * share, share), share)

    # Compilers for TPU support dynamic indices along rows, or along columns, but not along both at
    # once. So the band's columns are selected.

    def column(self, ref: Any, size: int, k: int) -> jax.Array:
        """The band's part of column k of blocks in a tile of `tile_by_block`, as a column."""
        row, share = ref[self._row(size, k)], self._in_column(size)
        first, *others = jnp.split(row, row.shape[1] // share, axis=1)
        for i, other in enumerate(others, 1):
            first = jnp.where(self.k == i, other, first)
        return _as_column(first)

    def put_column(self, ref: Any, size: int, k: int, column: jax.Array) -> None:
        """Write the band's part of such a column."""
        where, share = self._row(size, k), self._in_column(size)
        row = ref[where]
        place = lax.broadcasted_iota(np.int32, row.shape, 1)
        chosen = (place >= self.k * share) & (place < (self.k + 1) * share)
        ref[where] = jnp.where(chosen, jnp.tile(_as_row(column), row.shape[1] // share), row)

    def _row(self, size: int, k: int) -> Any:
        return pl.ds(self.tile[1] * self.tiling.columns(size) + k, 1), slice(None)

    def _in_column(self, size: int) -> int:
        return self.tiling.in_column(size) * BAND // self.tiling.rows

    def blocks(self, code: Code, piece: jax.Array) -> list[jax.Array]:
        """A piece of BAND rows as columns of blocks."""
        if self.tiling.is_vector:
            return [piece.reshape(-1, code.size)]
        return jnp.split(piece, self.tiling.columns(code.size), axis=1)

    def joined(self, blocks: Sequence[jax.Array]) -> jax.Array:
        """The inverse of `blocks`."""
        return jnp.concatenate(blocks, axis=1).reshape(BAND, WIDTH)


def number_of_arrays(form: Format | None) -> int:
    """How many arrays are stored for a leaf in a format."""
    return 2 if code_of(form) or (form and form.name == "bfloat16+8") else 1


def _aliases(what: Moments, before: int) -> dict[int, int]:
    """From the number of an operand to the number of the result that takes its memory. before: how
    many operands come before the arrays."""

    def firsts(forms: Sequence[Format | None], first: int) -> list[range]:
        numbers = []
        for form in forms:
            numbers.append(range(first, first + number_of_arrays(form)))
            first = numbers[-1].stop
        return numbers

    forms = [*what.makes, *[None] * (len(what.replaces) - len(what.makes))]
    reads, makes = firsts(what.reads, before), firsts(forms, 0)
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


# -- bands of tiles --------------------------------------------------------------------------------


def _read(form: Format | None, refs: Sequence[Any], band: Band) -> jax.Array:
    """A band of a leaf, decoded."""
    code = code_of(form)
    if code is None:
        values = [ref[band.part(ref.shape[0]), :].reshape(BAND, WIDTH) for ref in refs]
        whole = SplitFloat(*values) if len(values) > 1 else values[0]
        return form.decode(whole) if form else values[0]
    codes, scales = refs[0][band.part(refs[0].shape[0]), :].reshape(BAND, -1), refs[1]
    codes = _unpack(codes) if code.bits == 4 else codes
    columns = enumerate(band.blocks(code, codes))
    return band.joined([code.decode(x, band.column(scales, code.size, k)) for k, x in columns])


def _write(
    form: Format | None, refs: Sequence[Any], x: jax.Array, dither: jax.Array | None, band: Band
) -> None:
    """Encode a band."""
    code = code_of(form)
    if code is None:
        stored = form.encode(cast(x, np.float32), dither) if form else x
        for ref, value in zip(refs, jax.tree.leaves(stored), strict=True):
            ref[band.part(ref.shape[0]), :] = value.reshape(-1, ref.shape[1])
        return
    assert dither is not None
    filled = band.filled()
    x = cast(x, np.float32) if filled is None else jnp.where(filled, cast(x, np.float32), 0)
    blocks, randoms, places = (
        band.blocks(code, y) for y in (x, dither, x if filled is None else filled)
    )
    codes = []
    for k, (block, random, place) in enumerate(zip(blocks, randoms, places, strict=True)):
        scales = scales_of(block, filled=None if filled is None else place)
        codes.append(code.encode(block, scales, random))
        band.put_column(refs[1], code.size, k, scales)
    whole = band.joined(codes)
    whole = (_pack(whole) if code.bits == 4 else whole).astype(refs[0].dtype)
    refs[0][band.part(refs[0].shape[0]), :] = whole.reshape(-1, refs[0].shape[1])


# One number per block of a band, in a column or in a row. Not every compiler for TPU can reshape
# one into the other, but all can transpose arrays with a multiple of 8 rows and of 128 columns.


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
