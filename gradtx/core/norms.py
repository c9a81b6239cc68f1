"""Euclidean norms, right wherever they can be represented, and arrays divided by them.

The square of a number leaves float32 long before the number does: at 2e19 and at 1e-19. A norm is
kept here as `root * unit`, where unit is a power of two, so that the square of root is an ordinary
number. Unit is 1, and changes no bit, wherever the plain sum of squares holds; numbers that are
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

from gradtx.core.dtypes import cast, compute_dtype, real_dtype
from gradtx.core.numerics import abs_sq, sqrt, times

Axes = tuple[int, ...]


class Squares(NamedTuple):
    """A sum of squares, as total * unit**2."""

    total: jax.Array
    unit: jax.Array

    def below(self, number: Any, otherwise: Any, eps: Any = 0) -> jax.Array:
        """number / (squares + eps), and what is said otherwise where that is 0."""
        # What eps is added to needs no unit of its own: it may vanish beside eps.
        small = (self.unit < 1) & (eps > 0)
        total = jnp.where(small, self.total * self.unit * self.unit, self.total)
        # Not divided twice: XLA divides by a product, of which the square may be no number.
        inverse = 1 / jnp.where(small, 1, self.unit)
        total = total + eps * inverse * inverse
        positive = total != 0  # which a NaN is too
        quotient = number * inverse / jnp.where(positive, total, 1) * inverse
        return jnp.where(positive, quotient, otherwise)


class Factor(NamedTuple):
    """A number as a product of two, either of which an array can be multiplied by."""

    first: jax.Array
    second: jax.Array

    def times(self, x: jax.Array) -> jax.Array:
        """The number times x."""
        return times(self.second, times(self.first, x))


class Norm(NamedTuple):
    """A norm, as root * unit."""

    root: jax.Array
    unit: jax.Array

    @classmethod
    def of(cls, value: jax.Array) -> Norm:
        """A norm that is known."""
        wide = cast(value, compute_dtype(value.dtype))
        unit = jnp.where(wide < _Range.of(wide.dtype).largest, 1, _Range.of(wide.dtype).big)
        return cls(wide / unit, unit)

    @property
    def value(self) -> jax.Array:
        """The norm as one number, infinite where that is beyond the dtype."""
        return self.root * self.unit

    def at_least(self, least: Any) -> Norm:
        """max(norm, least)"""
        return self._where(self.value < least, least, self.root)

    def plus(self, number: Any) -> Norm:
        """norm + number, which is not negative."""
        value = self.value
        # In the unit of what is the larger of the two, beside which the other one may vanish.
        return self._where(value < number, value + number, self.root + number / self.unit)

    def _where(self, condition: Any, number: Any, root: Any) -> Norm:
        return Norm(jnp.where(condition, number, root), jnp.where(condition, 1, self.unit))

    def below(self, number: Any) -> Factor:
        """number / norm, and 0 where the norm is 0."""
        positive = self.root != 0  # which a NaN is too
        quotient = jnp.where(positive, number, 0) / jnp.where(positive, self.root, 1)
        return Factor(1 / self.unit, quotient)

    def shrinking_to(self, limit: Any) -> Factor:
        """min(1, limit / norm): of an array whose norm this is it makes one of at most limit."""
        above = ~(self.value <= limit)
        # Quotients and no choices: XLA copies a cheap scalar into the loop of each leaf.
        root, unit = (jnp.where(above, x, 1) for x in self)
        return Factor(1 / unit, jnp.where(above, limit, 1) / root)


def norm_of(arrays: Sequence[jax.Array], axes: Sequence[Axes] | None = None) -> Norm:
    """The norm of all elements of some arrays; its derivative at 0 is 0.

    axes: over which of each array's axes it extends; what is left must have one shape.
    """
    squares = sum_of_squares(arrays, axes)
    return Norm(sqrt(squares.total), squares.unit)


def norm_over(x: jax.Array, axes: int | Sequence[int]) -> Norm:
    """The norms of an array over some axes, which stay, with length 1."""
    own = tuple(operator.index(axis) % x.ndim for axis in np.atleast_1d(axes))
    return Norm(*(jnp.expand_dims(part, own) for part in norm_of([x], [own])))


def rms_of(x: jax.Array) -> Norm:
    """sqrt(mean(|x|^2)), 0 for an array without elements; its derivative at 0 is 0."""
    squares = sum_of_squares([x])
    return Norm(sqrt(squares.total / max(x.size, 1)), squares.unit)


def norm(x: jax.Array) -> jax.Array:
    """||x||, the Euclidean norm of all elements; its derivative at 0 is 0."""
    return norm_of([x]).value


def root_mean_square(x: jax.Array) -> jax.Array:
    """sqrt(mean(|x|^2)), 0 for an array without elements; its derivative at 0 is 0."""
    return rms_of(x).value


def sum_of_squares(arrays: Sequence[jax.Array], axes: Sequence[Axes] | None = None) -> Squares:
    """The sum of |x|^2 over all elements of some arrays, over these axes of each."""
    if not arrays:
        return Squares(jnp.zeros((), np.float32), jnp.ones((), np.float32))
    dtype = compute_dtype(*(x.dtype for x in arrays))
    wide = [cast(x, dtype if jnp.iscomplexobj(x) else real_dtype(dtype)) for x in arrays]
    given = tuple(tuple(range(x.ndim)) for x in wide) if axes is None else tuple(axes)
    # A number is an array of one element, so that there always is an axis to sum over.
    wide = [x if own else lax.expand_dims(x, [x.ndim]) for x, own in zip(wide, given, strict=True)]
    spread = tuple(own or (x.ndim - 1,) for x, own in zip(wide, given, strict=True))
    return _squares(spread, wide)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0, inline=True)
def _squares(axes: tuple[Axes, ...], arrays: list[jax.Array]) -> Squares:
    # On a CPU one sum after the other: the first one mostly is the last. On an accelerator, which
    # would have to ask its host whether it is, all of them in one pass.
    return Squares(
        *lax.platform_dependent(
            *arrays,
            cpu=lambda *xs: _one_by_one(axes, xs),
            default=lambda *xs: _at_once(axes, xs),
        )
    )


@_squares.defjvp
def _squares_jvp(axes: tuple[Axes, ...], primals: Any, tangents: Any) -> tuple[Squares, Squares]:
    (arrays,), (dots,) = primals, tangents
    total, unit = _squares(axes, arrays)
    slope = jnp.zeros_like(total)
    for x, dx, own in zip(arrays, dots, axes, strict=True):
        over = jnp.expand_dims(1 / unit, own)
        slope = slope + jnp.sum(jnp.real(2 * (over * x).conj() * (over * dx)), axis=own)
    return Squares(total, unit), Squares(slope, jnp.zeros_like(unit))


class _Range(NamedTuple):
    """Where sums of squares hold, in one dtype.

    A sum of squares of numbers up to `largest` does not overflow. A total from `least_total` on has
    lost nothing that counts to underflow; below it, every number is far below `largest` in the
    small unit, 1 / big. From `most_total` on numbers below `least_big` do not count.
    """

    big: Any
    largest: Any
    least_big: Any
    least_total: Any
    most_total: Any

    @classmethod
    def of(cls, dtype: Any) -> _Range:
        """For fewer than 2^(e / 4) elements, of exponents up to e: 2^32 of them in float32."""
        part = np.finfo(dtype).maxexp // 8
        exponents = (5 * part, 3 * part, part + 1, -4 * part, 6 * part)
        return cls(*(np.asarray(2.0**e, dtype) for e in exponents))

    def unit_for(self, total: jax.Array) -> jax.Array:
        """The unit in which to sum what has this sum in units of 1."""
        one = np.ones((), total.dtype)
        unit = jnp.where(total < self.least_total, one / self.big, one)
        return jnp.where(total < self.most_total, unit, self.big)  # a NaN is below nothing


def _one_by_one(axes: tuple[Axes, ...], arrays: Sequence[jax.Array]) -> tuple[Any, Any]:
    """The sum in units of 1 and, where that does not hold, again in another unit.

    Both are the body of one loop, so that XLA compiles it once.
    """
    bounds = _Range.of(arrays[0].real.dtype)

    def step(state: Any) -> Any:
        _, unit, _ = state
        # A scalar for each array: of one that they share XLA:CPU makes an array in memory.
        scales = lax.optimization_barrier([1 / unit] * len(arrays))  # type: ignore[no-untyped-call]
        total = _total(axes, arrays, scales)
        better = jnp.where(unit == 1, bounds.unit_for(total), unit)
        return total, better, jnp.any(better != unit)

    # No elements of one array of each kind: the start lies, and varies over a mesh, as the sums do.
    kinds = {(jax.typeof(x), own): x for x, own in zip(arrays, axes, strict=True)}
    some = [own for _, own in kinds]
    empty = [lax.slice_in_dim(x, 0, 0, axis=own[0]) for (_, own), x in kinds.items()]
    none = _total(some, empty, [np.ones_like(bounds.big)] * len(empty))
    start = (none, none + 1, jnp.any(none == 0))
    return lax.while_loop(lambda state: state[2], step, start)[:2]


def _total(axes: Sequence[Axes], arrays: Sequence[jax.Array], scales: Sequence[Any]) -> jax.Array:
    return functools.reduce(lax.add, map(_scaled_sum, axes, arrays, scales))


def _at_once(axes: tuple[Axes, ...], arrays: Sequence[jax.Array]) -> tuple[Any, Any]:
    """The sums in every unit, and the one that holds."""
    plain, aside = functools.reduce(jax.jit(_add), map(_sums, axes, arrays))
    unit = _Range.of(plain.dtype).unit_for(plain)
    return jnp.where(unit == 1, plain, jnp.where(unit > 1, aside, -aside)), unit


# Jitted, so that leaves of equal shape share their trace.


@functools.partial(jax.jit, static_argnums=0)
def _scaled_sum(axes: Axes, x: jax.Array, scale: Any) -> jax.Array:
    """The sum of |scale x|^2"""
    if np.ndim(scale):
        scale = lax.expand_dims(scale, axes)
    return lax.reduce_sum(abs_sq(scale * x), axes)


@functools.partial(jax.jit, static_argnums=0)
def _sums(axes: Axes, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The sum of |x|^2; and aside that of |x / big|^2 or, negative, of |big x|^2.

    As one complex number: sums that are reduced side by side XLA:GPU computes from arrays in memory
    which, for a single one, are never stored.
    """
    parts = [x.real, x.imag] if jnp.iscomplexobj(x) else [x]
    plain, aside = functools.reduce(_add, map(_terms, parts))

    def add(x: jax.Array, y: jax.Array) -> jax.Array:
        return lax.complex(*_add((x.real, x.imag), (y.real, y.imag)))

    zero = np.zeros((), np.result_type(plain.dtype, np.complex64))
    total = lax.reduce(lax.complex(plain, aside), zero, add, axes)
    return total.real, total.imag


def _terms(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What one element adds to both sums."""
    bounds = _Range.of(x.dtype)
    size = lax.abs(x)
    # Bounded, where the sum does not hold: an infinity would mislead tools that look for them. And
    # without a bound between them XLA would take the square of the factor out of the square.
    plain = lax.square(lax.min(size, bounds.largest))
    small = lax.square(lax.min(times(bounds.big, size), bounds.largest))
    large = lax.square(lax.max(times(1 / bounds.big, size), bounds.least_big / bounds.big))
    return plain, lax.select(size >= bounds.least_big, large, -small)


def _add(x: tuple[Any, Any], y: tuple[Any, Any]) -> tuple[Any, Any]:
    """The sums of both; aside, beside large numbers (positive) small ones do not count."""
    (plain_x, aside_x), (plain_y, aside_y) = x, y
    zero = lax.full_like(aside_x, 0)
    large = lax.max(aside_x, zero) + lax.max(aside_y, zero)
    aside = lax.select(lax.max(aside_x, aside_y) > zero, large, aside_x + aside_y)
    return plain_x + plain_y, aside
