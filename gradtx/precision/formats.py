"""Formats that store an array of state in a few bits per element, decoded to float32.

Dettmers et al., 2022, https://arxiv.org/abs/2110.02861 (blocks, dynamic codes); Li et al., 2023,
https://arxiv.org/abs/2309.01507 (four bits, a second moment without zero).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from gradtx.core.elementwise import Shape
from gradtx.precision.blocks import Cut, Runs, Tiles, cut_for, cut_of
from gradtx.precision.narrow import round_to

__all__ = ["Blocks", "PackedBlocks", "SplitFloat"]


class SplitFloat(NamedTuple):
    """The upper three bytes of a float32: a bfloat16 (truncated, not rounded) and the next byte,
    a uint8. Both have the shape of the array."""

    high: jax.Array
    low: jax.Array


class Blocks(NamedTuple):
    """Codes shaped like the array, and a float32 scale per block. The scales have one entry along
    each axis for every block along it, of the array or of the array as one row.

    The scale of a block without negative numbers is stored with a minus sign: the codes of such a
    block have no sign bit and no zero.
    """

    codes: jax.Array
    scales: jax.Array


class PackedBlocks(NamedTuple):
    """codes: two four-bit codes per byte, neighbours on the last axis; last: where that axis has an
    odd length, its last code in a byte of its own, otherwise None; scales: as in `Blocks`."""

    codes: jax.Array
    last: jax.Array | None
    scales: jax.Array


Stored = jax.Array | SplitFloat | Blocks | PackedBlocks


def shapes_of(tree: Any) -> Any:
    """The tree with shapes and dtypes in place of its arrays, without shardings."""
    shape: Any = jax.ShapeDtypeStruct
    return jax.tree.map(lambda x: shape(x.shape, x.dtype), tree)


def is_stored(x: object) -> bool:
    """Whether x is an array in one of the formats that are not arrays themselves."""
    return isinstance(x, SplitFloat | Blocks | PackedBlocks)


@dataclass(frozen=True)
class Format:
    """encode(x, dither) and decode(stored), for float32 x.

    dither: uniform in [0, 1), shaped like x, in multiples of 2^-bits; a format with bits=0 rounds
    to nearest and takes None. code: that of its blocks, if it has blocks.
    """

    name: str
    encode: Callable[[jax.Array, jax.Array | None], Stored]
    decode: Callable[[Any], jax.Array]
    bits: int = 0
    code: Code | None = None

    def divided(self, shape: Shape, shard: Shape, size: int | None = None) -> Format:
        """This format for an array of which each device holds a shard: with blocks that lie inside
        the shards, if it has any. size: that of a block; None means the format's own."""
        if self.code is None:
            return self
        return self._cut(cut_for(shape, shard, size or self.code.size))

    def like(self, stored: Any) -> Format:
        """This format, with blocks cut as in this stored array."""
        if self.code is None:
            return self
        codes, scales = jax.eval_shape(self.code.take, shapes_of(stored))
        return self._cut(cut_of(codes.shape, scales.shape))

    def _cut(self, cut: Cut) -> Format:
        return self._in(cut.size, None) if isinstance(cut, Runs) else self._in(0, cut.tile)

    @cache  # noqa: B019  (there are only a few formats)
    def _in(self, size: int, tile: Shape | None) -> Format:
        code = self.code
        if code is None or size == code.size:
            return self
        return replace(code, size=size or code.size, tile=tile).format(self.name, self.bits)


@dataclass(frozen=True)
class Code:
    """A code for the numbers of a block, relative to the block's scale.

    encode(blocks, scales, dither) and decode(codes, scales), for scales that broadcast with the
    blocks. Codes are integers or floats that fit into `dtype`, and each is stored in `bits` bits.
    join(codes, scales) stores codes shaped like the array, and scales; take is its inverse.
    size: how many numbers make a block, unless blocks are tiles, of the shape `tile`.
    """

    size: int
    dtype: DTypeLike
    encode: Callable[[jax.Array, jax.Array, jax.Array | None], jax.Array]
    decode: Callable[[jax.Array, jax.Array], jax.Array]
    join: Callable[[jax.Array, jax.Array], Stored]
    take: Callable[[Any], tuple[jax.Array, jax.Array]]
    tile: Shape | None = None

    def cut(self, shape: Shape) -> Cut:
        """How an array of this shape is cut into blocks."""
        return Tiles(shape, self.tile) if self.tile else Runs(shape, self.size)

    @property
    def bits(self) -> int:
        """How many bits a code takes."""
        return 4 if self.dtype == jnp.uint4 else 8

    def format(self, name: str, bits: int) -> Format:
        """The format that stores an array in this code."""

        def encode(x: jax.Array, dither: jax.Array | None) -> Stored:
            cut = self.cut(x.shape)
            inside = x.reshape(cut.inside)
            scales = cut.scales_of(inside)
            dither = None if dither is None else dither.reshape(cut.inside)
            codes = self.encode(inside, cut.spread(scales), dither).astype(self.dtype)
            return self.join(codes.reshape(x.shape), cut.stored(scales))

        def decode(stored: Stored) -> jax.Array:
            codes, scales = self.take(stored)
            cut = self.cut(codes.shape)
            x = self.decode(codes.reshape(cut.inside), cut.spread(cut.broadcast(scales)))
            return x.reshape(codes.shape)

        return Format(name, encode, decode, bits, self)


