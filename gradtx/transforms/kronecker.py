"""Kronecker factors: a matrix for each axis of an array, and operations on these matrices.

The Gram matrix of an axis is that of the array unfolded along it. All matrices of one size in the
tree are decomposed in one call, and products are always in full precision.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.tree_util import PyTreeDef
from jax.typing import DTypeLike

from gradtx.core.batches import LARGEST, in_batches, undifferentiated
from gradtx.core.dtypes import Scalar, complex_dtype
from gradtx.core.holding import row_major
from gradtx.core.leaves import Leaves, aligned_arrays, at, path_words
from gradtx.core.norms import norm
from gradtx.core.numerics import abs_sq, over_size, plus
from gradtx.core.state import LikeParams, Updates

# An array for each axis; None for an axis that has no matrix.
Matrices = tuple[Array | None, ...]

# The default on accelerators, bfloat16 or TF32, is too coarse for matrices to decompose.
PRECISION = lax.Precision.HIGHEST


class Gradients(NamedTuple):
    """The arrays of a tree of gradients; the fields of a state become lists in the same order.

    where: the transformation, for errors.
    """

    arrays: list[Array]
    structure: PyTreeDef
    where: str

    @classmethod
    def of(cls, updates: Updates, mu: LikeParams, where: str) -> Gradients:
        """Raises: ValueError, with the leaf's path, unless the momentum has their shapes."""
        aligned_arrays(Leaves.of(updates), mu, f"{where}: the state's mu")
        return cls(*jax.tree.flatten(updates), where)

    def beside(self, field: Any) -> list[Any]:
        """What a field of the state holds for each array; None for each if there is no field."""
        if field is None:
            return [None] * len(self.arrays)
        held: list[Any] = self.structure.flatten_up_to(field)
        return held

    def path_words(self, purpose: str) -> list[tuple[np.uint32, np.uint32]]:
        """Two words to seed the random numbers of each array."""
        paths = jax.tree_util.tree_flatten_with_path(self.tree(self.arrays))[0]
        return [path_words(path, purpose) for path, _ in paths]

    def fitting(self, field: Any, name: str, shapes: Iterable[Any]) -> list[Any]:
        """What `beside` returns, checked to have these shapes, or to be None where they are.

        Raises: ValueError, with the leaf's path, for a state made with other arguments.
        """
        leaves, held = Leaves.of(self.tree(self.arrays)), self.beside(field)
        there = (path for path, x in zip(leaves.paths, leaves.values, strict=True) if x is not None)
        for x, wanted, path in zip(held, shapes, there, strict=True):
            found = jax.tree.map(np.shape, x)
            if found != wanted:
                raise ValueError(
                    f"{self.where}: {at(path)}: the shapes of the state's {name} are {found}, not "
                    f"{wanted}; was the state made with other arguments?"
                )
        return held

    def tree(self, values: Iterable[Any]) -> Any:
        """The tree with one of these values for each array."""
        return jax.tree.unflatten(self.structure, values)

    def shaped(self, arrays: Iterable[Array]) -> Updates:
        """The tree of these arrays, reshaped to the shapes of the gradients."""
        return self.tree(x.reshape(g.shape) for x, g in zip(arrays, self.arrays, strict=True))


