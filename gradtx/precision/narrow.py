"""Rounding float32 to a narrower dtype, to nearest or stochastically, without leaving float32.

Everything here is arithmetic on float32 arrays. A cast to the narrow dtype and back cannot round
stochastically, and XLA may remove it from a program where excess precision is allowed.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike, DTypeLike

# Below 2^-100 the grid gets no finer, since float32 itself would underflow.
_SMALLEST_EXPONENT = -100


def is_narrow(dtype: DTypeLike) -> bool:
    """Whether a dtype is floating and narrower than float32."""
    return bool(jnp.issubdtype(dtype, jnp.floating)) and np.dtype(dtype).itemsize < 4


def round_to(x: jax.Array, dtype: DTypeLike, dither: jax.Array | None = None) -> jax.Array:
    """float32 x rounded to numbers of `dtype`, as float32: to the nearest, ties to even.

    With a dither, uniform in [0, 1), independent of x and shaped like it, to the lower or the upper
    neighbour, so that the mean over dithers is x. Finite numbers do not become infinite; NaNs and
    infinities stay.
    """
    limits = _limits(dtype)
    if dither is None and dtype == jnp.bfloat16:
        # bfloat16 has float32's exponents: one operation is enough. XLA keeps it, unlike a cast.
        largest = np.float32(limits.max)
        near = lax.reduce_precision(x, int(limits.nexp), int(limits.nmant))
        return jnp.where(jnp.isfinite(x), jnp.clip(near, -largest, largest), x)
    size = jnp.abs(x)
    ulp = _spacing(size, limits)
    steps = size / ulp  # a power of two: exact
    # There are fewer than 2^(nmant + 1) steps, so adding a dither of 23 - nmant bits is exact too.
    whole = jnp.round(steps) if dither is None else jnp.floor(steps + dither)
    rounded = jnp.minimum(whole * ulp, np.float32(limits.max))
    return jnp.where(jnp.isfinite(x), jnp.copysign(rounded, x), x)


def _limits(dtype: DTypeLike) -> jnp.finfo:
    return jnp.finfo(dtype)  # type: ignore[no-untyped-call]


def _spacing(size: jax.Array, limits: jnp.finfo) -> jax.Array:
    """The distance between neighbouring numbers of the narrow dtype at these magnitudes."""
    bits = lax.bitcast_convert_type(size, np.uint32)
    power = lax.bitcast_convert_type(bits & np.uint32(0x7F800000), np.float32)  # 2^exponent
    smallest = 2.0 ** max(int(limits.minexp), _SMALLEST_EXPONENT)
    return jnp.maximum(power, np.float32(smallest)) * np.float32(2.0**-limits.nmant)


def dither_bits(dtype: DTypeLike) -> int:
    """How many random bits choose between two neighbours in `dtype`."""
    return 23 - int(_limits(dtype).nmant)


def uniform(key: jax.Array, shape: tuple[int, ...], bits: int) -> jax.Array:
    """Multiples of 2^-bits in [0, 1), float32, for an array of this shape.

    key: (2,) uint32. Each number is a hash of the element's index and the key. Unlike a generator
    of `jax.random` this is fused into the loop that uses it, needs no memory, and is the same
    however the array is sharded.
    """
    index = jnp.zeros(shape, np.uint32)
    for axis, size in enumerate(shape):
        index = index * np.uint32(size) + lax.broadcasted_iota(np.uint32, shape, axis)
    return noise((key[0], key[1]), index, bits)


def noise(key: tuple[jax.Array, jax.Array], index: jax.Array, bits: int) -> jax.Array:
    """The same for some elements, by their index in memory order, uint32."""
    mixed = _mix(index * np.uint32(0x9E3779B9) ^ key[0], key[1])
    return (mixed >> np.uint32(32 - bits)).astype(np.int32).astype(np.float32) * np.float32(
        2.0**-bits
    )


def _mix(x: jax.Array, key: ArrayLike = 0) -> jax.Array:
    """For each key a bijection of 32-bit integers: when a bit of x flips, each bit of the result
    flips with probability 1/2. Constants: Wellons, 2018, https://nullprogram.com/blog/2018/07/31/"""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D) ^ jnp.uint32(key)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def key_of(seed: int, *parts: ArrayLike) -> jax.Array:
    """A hash of these integers: (2,) uint32, as a key for `uniform`.

    Not a key of `jax.random`, which would cost some hundred operations to compile for each leaf.
    """
    words = jnp.asarray(_STARTS)
    for part in (seed, *parts):
        words = _mix(words ^ jnp.asarray(part, np.uint32))
    return words


_STARTS = np.array([0x243F6A88, 0x85A308D3], np.uint32)  # two streams: the digits of pi
