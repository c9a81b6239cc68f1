"""Euclidean norms, right wherever they can be represented, and arrays divided by them.

The square of a number leaves float32 long before the number does: at 2e19 and at 1e-19. So squares
are summed in float64 where the hardware has it, and elsewhere in three units at once. Numbers
smaller than the smallest normal one count as 0.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core.dtypes import cast, compute_dtype, real_dtype, scalar_dtype
from gradtx.core.numerics import sqrt, times

Axes = tuple[int, ...]


class Factor(NamedTuple):
    """A number as a product of two, either of which an array can be multiplied by."""

    first: jax.Array
    second: jax.Array

    def times(self, x: jax.Array) -> jax.Array:
        """The number times x."""
        return times(self.second, times(self.first, x))


class Norm(NamedTuple):
    """A norm, ready to divide by: neither its square nor its reciprocal need be representable."""

    value: jax.Array

    @property
    def unit(self) -> jax.Array:
        """A power of two, so that the square of value / unit is an ordinary number; mostly 1."""
        bounds = _Range.of(self.value.dtype)
        one = np.ones_like(bounds.big)
        unit = jnp.where(self.value < one / bounds.largest, one / bounds.big, one)
        return jnp.where(self.value < bounds.largest, unit, bounds.big)  # a NaN is below nothing

    def at_least(self, least: Any) -> Norm:
        """max(norm, least)"""
        return Norm(jnp.maximum(self.value, least))

    def plus(self, number: Any) -> Norm:
        """norm + number, which is not negative."""
        return Norm(self.value + number)

    def below(self, number: Any) -> Factor:
        """number / norm, and 0 where the norm is 0."""
        positive, unit = self.value != 0, self.unit  # a NaN is positive too
        quotient = jnp.where(positive, number, 0) / jnp.where(positive, self.value / unit, 1)
        return Factor(1 / unit, quotient)

    def square_below(self, number: Any, otherwise: Any, eps: Any = 0) -> jax.Array:
        """number / (norm^2 + eps), and what is said otherwise where that is 0."""
        # What eps is added to needs no unit of its own: it may vanish beside eps.
        unit = jnp.where((self.unit < 1) & (eps > 0), 1, self.unit)
        root, inverse = self.value / unit, 1 / unit
        total = root * root + eps * inverse * inverse
        positive = total != 0  # which a NaN is too
        # Not divided twice: XLA divides by a product, of which the square may be no number.
        quotient = number * inverse / jnp.where(positive, total, 1) * inverse
        return jnp.where(positive, quotient, otherwise)

    def shrinking_to(self, limit: Any) -> Factor:
        """min(1, limit / norm): of an array whose norm this is it makes one of at most limit."""
        above = ~(self.value <= limit)
        # Quotients and no choices: XLA copies a cheap scalar into the loop of each leaf.
        root, unit = (jnp.where(above, x, 1) for x in (self.value / self.unit, self.unit))
        return Factor(1 / unit, jnp.where(above, limit, 1) / root)


def norm_of(arrays: Sequence[jax.Array], axes: Sequence[Axes] | None = None) -> Norm:
    """The norm of all elements of some arrays; its derivative at 0 is 0.

    axes: over which of each array's axes it extends; what is left must have one shape.
    """
    if not arrays:
        return Norm(jnp.zeros((), np.float32))
    dtype = compute_dtype(*(x.dtype for x in arrays))
    wide = [cast(x, dtype if jnp.iscomplexobj(x) else real_dtype(dtype)) for x in arrays]
    all_axes = [tuple(range(x.ndim)) for x in wide] if axes is None else axes
    return Norm(_norm(tuple(all_axes), wide))


def norm_over(x: jax.Array, axes: int | Sequence[int]) -> Norm:
    """The norms of an array over some axes, which stay, with length 1."""
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


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _norm(axes: tuple[Axes, ...], arrays: list[jax.Array]) -> jax.Array:
    norms = [_of_one(own, x) for own, x in zip(axes, arrays, strict=True)]
    together = norms[0] if len(norms) == 1 else _of_one((0,), lax.concatenate(norms, 0))
    return lax.squeeze(together, (0,))


@_norm.defjvp
def _norm_jvp(
    axes: tuple[Axes, ...], primals: tuple[Any], tangents: tuple[Any]
) -> tuple[jax.Array, jax.Array]:
    (arrays,), (dots,) = primals, tangents
    value = _norm(axes, arrays)
    slope = jnp.zeros_like(value)
    for x, dx, own in zip(arrays, dots, axes, strict=True):
        # The direction first, whose elements are at most 1. It is 0 where the norm is.
        direction = Norm(jnp.expand_dims(value, own)).below(1).times(x)
        slope = slope + jnp.sum(jnp.real(direction.conj() * dx), axis=own)
    return value, slope


# Jitted, so that leaves of equal shape share their trace.
@functools.partial(jax.jit, static_argnums=0)
def _of_one(axes: Axes, x: jax.Array) -> jax.Array:
    """The norm of one array, behind a first axis of length 1."""
    wide, units = (functools.partial(function, axes) for function in (_in_float64, _in_units))
    # Under x64 float64 is the user's: what is float32 has nothing in float64 beside it.
    if real_dtype(x.dtype) != np.float32 or scalar_dtype() == np.float64:
        return units(x)
    return lax.platform_dependent(x, cpu=wide, cuda=wide, rocm=wide, default=units)


def _in_float64(axes: Axes, x: jax.Array) -> jax.Array:
    """Of float32, whose squares float64 holds. The conversion is part of the sum's loop."""
    with jax.enable_x64(True):
        squares = [lax.square(lax.convert_element_type(part, np.float64)) for part in _parts(x)]
        total = lax.reduce_sum(functools.reduce(lax.add, squares), axes)
        return cast(lax.sqrt(total), np.float32)[None]