class Axes(NamedTuple):
    """How an array is seen: its shape, perhaps with axes merged, and which axes have a matrix."""

    shape: tuple[int, ...]
    own: tuple[bool, ...]

    @classmethod
    def of(cls, shape: tuple[int, ...], longest: int, *, merge: bool, vectors: bool) -> Axes:
        """Axes of at most `longest` elements have a matrix; in arrays of one axis, only with
        `vectors`. merge: join neighbouring axes, from the first on, while they stay that short."""
        shape = merged(shape, longest) if merge else shape
        enough = len(shape) > 1 or vectors
        # A matrix of one element would only change a sign, and change it back.
        return cls(shape, tuple(enough and 1 < n <= longest for n in shape))

    @property
    def matrices(self) -> tuple[tuple[int, int] | None, ...]:
        """The shape of the matrix of each axis that has one."""
        return tuple((n, n) if own else None for n, own in zip(self.shape, self.own, strict=True))

    def zeros(self, dtype: DTypeLike) -> Matrices:
        """A matrix of zeros for each axis that has one."""
        return tuple(None if shape is None else jnp.zeros(shape, dtype) for shape in self.matrices)

    def identities(self, dtype: DTypeLike) -> Matrices:
        """The identity for each axis that has a matrix."""
        return tuple(None if x is None else jnp.eye(len(x), dtype=dtype) for x in self.zeros(dtype))

    def rank(self, axis: int) -> int:
        """The largest rank that the Gram matrix of one array can have."""
        n = self.shape[axis]
        return min(n, math.prod(self.shape) // n)


def factor_dtype_for(x: Array, given: DTypeLike | None) -> DTypeLike:
    """The dtype of an array's matrices; given: that of real ones, or None for the array's own."""
    if given is None:
        return x.dtype
    return complex_dtype(given) if jnp.iscomplexobj(x) else given


def merged(shape: Sequence[int], longest: int, *, backwards: bool = False) -> tuple[int, ...]:
    """The shape with neighbouring axes joined, from the first on or from the last, while the
    product of their lengths is at most `longest`."""
    joined: list[int] = []
    for n in reversed(shape) if backwards else shape:
        if joined and joined[-1] * n <= longest:
            joined[-1] *= n
        else:
            joined.append(n)
    kept = [n for n in joined if n > 1] or joined[:1]
    return tuple(reversed(kept) if backwards else kept)


class Blocks(NamedTuple):
    """How an array of a shape is cut into blocks: each axis into pieces of one length, and perhaps
    a shorter one at the end. Blocks of equal shape form a group, an array whose first axis counts
    its blocks."""

    shape: tuple[int, ...]
    # For each axis: (length, number) of equal pieces that lie one after another.
    pieces: tuple[tuple[tuple[int, int], ...], ...]

    @classmethod
    def of(cls, shape: tuple[int, ...], longest: int, *, merge: bool) -> Blocks:
        """Pieces of at most `longest` elements. merge: first join neighbouring axes, from the last
        on, while they stay that short."""
        shape = merged(shape, longest, backwards=True) if merge else shape

        def cut(n: int) -> tuple[tuple[int, int], ...]:
            number, rest = divmod(n, longest)
            if not number:
                return ((n, 1),)
            return ((longest, number), (rest, 1)) if rest else ((longest, number),)

        return cls(shape, tuple(map(cut, shape)))

    @property
    def groups(self) -> list[tuple[int, tuple[int, ...]]]:
        """The number of blocks and their shape, for each group; an empty array has none."""
        return [
            (math.prod(q for _, q in group), tuple(n for n, _ in group))
            for group in itertools.product(*self.pieces)
            if 0 not in self.shape
        ]

    @property
    def matrices(self) -> list[tuple[tuple[int, int, int], ...]]:
        """For each group the shapes of the matrices of all its blocks, one for each axis."""
        return [tuple((number, n, n) for n in shape) for number, shape in self.groups]

    def zeros(self, dtype: DTypeLike) -> list[Matrices]:
        """For each group matrices of zeros, one for each axis."""
        return [tuple(jnp.zeros(shape, dtype) for shape in group) for group in self.matrices]

    def identities(self, dtype: DTypeLike) -> list[Matrices]:
        """For each group the identity for each axis of each of its blocks."""
        return [
            tuple(jnp.tile(jnp.eye(n, dtype=dtype), (number, 1, 1)) for number, n, _ in group)
            for group in self.matrices
        ]

    def split(self, x: Array) -> list[Array]:
        """The groups, (number, *shape of a block) each."""
        if 0 in self.shape:
            return []
        x, first = x.reshape(self.shape), [0] * len(self.pieces)
        starts = [itertools.accumulate((n * q for n, q in own), initial=0) for own in self.pieces]
        corners = itertools.product(*(list(own)[:-1] for own in starts))
        made = []
        for group, corner in zip(itertools.product(*self.pieces), corners, strict=True):
            ends = [start + n * q for start, (n, q) in zip(corner, group, strict=True)]
            part = lax.slice(x, corner or first, ends).reshape(
                [k for n, q in group for k in (q, n)]
            )
            order = [*range(0, part.ndim, 2), *range(1, part.ndim, 2)]
            made.append(part.transpose(order).reshape(-1, *(n for n, _ in group)))
        return made

    def join(self, groups: Sequence[Array]) -> Array:
        """The inverse of `split`."""
        left = iter(groups)

        def along(axis: int, group: tuple[tuple[int, int], ...]) -> Array:
            if axis < len(self.pieces):
                parts = [along(axis + 1, (*group, piece)) for piece in self.pieces[axis]]
                return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis)
            k = len(group)
            part = next(left).reshape([q for _, q in group] + [n for n, _ in group])
            order = [i for pair in zip(range(k), range(k, 2 * k), strict=True) for i in pair]
            return part.transpose(order).reshape([n * q for n, q in group])

        return along(0, ())