# -- bfloat16 with one more byte -----------------------------------------------------------------


def _encode_split(x: jax.Array, dither: jax.Array | None) -> SplitFloat:
    bits = lax.bitcast_convert_type(x, np.uint32)
    finite = jnp.isfinite(x)
    bits = jnp.where(finite, bits + np.uint32(0x80), bits)  # half a unit in the last kept place
    # The upper half as a float: XLA for TPU fuses a conversion, but not a bitcast of 16 bits.
    high = lax.bitcast_convert_type(bits & np.uint32(0xFFFF0000), np.float32)
    return SplitFloat(high.astype(jnp.bfloat16), (bits >> np.uint32(8)).astype(np.uint8))


def _decode_split(stored: SplitFloat) -> jax.Array:
    high = lax.bitcast_convert_type(stored.high.astype(np.float32), np.uint32)
    bits = high | (stored.low.astype(np.uint32) << np.uint32(8))
    return lax.bitcast_convert_type(bits, np.float32)


# -- blocks --------------------------------------------------------------------------------------


def _reciprocal(scales: jax.Array) -> jax.Array:
    """(..., 1), one over the largest magnitude of each block; 1 for a block of zeros."""
    size = jnp.abs(scales)
    return 1 / jnp.where(size == 0, 1, size)


# -- the dynamic code ----------------------------------------------------------------------------
#
# A code counts steps on a piecewise linear scale of magnitudes. With n bits the scale has n ranges,
# each eight times as wide as the one below and with twice as many steps:
#     V(2^d (1 + s)) = 8^(d - n) (1 + 7 s),     0 <= s <= 1,  d = 0 .. n - 1,     V(2^n) = 1.
# V is continuous, so that choosing at random between neighbouring codes is right on average. A sign
# leaves one bit less for the magnitude: V at every other position, and 0 in place of the first.
# (With eight rather than ten, powers are shifts of a float's exponent.)


# A float32 counts in the same way: 2^d (1 + s) has d in its exponent and s in its mantissa. V
# triples the exponent in place and stretches the mantissa. With more arithmetic than this, a step
# on a GPU would spend longer computing than moving memory, and XLA, which weighs the two, would
# store moments in float32.

_INTEGERS = np.float32(2**23)  # from here on the mantissa of a float is an integer


def _bits(x: jax.Array) -> jax.Array:
    return lax.bitcast_convert_type(x, np.int32)


def _float(bits: jax.Array) -> jax.Array:
    return lax.bitcast_convert_type(bits, np.float32)


def _times(exponent: int) -> np.int32:
    """What to add to a float's bits to multiply it by 2^exponent."""
    return np.int32(exponent * 2**23)


def _position(fraction: jax.Array, bits: int) -> jax.Array:
    """V^-1: the real-valued position of a magnitude on the scale, from 1 to 2^bits."""
    x = _bits(jnp.maximum(fraction, np.float32(8.0**-bits)))
    d = (((x >> 23) - (127 - 3 * bits)) * 43691) >> 17  # a division by 3
    inside = _float(x + _times(3 * bits) - d * _times(3))  # 1 + 7 s
    return _float(_bits((inside - 1) * np.float32(1 / 7) + 1) + d * _times(1))


def _value(position: jax.Array, bits: int) -> jax.Array:
    """V."""
    x = _bits(position)
    d = (x & _times(255)) - _times(127)  # still in the bits of the exponent
    return _float(3 * d + _times(127 - 3 * bits)) * (7 * _float(x - d) - 6)