def _in_units(axes: Axes, x: jax.Array) -> jax.Array:
    """The sums of |x|^2, |x / big|^2 and |big x|^2, in one pass, and the root of that which holds.

    What is beyond `largest`, so that the sum does not hold, is taken for that: an infinity would
    mislead tools that look for them. And without a bound between them XLA would take the square of
    the factor out of the square.
    """
    bounds = _Range.of(x.real.dtype)
    one = np.ones_like(bounds.big)

    def total(scale: Any) -> jax.Array:
        each = (lax.min(lax.abs(times(scale, part)), bounds.largest) for part in _parts(x))
        return lax.reduce_sum(functools.reduce(lax.add, map(lax.square, each)), axes)

    plain, large, small = (total(scale) for scale in (one, one / bounds.big, bounds.big))
    # A NaN is below nothing.
    beyond, within = ~(plain < bounds.most_total), plain >= bounds.least_total
    unit = jnp.where(beyond, bounds.big, jnp.where(within, one, one / bounds.big))
    return (sqrt(jnp.where(beyond, large, jnp.where(within, plain, small))) * unit)[None]


def _parts(x: jax.Array) -> list[jax.Array]:
    return [x.real, x.imag] if jnp.iscomplexobj(x) else [x]


class _Range(NamedTuple):
    """Where sums of squares hold, in one dtype.

    A sum of squares of numbers up to `largest` does not overflow. A total from `least_total` on has
    lost nothing that counts to underflow; below it, every number is far below `largest` in the
    small unit, 1 / big. A total from `most_total` on is to be taken in the unit big.
    """

    big: Any
    largest: Any
    least_total: Any
    most_total: Any

    @classmethod
    def of(cls, dtype: Any) -> _Range:
        """For fewer than 2^(e / 4) elements, of exponents up to e: 2^32 of them in float32."""
        part = np.finfo(dtype).maxexp // 8
        return cls(*(np.asarray(2.0**e, dtype) for e in (5 * part, 3 * part, -4 * part, 6 * part)))
