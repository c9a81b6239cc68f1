"""Euclidean norms, correct wherever the norm itself is representable, and division by them.

The square of a number leaves float32's range long before the number does: at 2e19 and at 1e-19. So
squares are summed in float64 where the hardware has it, and elsewhere in three units at once: 1, a
large power of two and its inverse. Subnormal numbers count as 0.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from gradtx.core.dtypes import (
    Scalar,
    cast,
    compute_dtype,
    enable_x64,
    real_dtype,
    scalar_dtype,
)
from gradtx.core.launches import Axes, reduce_each
from gradtx.core.numerics import sqrt, times


class Factor(NamedTuple):
    """A number kept as a product of two, each of which is representable."""

    first: jax.Array
    second: jax.Array

    def times(self, x: jax.Array) -> jax.Array:
        """The number times x."""
        return times(self.second, times(self.first, x))


class Norm(NamedTuple):
    """A norm, to divide by: neither its square nor its reciprocal need be representable.

    value: a real scalar, or an array of norms.
    """

    value: jax.Array

    @property
    def unit(self) -> jax.Array:
        """A power of two such that (value / unit)^2 neither overflows nor underflows; mostly 1."""
        bounds = _Range.of(self.value.dtype)
        one = np.ones_like(bounds.big)
        unit = jnp.where(self.value < one / bounds.largest, one / bounds.big, one)
        return jnp.where(self.value < bounds.largest, unit, bounds.big)  # NaN compares as False

    def at_least(self, least: Scalar) -> Norm:
        """max(norm, least)"""
        return Norm(jnp.maximum(self.value, least))

    def plus(self, number: Scalar) -> Norm:
        """norm + number, for a non-negative number."""
        return Norm(self.value + number)

    def below(self, number: Scalar) -> Factor:
        """number / norm, and 0 where the norm is 0."""
        positive, unit = self.value != 0, self.unit  # true of a NaN too
        quotient = jnp.where(positive, number, 0) / jnp.where(positive, self.value / unit, 1)
        return Factor(1 / unit, quotient)

    def square_below(self, number: Scalar, otherwise: Scalar, eps: Scalar = 0) -> jax.Array:
        """number / (norm^2 + eps), and `otherwise` where the denominator is 0."""
        # With eps, a small norm needs no unit of its own: its square may vanish beside eps.
        unit = jnp.where((self.unit < 1) & (eps > 0), 1, self.unit)
        root, inverse = self.value / unit, 1 / unit
        total = root * root + eps * inverse * inverse
        positive = total != 0  # true of a NaN too
        # Not two divisions: XLA would merge them into one by a product, which may overflow.
        quotient = number * inverse / jnp.where(positive, total, 1) * inverse
        return jnp.where(positive, quotient, otherwise)

    def shrinking_to(self, limit: Scalar) -> Factor:
        """min(1, limit / norm): scales an array with this norm to a norm of at most limit."""
        above = ~(self.value <= limit)  # true of a NaN too
        # Quotients, not a select: XLA would recompute so cheap a scalar in the loop of each leaf.
        root, unit = (jnp.where(above, x, 1) for x in (self.value / self.unit, self.unit))
        return Factor(1 / unit, jnp.where(above, limit, 1) / root)


def norm_of(arrays: Sequence[jax.Array], axes: Sequence[Axes] | None = None) -> Norm:
    """The norm of all elements of some arrays together; its derivative at 0 is 0.

    axes: for each array, the axes to reduce (default: all). The shapes that remain must be equal;
    they are the norm's shape.
    """
    if not arrays:
        return Norm(jnp.zeros((), np.float32))
    dtype = compute_dtype(*(x.dtype for x in arrays))
    wide = [cast(x, dtype if jnp.iscomplexobj(x) else real_dtype(dtype)) for x in arrays]
    all_axes = [tuple(range(x.ndim)) for x in wide] if axes is None else axes
    return Norm(_norm(tuple(all_axes), wide))


def norm_over(x: jax.Array, axes: int | Sequence[int]) -> Norm:
    """The norms of an array over some axes, which are kept with length 1."""
    own = tuple(operator.index(axis) % x.ndim for axis in np.atleast_1d(axes))
    return Norm(jnp.expand_dims(norm_of([x], [own]).value, own))


def rms_of(x: jax.Array) -> Norm:
    """sqrt(mean(|x|^2)), 0 for an array without elements; its derivative at 0 is 0."""
    return Norm(norm(x) / max(x.size, 1) ** 0.5)


def norm(x: jax.Array) -> jax.Array:
    """||x||, the Euclidean norm of all elements; its derivative at 0 is 0."""
    return norm_of([x]).value


def root_mean_square(x: jax.Array) -> jax.Array:
    """sqrt(mean(|x|^2)), 0 for an array without elements; its derivative at 0 is 0."""
    return rms_of(x).value


# Maps an array, in float32 or wider, to one number per element; these are summed.
Count = Callable[[jax.Array], jax.Array]


def norms_and_counts(
    arrays: Sequence[jax.Array], counts: Sequence[Count], axes: Sequence[Axes] | None = None
) -> jax.Array:
    """For each array, its norm and the sums of what `counts` make of its elements, in one pass.

    These are rows (norm, *sums) along a new last axis, in any order along a new first axis.

    axes: for each array, the axes to reduce (default: all). The shapes that remain must be equal.
    """
    dtype = compute_dtype(*(x.dtype for x in arrays))

    def rows(row: Any, *arrays: jax.Array) -> jax.Array:
        wide = [cast(x, dtype if jnp.iscomplexobj(x) else real_dtype(dtype)) for x in arrays]
        return _together(reduce_each(functools.partial(row, tuple(counts)), wide, axes))

    def stored(row: Any, *arrays: jax.Array) -> jax.Array:
        # Where a reduction runs by itself, XLA would compute its inputs a second time for it.
        return rows(row, *lax.optimization_barrier(arrays))  # type: ignore[no-untyped-call]

    in_float64, in_units = _row_in_float64, _row_in_units
    if real_dtype(dtype) != np.float32 or scalar_dtype() == np.float64:
        in_float64 = in_units
    fused = functools.partial(rows, in_float64)
    return lax.platform_dependent(
        *arrays,
        cpu=functools.partial(stored, in_float64),
        cuda=fused,
        rocm=fused,
        default=functools.partial(stored, in_units),
    )


def _row_in_float64(counts: tuple[Count, ...], axes: Axes, x: jax.Array) -> jax.Array:
    with enable_x64(True):
        squares = [lax.square(lax.convert_element_type(part, np.float64)) for part in _parts(x)]
        terms = [functools.reduce(lax.add, squares)]
        terms += [lax.convert_element_type(count(x), np.float64) for count in counts]
        total, *sums = _sums(terms, axes)
        return jnp.stack([cast(y, np.float32) for y in (lax.sqrt(total), *sums)], axis=-1)


def _row_in_units(counts: tuple[Count, ...], axes: Axes, x: jax.Array) -> jax.Array:
    dtype = x.real.dtype
    terms = _squares_in_units(x) + [cast(count(x), dtype) for count in counts]
    totals = _sums(terms, axes)
    return jnp.stack([_root_in_units(*totals[:3]), *totals[3:]], axis=-1)


def _sums(terms: Sequence[jax.Array], axes: Axes) -> Sequence[jax.Array]:
    """The sums of arrays of one shape and dtype, in one pass: XLA for CPU would make a pass for
    each of several reductions."""
    zeros = [np.zeros((), x.dtype) for x in terms]

    def add(xs: Sequence[jax.Array], ys: Sequence[jax.Array]) -> list[jax.Array]:
        return [x + y for x, y in zip(xs, ys, strict=True)]

    made: Sequence[jax.Array] = lax.reduce(list(terms), zeros, add, axes)
    return made


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _norm(axes: tuple[Axes, ...], arrays: list[jax.Array]) -> jax.Array:
    wide, units = (functools.partial(taken, axes) for taken in (_in_float64, _in_units))
    # Under x64, float64 is for the user's own arrays: the maths of float32 arrays adds none.
    if real_dtype(arrays[0].dtype) != np.float32 or scalar_dtype() == np.float64:
        return units(*arrays)
    return lax.platform_dependent(*arrays, cpu=wide, cuda=wide, rocm=wide, default=units)


@_norm.defjvp
def _norm_jvp(
    axes: tuple[Axes, ...], primals: tuple[Any], tangents: tuple[Any]
) -> tuple[jax.Array, jax.Array]:
    (arrays,), (dots,) = primals, tangents
    value = _norm(axes, arrays)
    slope = jnp.zeros_like(value)
    for x, dx, own in zip(arrays, dots, axes, strict=True):
        # Divide first: the elements of x / norm are at most 1, and 0 where the norm is 0.
        direction = Norm(jnp.expand_dims(value, own)).below(1).times(x)
        slope = slope + jnp.sum(jnp.real(direction.conj() * dx), axis=own)
    return value, slope


def _in_float64(axes: Sequence[Axes], *arrays: jax.Array) -> jax.Array:
    """The norm of float32 arrays, from the norm of each; float64 can hold their squares."""
    with enable_x64(True):
        norms = _together(reduce_each(_root_in_float64, arrays, axes))
        return lax.squeeze(norms, (0,)) if len(norms) == 1 else _root_in_float64((0,), norms)


def _root_in_float64(axes: Axes, x: jax.Array) -> jax.Array:
    """The norm over some axes. XLA fuses the conversion into the sum."""
    squares = [lax.square(lax.convert_element_type(part, np.float64)) for part in _parts(x)]
    return cast(lax.sqrt(lax.reduce_sum(functools.reduce(lax.add, squares), axes)), np.float32)


def _in_units(axes: Sequence[Axes], *arrays: jax.Array) -> jax.Array:
    """The norm from the sums of |x|^2, |x / big|^2 and |big x|^2, taken in one pass: the root of
    the one that is in range."""
    each = _together(reduce_each(_totals_in_units, arrays, axes))
    totals = lax.squeeze(each, (0,)) if len(each) == 1 else lax.reduce_sum(each, (0,))
    return _root_in_units(*(totals[..., i] for i in range(3)))


def _root_in_units(plain: jax.Array, large: jax.Array, small: jax.Array) -> jax.Array:
    """The root of whichever of the sums is in range."""
    bounds = _Range.of(plain.dtype)
    one = np.ones_like(bounds.big)
    # A NaN, which compares as False, counts as beyond.
    beyond, within = ~(plain < bounds.most_total), plain >= bounds.least_total
    unit = jnp.where(beyond, bounds.big, jnp.where(within, one, one / bounds.big))
    return sqrt(jnp.where(beyond, large, jnp.where(within, plain, small))) * unit


def _together(each: Sequence[jax.Array]) -> jax.Array:
    return each[0] if len(each) == 1 else lax.concatenate(each, 0)


def _totals_in_units(axes: Axes, x: jax.Array) -> jax.Array:
    """The sums of squares in the units 1, big and 1 / big, along a new last axis."""
    return jnp.stack([lax.reduce_sum(squares, axes) for squares in _squares_in_units(x)], axis=-1)


def _squares_in_units(x: jax.Array) -> list[jax.Array]:
    """The squares in the units 1, big and 1 / big.

    Elements above `largest`, which put a sum out of range anyway, are clipped to it: an infinity
    would mislead tools that look for one. The clipping also keeps XLA from moving the scale out of
    the square.
    """
    bounds = _Range.of(x.real.dtype)
    one = np.ones_like(bounds.big)

    def squares(scale: np.ndarray) -> jax.Array:
        each = (lax.min(lax.abs(times(scale, part)), bounds.largest) for part in _parts(x))
        return functools.reduce(lax.add, map(lax.square, each))

    return [squares(scale) for scale in (one, one / bounds.big, bounds.big)]


def _parts(x: jax.Array) -> list[jax.Array]:
    return [x.real, x.imag] if jnp.iscomplexobj(x) else [x]


class _Range(NamedTuple):
    """The bounds within which a sum of squares is exact enough in one dtype, as scalars of it.

    A sum of squares of numbers up to `largest` does not overflow. A sum of at least `least_total`
    has lost nothing that matters to underflow; if it is less, every number divided by the small
    unit, 1 / big, is far below `largest`. From `most_total` on, the sum must be taken in the unit
    big.
    """

    big: np.ndarray
    largest: np.ndarray
    least_total: np.ndarray
    most_total: np.ndarray

    @classmethod
    def of(cls, dtype: DTypeLike) -> _Range:
        """For fewer than 2^(e / 4) elements if e is the largest exponent: 2^32 in float32."""
        part = np.finfo(dtype).maxexp // 8
        return cls(*(np.asarray(2.0**e, dtype) for e in (5 * part, 3 * part, -4 * part, 6 * part)))