def finite_or(other: Array, x: Array) -> Array:
    """x, with `other` for every matrix (the last two axes) that is not finite: squares of huge
    gradients overflow, and a decomposition would spread that over the array for good."""
    return jnp.where(jnp.all(jnp.isfinite(x), axis=(-2, -1), keepdims=True), x, other)


def gram(x: Array, axis: int, batch: int = 0) -> Array:
    """The products of the slices of x along an axis, (n, n). batch: how many batch axes come first,
    in x and in the result."""
    flat = jnp.moveaxis(x, batch + axis, batch).reshape(*x.shape[:batch], x.shape[batch + axis], -1)
    return product(flat, flat.mT.conj())


def product(a: Array, b: Array) -> Array:
    """The product of matrices in full precision."""
    return jnp.matmul(a, b, precision=PRECISION)


def multiplied(x: Array, matrices: Matrices) -> Array:
    """x multiplied along each axis by the adjoint of its matrix: M^H x. With the columns of an
    orthogonal matrix, these are the coordinates of x in the basis of its columns.

    A vector stands for a diagonal matrix. Any axes of the matrices before the last two are batch
    axes, which x has too.
    """
    for axis, m in enumerate(matrices):
        if m is None:
            continue
        if m.ndim == 1:
            x = m.conj().reshape([-1 if k == axis else 1 for k in range(x.ndim)]) * x
        else:
            batch = m.shape[:-2]
            moved = jnp.moveaxis(x, len(batch) + axis, -1)
            made = product(moved.reshape(*batch, -1, moved.shape[-1]), m.conj())
            x = jnp.moveaxis(made.reshape(moved.shape), -1, len(batch) + axis)
    return x


def adjoints(matrices: Matrices) -> Matrices:
    """Each matrix transposed and conjugated: multiplying by these undoes orthogonal ones."""
    return tuple(None if m is None else m.conj() if m.ndim == 1 else m.mT.conj() for m in matrices)


def spectral_norm(x: Array, products: int) -> Array:
    """A lower estimate of the largest singular value of a normal matrix, by that many products with
    a vector: power iteration from its longest row. 0 for a matrix of zeros."""
    largest = jnp.max(jnp.abs(x))
    x = over_size(x, largest)
    vector = x[jnp.argmax(jnp.sum(abs_sq(x), axis=1))].conj()
    for _ in range(products):
        vector = over_size(vector, norm(vector))
        vector = product(x, vector[:, None])[:, 0]
    return largest * norm(vector)


def permuted(x: Array, orders: Matrices) -> Array:
    """x with its slices along each axis in the given order; None leaves an axis as it is."""
    # The first axis last, in whole rows: XLA:CPU moves columns by transposing twice.
    for axis, order in reversed(list(enumerate(orders))):
        if order is not None:
            x = jnp.take(x, order, axis=axis, mode="clip")
    return x


def eigenvectors(grams: Sequence[Array], ranks: Sequence[int]) -> list[Array]:
    """The eigenvectors of each Gram matrix as columns, by descending eigenvalue.

    A matrix of known rank determines only that many. The others are a well-defined basis of the
    rest: the parts of the first coordinate axes that are orthogonal to the known ones.
    """
    found = [x[0] for x in _batched(_descending_eigenvectors, [x[None] for x in grams])]
    short = [i for i, (x, rank) in enumerate(zip(found, ranks, strict=True)) if rank < len(x)]
    whole = []
    for i in short:
        known = found[i][:, : ranks[i]]
        outside = jnp.eye(len(known), dtype=known.dtype) - product(known, known.mT.conj())
        whole.append(jnp.concatenate([known, outside[:, : len(known) - ranks[i]]], axis=1))
    # Together with the known ones, so that the rest is orthogonal to them even where too little of
    # these axes lies outside their span, as may happen with a matrix of still lower rank.
    for i, x in zip(short, orthogonal(whole), strict=True):
        found[i] = jnp.concatenate([found[i][:, : ranks[i]], x[:, ranks[i] :]], axis=1)
    return found


