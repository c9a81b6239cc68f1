"""Kronecker factors: for each axis of an array a matrix, and what is made of these matrices.

The Gram matrix of an axis is that of the array unfolded along it. Decompositions are made in one
call for all matrices of one size in the tree, products always in full precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

from gradtx.core.batches import in_batches

# One for each axis; None for an axis that has no matrix.
Matrices = tuple[Array | None, ...]

# The default of accelerators, bfloat16 or TF32, is too coarse for what is decomposed.
PRECISION = lax.Precision.HIGHEST


class Axes(NamedTuple):
    """How an array is seen: its shape, perhaps with axes merged, and which axes have a matrix."""

    shape: tuple[int, ...]
    own: tuple[bool, ...]

    @classmethod
    def of(cls, shape: tuple[int, ...], longest: int, *, merge: bool, vectors: bool) -> Axes:
        """Axes of at most `longest` elements have a matrix, in arrays of one axis only for
        `vectors`. merge: join neighbouring axes, from the first on, while they stay that short."""
        shape = merged(shape, longest) if merge else shape
        enough = len(shape) > 1 or vectors
        # A matrix of one element would only change a sign, and change it back.
        return cls(shape, tuple(enough and 1 < n <= longest for n in shape))

    def zeros(self, dtype: DTypeLike) -> Matrices:
        """A matrix of zeros for each axis that has one."""
        pairs = zip(self.shape, self.own, strict=True)
        return tuple(jnp.zeros((n, n), dtype) if own else None for n, own in pairs)

    def rank(self, axis: int) -> int:
        """The largest rank that the Gram matrix of one array can have."""
        n = self.shape[axis]
        return min(n, math.prod(self.shape) // n)


def merged(shape: Sequence[int], longest: int) -> tuple[int, ...]:
    """The shape with neighbouring axes joined, from the first on, while the product of their
    lengths is at most `longest`."""
    joined: list[int] = []
    for n in shape:
        if joined and joined[-1] * n <= longest:
            joined[-1] *= n
        else:
            joined.append(n)
    return tuple(n for n in joined if n > 1) or tuple(joined[:1])


def gram(x: Array, axis: int) -> Array:
    """The products of the slices of x along an axis, (n, n)."""
    flat = jnp.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)
    return product(flat, flat.mT.conj())


def product(a: Array, b: Array) -> Array:
    """The product of matrices in full precision."""
    return jnp.matmul(a, b, precision=PRECISION)


def rotated(x: Array, bases: Matrices) -> Array:
    """x in the bases, the columns of a matrix for each axis: Q^H x along each."""
    for axis, q in enumerate(bases):
        if q is not None:
            turned = jnp.tensordot(x, q.conj(), axes=(axis, 0), precision=PRECISION)
            x = jnp.moveaxis(turned, -1, axis)
    return x


def rotated_back(x: Array, bases: Matrices) -> Array:
    """The inverse of `rotated` for orthogonal bases: Q x along each axis."""
    return rotated(x, tuple(None if q is None else q.mT.conj() for q in bases))


def eigenvectors(grams: Sequence[Array], ranks: Sequence[int]) -> list[Array]:
    """The eigenvectors of each Gram matrix as columns, by descending eigenvalue.

    Of a matrix of known rank only so many are determined. The others are a basis of the rest that
    is determined too: the part of the first axes that is orthogonal to them.
    """
    found = [x[0] for x in _batched(_descending_eigenvectors, grams)]
    short = [i for i, (x, rank) in enumerate(zip(found, ranks, strict=True)) if rank < len(x)]
    rests = []
    for i in short:
        known = found[i][:, : ranks[i]]
        outside = jnp.eye(len(known), dtype=known.dtype) - product(known, known.mT.conj())
        rests.append(outside[:, : len(known) - ranks[i]])
    for i, rest in zip(short, orthogonal(rests), strict=True):
        found[i] = jnp.concatenate([found[i][:, : ranks[i]], rest], axis=1)
    return found


def orthogonal(matrices: Sequence[Array]) -> list[Array]:
    """The first factor of the QR decomposition of each."""
    return [x[0] for x in _batched(lambda x: jnp.linalg.qr(x)[0], matrices)]


def _descending_eigenvectors(x: Array) -> Array:
    tiny = jnp.asarray(1e-30, x.real.dtype) * jnp.eye(x.shape[-1], dtype=x.dtype)
    return jnp.linalg.eigh(x + tiny)[1][:, :, ::-1]


def _batched(function: Callable[[Array], Array], matrices: Sequence[Array]) -> list[Array]:
    return [x for x in in_batches(function, [x[None] for x in matrices]) if x is not None]