def _encode_dynamic(
    bits: int, blocks: jax.Array, scales: jax.Array, dither: jax.Array | None
) -> jax.Array:
    """Codes, integers from 0 to 2^bits - 1. A signed code has its sign in the highest bit."""
    top = 2 ** (bits - 1)

    def of(unsigned: float, signed: float) -> jax.Array:  # a number for each block
        return jnp.where(scales < 0, np.float32(unsigned), np.float32(signed))

    fraction = jnp.abs(blocks) * _reciprocal(scales)
    position = _position(fraction, bits)
    linear = 1 + fraction * np.float32(8.0 ** (bits - 2))  # towards 0, at position 1
    position = jnp.where(position > of(0, 4), position * of(1, 0.5), linear)
    step = 0.5 if dither is None else dither
    whole = jnp.minimum(jnp.floor(position + step), of(2 * top, top))
    codes = _bits(whole + (_INTEGERS - 1)) & (2 * top - 1)
    return codes + jnp.where(blocks < of(-np.inf, 0), np.int32(top), np.int32(0))


def _decode_dynamic(bits: int, codes: jax.Array, scales: jax.Array) -> jax.Array:
    codes = codes.astype(np.int32)
    signed = (scales >= 0).astype(np.int32)
    sign = codes & (signed << (bits - 1))
    magnitude = codes ^ sign
    value = _value(((magnitude + 1) << signed).astype(np.float32), bits)
    value = jnp.where(magnitude >= signed, value, 0) * jnp.abs(scales)
    return _float(_bits(value) ^ (sign << (32 - bits)))


def _pack(codes: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """Two codes of four bits per byte, those of even index in the lower half."""
    length = codes.shape[-1]
    last = codes[..., -1:].astype(np.uint8) if length % 2 else None
    pairs = codes[..., : length - length % 2].reshape(*codes.shape[:-1], -1, 2)
    return lax.bitcast_convert_type(pairs, np.uint8), last


def _unpack(packed: jax.Array, last: jax.Array | None) -> jax.Array:
    codes = lax.bitcast_convert_type(packed, jnp.uint4).reshape(*packed.shape[:-1], -1)
    return codes if last is None else jnp.concatenate([codes, last.astype(jnp.uint4)], axis=-1)


# -- the formats ---------------------------------------------------------------------------------


_FLOAT8 = jnp.float8_e4m3fn
_LARGEST = np.float32(448.0)
_SMALLEST = np.float32(2.0**-9)


def _encode_float8(blocks: jax.Array, scales: jax.Array, dither: jax.Array | None) -> jax.Array:
    scaled = round_to(blocks * (_reciprocal(scales) * _LARGEST), _FLOAT8, dither)
    return jnp.where(scales < 0, jnp.maximum(scaled, _SMALLEST), scaled)


def _decode_float8(codes: jax.Array, scales: jax.Array) -> jax.Array:
    return codes.astype(np.float32) * (jnp.abs(scales) / _LARGEST)


def _join_packed(codes: jax.Array, scales: jax.Array) -> PackedBlocks:
    return PackedBlocks(*_pack(codes), scales)


def _take_packed(stored: PackedBlocks) -> tuple[jax.Array, jax.Array]:
    return _unpack(stored.codes, stored.last), stored.scales


_CODES = {
    "float8": Code(256, _FLOAT8, _encode_float8, _decode_float8, Blocks, tuple),
    "int8": Code(
        256, np.uint8, partial(_encode_dynamic, 8), partial(_decode_dynamic, 8), Blocks, tuple
    ),
    "int4": Code(
        128,
        jnp.uint4,
        partial(_encode_dynamic, 4),
        partial(_decode_dynamic, 4),
        _join_packed,
        _take_packed,
    ),
}


def _widen(stored: jax.Array) -> jax.Array:
    return stored.astype(np.float32)


# The names, for type checkers.
FormatName = Literal["bfloat16", "bfloat16+8", "float8", "int8", "int4"]

FORMATS: dict[str, Format] = {
    "bfloat16": Format(
        "bfloat16",
        lambda x, dither: round_to(x, jnp.bfloat16, dither).astype(jnp.bfloat16),
        _widen,
        bits=16,
    ),
    "bfloat16+8": Format("bfloat16+8", _encode_split, _decode_split),
    "float8": _CODES["float8"].format("float8", bits=20),
    "int8": _CODES["int8"].format("int8", bits=16),
    "int4": _CODES["int4"].format("int4", bits=16),
}


def format_of(x: object) -> Format | None:
    """The format in which a leaf of a state is stored, None for a plain array."""
    match x:
        case SplitFloat():
            name = "bfloat16+8"
        case Blocks():
            name = "float8" if x.codes.dtype == _FLOAT8 else "int8"
        case PackedBlocks():
            name = "int4"
        case _:
            if getattr(x, "dtype", None) != jnp.bfloat16:
                return None
            name = "bfloat16"
    return FORMATS[name].like(x)


def name_of(x: object) -> str | None:
    """The name of that format, None for a plain array."""
    form = format_of(x)
    return form.name if form else None


def code_of(form: Format | None) -> Code | None:
    """The code of a format that has blocks; None for other formats and for no format."""
    return form.code if form else None