def inverse_roots(
    matrices: Sequence[Array], eps: Scalar, exponents: Sequence[Scalar]
) -> list[Array]:
    """(A + eps I)^-p of each batch of Hermitian matrices, (batch, n, n), with its exponent p.

    Where an eigenvalue of A is negative, all are raised until the smallest is 0. Those that are
    then smaller than the rounding errors of the largest, in A and here, are raised to that size:
    along a direction that A leaves out, the root would otherwise be arbitrary, and amplify the
    rounding errors of gradients.
    """

    def decompose(x: Array) -> Array:
        values, vectors = jnp.linalg.eigh(x)
        return jnp.concatenate([vectors, values.astype(x.dtype)[:, :, None]], axis=2)

    roots = []
    for x, p in zip(_batched(decompose, matrices), exponents, strict=True):
        vectors, values = x[:, :, :-1], x[:, None, :, -1].real
        # First raised to 0, then by eps: added to a negative value (rounding), eps would be lost.
        values = plus(eps, values - jnp.minimum(values[..., :1], 0))
        values = jnp.maximum(values, 2 * float(np.finfo(values.dtype).eps) * values[..., -1:])
        roots.append(product(vectors * (values**-p).astype(x.dtype), vectors.mT.conj()))
    return roots


def orthogonal(matrices: Sequence[Array]) -> list[Array]:
    """The orthogonal factor of the QR decomposition of each."""
    return [x[0] for x in _batched(_orthogonal, [x[None] for x in matrices])]


def _orthogonal(x: Array) -> Array:
    return row_major(jnp.linalg.qr(x)[0])


def _descending_eigenvectors(x: Array) -> Array:
    return row_major(jnp.linalg.eigh(x)[1][:, :, ::-1])


def _batched(function: Callable[[Array], Array], matrices: Sequence[Array]) -> list[Array]:
    """function(x) for each x, (batch, n, n), in as few calls as `in_batches` makes; on TPU, if any
    size has more than `LARGEST` elements, in one call for each size, since there every call is a
    program of its own, which takes minutes to compile for a large matrix."""

    def in_few_calls(*matrices: Array) -> list[Array]:
        return [
            x for x in in_batches(partial(undifferentiated, function), matrices) if x is not None
        ]

    def in_one_call_a_size(*matrices: Array) -> list[Array]:
        return _in_loops(function, matrices)

    sizes = {x.shape[1:] for x in matrices}
    if all(sum(x.size for x in matrices if x.shape[1:] == size) <= LARGEST for size in sizes):
        return in_few_calls(*matrices)
    made: list[Array] = lax.platform_dependent(
        *matrices, tpu=in_one_call_a_size, default=in_few_calls
    )
    return made


def _in_loops(function: Callable[[Array], Array], matrices: Sequence[Array]) -> list[Array]:
    """All of one size in a loop over batches of at most `LARGEST` elements."""

    def in_a_loop(x: Array) -> Array:
        turns = -(-len(x) // max(1, LARGEST // x[0].size))
        padded = jnp.concatenate([x, x[: -len(x) % turns]]).reshape(turns, -1, *x.shape[1:])
        made = lax.map(function, padded)
        return made.reshape(-1, *made.shape[2:])[: len(x)]

    made = list(matrices)
    for kind in {(x.shape[1:], x.dtype): None for x in matrices}:
        own = [i for i, x in enumerate(matrices) if (x.shape[1:], x.dtype) == kind]
        results = in_a_loop(jnp.concatenate([matrices[i] for i in own]))
        ends = itertools.accumulate(len(matrices[i]) for i in own)
        for i, end in zip(own, ends, strict=True):
            made[i] = results[end - len(matrices[i]) : end]
    return made
