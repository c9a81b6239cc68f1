"""Rounding float32 to a narrower dtype, to nearest or stochastically, without leaving float32.

Everything here is arithmetic on float32 arrays. A cast to the narrow dtype and back knows no
stochastic rounding, and XLA may leave it out of a program where excess precision is allowed.
"""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core.kinds import Whole

# Below 2^-100 the grid stays as it is there: float32 itself would underflow.
_SMALLEST_EXPONENT = -100


def is_narrow(dtype: Any) -> bool:
    """Whether this is a floating dtype narrower than float32."""
    return bool(jnp.issubdtype(dtype, jnp.floating)) and np.dtype(dtype).itemsize < 4


def round_to(x: jax.Array, dtype: Any, dither: jax.Array | None = None) -> jax.Array:
    """The numbers of `dtype` next to float32 x, as float32: the nearest, ties to even.

    With a dither, uniform in [0, 1) and independent of x, the lower neighbour or the upper one, so
    that the mean over dithers is x. Finite numbers do not become infinite; NaN and infinities stay.
    """
    limits = _limits(dtype)
    if dither is None and dtype == jnp.bfloat16:
        # The exponents of float32: one operation, which XLA does not leave out as it may a cast.
        largest = np.float32(limits.max)
        near = lax.reduce_precision(x, int(limits.nexp), int(limits.nmant))
        return jnp.where(jnp.isfinite(x), jnp.clip(near, -largest, largest), x)
    size = jnp.abs(x)
    ulp = _spacing(size, limits)
    steps = size / ulp  # a power of two: exact
    # Fewer than 2^(nmant + 1) steps: the sum with a dither of 23 - nmant bits is exact too.
    whole = jnp.round(steps) if dither is None else jnp.floor(steps + dither)
    rounded = jnp.minimum(whole * ulp, np.float32(limits.max))
    return jnp.where(jnp.isfinite(x), jnp.copysign(rounded, x), x)


def _limits(dtype: Any) -> Any:
    return jnp.finfo(dtype)  # type: ignore[no-untyped-call]


def _spacing(size: jax.Array, limits: Any) -> jax.Array:
    """The distance between the numbers of the narrow dtype at these magnitudes."""
    bits = lax.bitcast_convert_type(size, np.uint32)
    power = lax.bitcast_convert_type(bits & np.uint32(0x7F800000), np.float32)  # 2^exponent
    smallest = 2.0 ** max(int(limits.minexp), _SMALLEST_EXPONENT)
    return jnp.maximum(power, np.float32(smallest)) * np.float32(2.0**-limits.nmant)


def dither_bits(dtype: Any) -> int:
    """How many random bits decide between two neighbours in `dtype`."""
    return 23 - int(_limits(dtype).nmant)


def uniform(key: jax.Array, shape: tuple[int, ...], bits: int) -> jax.Array:
    """Multiples of 2^-bits in [0, 1), float32.

    A hash of each element's index and the two words of the key: unlike a generator of `jax.random`
    it is fused into the loop that uses it and needs no memory, and it is the same however the array
    is sharded.
    """
    index = jnp.zeros(shape, np.uint32)
    for axis, size in enumerate(shape):
        index = index * np.uint32(size) + lax.broadcasted_iota(np.uint32, shape, axis)
    mixed = _mix(_mix(index * np.uint32(0x9E3779B9) ^ key[0]) ^ key[1])
    return (mixed >> np.uint32(32 - bits)).astype(np.float32) * np.float32(2.0**-bits)


def _mix(x: jax.Array) -> jax.Array:
    """A bijection of 32-bit integers that flips each bit of the result with probability 1/2 when a
    bit of x flips. Constants: Wellons, 2018, https://nullprogram.com/blog/2018/07/31/"""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


# A word of 32 bits: two others would give the same bits.
Seed = Annotated[int, Whole("in [0, 2**32)", lambda n: 0 <= n < 2**32)]


def key_of(seed: int, *parts: Any) -> jax.Array:
    """Two words of 32 bits that belong to these integers.

    Not a key of `jax.random`, which is some hundred operations for XLA to compile at each leaf.
    """
    words = jnp.asarray(_STARTS)
    for part in (seed, *parts):
        words = _mix(words ^ jnp.asarray(part, np.uint32))
    return words


_STARTS = np.array([0x243F6A88, 0x85A308D3], np.uint32)  # two streams: the digits of pi
