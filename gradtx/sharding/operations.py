"""What an operation on whole arrays becomes on pieces.

An elementwise operation stays the same. A sum along a dimension that is cut is a sum over the piece
and then over the devices. Some operations need the whole along some dimensions (a sort along one,
a concatenation) and not along the others; one that has no rule here needs the whole along all of
them. Then the pieces are gathered, every device does the same, and each takes its piece of the
result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core.dtypes import enable_x64
from gradtx.core.elementwise import ELEMENTWISE as OF_KERNELS
from gradtx.core.meshes.manual import barrier, varies_over, varying
from gradtx.sharding.pieces import (
    Axes,
    Division,
    Piece,
    Shape,
    combined,
    joined,
    parts,
    piece_shape,
    whole,
)

if TYPE_CHECKING:
    from jax.extend.core import JaxprEqn

Arrays = Sequence[jax.Array]


@dataclass(frozen=True)
class Operation:
    """An equation of a traced function."""

    equation: JaxprEqn

    @property
    def name(self) -> str:
        """That of its primitive."""
        return self.equation.primitive.name

    @property
    def params(self) -> dict[str, Any]:
        """Its static parameters, as they are for whole arrays."""
        return self.equation.params

    @property
    def shape(self) -> Shape:
        """That of its first result."""
        shape: Shape = getattr(self.equation.outvars[0].aval, "shape", ())
        return shape

    @contextmanager
    def context(self) -> Iterator[None]:
        """With the settings under which it was traced, including whether there are 64 bits, which
        older versions of JAX do not keep."""
        avals: list[Any] = [v.aval for v in (*self.equation.invars, *self.equation.outvars)]
        wide = any(getattr(x, "dtype", None) in _WIDE for x in avals)
        with self.equation.ctx.manager, enable_x64(True) if wide else nullcontext():
            yield

    def bind(self, arrays: Arrays, **changed: Any) -> list[jax.Array]:
        """Its results for these arrays."""
        primitive: Any = self.equation.primitive
        with self.context():
            made = primitive.bind(*of_one_type(arrays), **{**self.params, **changed})
        return list(made) if primitive.multiple_results else [made]


_WIDE = tuple(map(np.dtype, (np.float64, np.complex128, np.int64, np.uint64)))


def of_one_type(arrays: Arrays, axes: Iterable[str] = ()) -> list[jax.Array]:
    """The arrays, each typed as varying over these axes and all that any of them varies over."""
    together = frozenset(axes).union(*map(varies_over, arrays))
    return [varying(x, together) for x in arrays] if together else list(arrays)


Rule = Callable[[Operation, Sequence[Piece]], list[Piece]]


def on_wholes(operation: Operation, pieces: Sequence[Piece]) -> list[Piece]:
    """Every device does all of it."""
    made = operation.bind([p.all for p in pieces])
    return [Piece.of(x, whole(np.shape(x))) for x in made]


def each_element(operation: Operation, pieces: Sequence[Piece]) -> list[Piece]:
    """An elementwise operation, on arrays of one shape and scalars."""
    shape = operation.shape
    if any(p.shape not in (shape, ()) for p in pieces):
        return on_wholes(operation, pieces)

    def make(division: Division) -> jax.Array:
        arrays = [p.divided(division if p.shape == shape else ()) for p in pieces]
        return operation.bind(arrays)[0]

    division = joined(shape, (p.division for p in pieces if p.shape == shape))
    full = [p for p in pieces if p.shape == shape]
    if shape and all(p.held is None for p in full):
        return [Piece(shape, division, make)]
    return [Piece.of(make(division), division)]


def behind_barrier(operation: Operation, pieces: Sequence[Piece]) -> list[Piece]:
    """A barrier on several arrays, each of which stays as it is."""
    with operation.context():
        made = barrier([p.here for p in pieces])
    return [Piece.of(x, p.division) for x, p in zip(made, pieces, strict=True)]


def unchanged(operation: Operation, pieces: Sequence[Piece]) -> list[Piece]:
    """An operation that only changes a type in the program for whole arrays."""
    return list(pieces)


# -- sums ------------------------------------------------------------------------------------------

# From a value and mesh axes to the value reduced over all of these axes.
Collective = Callable[[Any, Axes], Any]


def reducing(collective: Collective) -> Rule:
    """A reduction: a collective reduces the results of the pieces."""

    def on_pieces(operation: Operation, pieces: Sequence[Piece]) -> list[Piece]:
        (piece,) = pieces
        across, rest = combined(operation.params["axes"], piece.division)
        (made,) = operation.bind([piece.here])
        return [Piece.of(_over(operation, collective, made, across), rest)]

    return on_pieces


def _over(operation: Operation, collective: Collective, x: jax.Array, axes: Axes) -> jax.Array:
    with operation.context():
        made: jax.Array = collective(x, axes) if axes else x
        return made


def _product(x: jax.Array, axes: Axes) -> jax.Array:
    factors = Piece.of(x[None], (axes, *whole(x.shape)))
    return jnp.prod(factors.all, axis=0)


def logical(collective: Collective) -> Rule:
    """The same for a reduction of booleans, which collectives do not support."""

    def of_booleans(x: jax.Array, axes: Axes) -> jax.Array:
        made: jax.Array = collective(x.astype(np.int32), axes)
        return made.astype(bool)

    def on_pieces(operation: Operation, pieces: Sequence[Piece]) -> list[Piece]:
        aval: Any = operation.equation.outvars[0].aval
        boolean = aval.dtype == bool
        return (reducing(of_booleans) if boolean else on_wholes)(operation, pieces)

    return on_pieces


def several_sums(operation: Operation, pieces: Sequence[Piece]) -> list[Piece]:
    """`lax.reduce` of several arrays at once, if it adds."""
    count = len(pieces) // 2
    arrays, starts = pieces[:count], pieces[count:]
    if not all(e.primitive.name == "add" for e in operation.params["jaxpr"].eqns):
        return on_wholes(operation, pieces)
    division = joined(arrays[0].shape, (p.division for p in arrays))
    across, rest = combined(operation.params["dimensions"], division)
    made = operation.bind([*(p.divided(division) for p in arrays), *(p.all for p in starts)])
    return [Piece.of(_over(operation, lax.psum, x, across), rest) for x in made]


def product_of_matrices(operation: Operation, pieces: Sequence[Piece]) -> list[Piece]:
    """Products of pieces. Where a summed dimension is cut, they are summed over the devices, if
    that moves no more than the whole arrays; where a free dimension is cut, they are pieces of the
    result."""
    (left_sum, right_sum), (left_batch, right_batch) = operation.params["dimension_numbers"]
    left, right = (list(p.division) for p in pieces)
    used: set[str] = set()

    def agree(pairs: Iterable[tuple[int, int]], keep: bool) -> list[Axes]:
        found = []
        for i, j in pairs:
            axes = next((a for a in (left[i], right[j]) if a and used.isdisjoint(a)), ())
            left[i] = right[j] = axes if keep else ()
            used.update(left[i])
            found.append(left[i])
        return found

    batch = agree(zip(left_batch, right_batch, strict=True), True)
    cheap = math.prod(operation.shape) <= sum(math.prod(p.shape) for p in pieces)
    across = sum(agree(zip(left_sum, right_sum, strict=True), cheap), ())
    free: list[Axes] = []
    for sides, summed, batched in ((left, left_sum, left_batch), (right, right_sum, right_batch)):
        for i in range(len(sides)):
            if i in summed or i in batched:
                continue
            sides[i] = sides[i] if used.isdisjoint(sides[i]) else ()
            used.update(sides[i])
            free.append(sides[i])
    arrays = [p.divided(tuple(d)) for p, d in zip(pieces, (left, right), strict=True)]
    (made,) = operation.bind(arrays)
    return [Piece.of(_over(operation, lax.psum, made, across), (*batch, *free))]


# -- shapes ----------------------------------------------------------------------------------------


def broadcast(operation: Operation, pieces: Sequence[Piece]) -> list[Piece]:
    """Made once it is known which part is asked for, so that the whole array never is."""
    piece, *_ = pieces
    shape, places = operation.shape, operation.params["broadcast_dimensions"]
    kept = {place: i for i, place in enumerate(places) if piece.shape[i] == shape[place]}

    def make(division: Division) -> jax.Array:
        own = list(whole(piece.shape))
        for place, i in kept.items():
            own[i] = division[place]
        x = piece.divided(tuple(own))
        return lax.broadcast_in_dim(x, piece_shape(shape, division), places)

    division = tuple(piece.division[kept[i]] if i in kept else () for i in range(len(shape)))
    return [Piece(shape, division, make)]


def counting(operation: Operation, pieces: Sequence[Piece]) -> list[Piece]:
    """iota, from where the piece begins."""
    shape, along = operation.shape, operation.params["dimension"]
    dtype = operation.params["dtype"]

    def make(division: Division) -> jax.Array:
        own = piece_shape(shape, division)
        made = lax.broadcasted_iota(dtype, own, along)
        axes = division[along]
        return made + (lax.axis_index(axes) * own[along]).astype(dtype) if axes else made

    return [Piece(shape, whole(shape), make)]


def reshape(operation: Operation, pieces: Sequence[Piece]) -> list[Piece]:
    """A cut dimension stays cut if it is the first of those that are merged; if it is split, the
    first of the new ones is cut instead."""
    piece, *_ = pieces
    old, new = list(whole(piece.shape)), list(whole(operation.shape))
    for (i, i_end), (j, j_end) in _groups(piece.shape, operation.shape):
        first = next((k for k in range(i, i_end) if piece.shape[k] > 1), i_end)
        place = next((k for k in range(j, j_end) if operation.shape[k] > 1), j_end)
        if first < i_end and place < j_end:
            axes = piece.division[first]
            if operation.shape[place] % parts(axes) == 0:
                old[first] = new[place] = axes
    shape = piece_shape(operation.shape, tuple(new))
    return [Piece.of(lax.reshape(piece.divided(tuple(old)), shape), tuple(new))]


def _groups(old: Shape, new: Shape) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Ranges of dimensions of two shapes with the same number of elements, as short as possible."""
    i = j = 0
    while i < len(old) and j < len(new):
        i_end, j_end, before, after = i + 1, j + 1, old[i], new[j]
        while before != after:
            if before < after and i_end < len(old):
                before, i_end = before * old[i_end], i_end + 1
            elif after < before and j_end < len(new):
                after, j_end = after * new[j_end], j_end + 1
            else:
                return
        yield (i, i_end), (j, j_end)
        i, j = i_end, j_end


def transpose(operation: Operation, pieces: Sequence[Piece]) -> list[Piece]:
    """The division is transposed too."""
    (piece,) = pieces
    (made,) = operation.bind([piece.here])
    return [Piece.of(made, tuple(piece.division[i] for i in operation.params["permutation"]))]


def squeeze(operation: Operation, pieces: Sequence[Piece]) -> list[Piece]:
    """Dimensions of length 1 are not cut."""
    (piece,) = pieces
    _, rest = combined(operation.params["dimensions"], piece.division)
    (made,) = operation.bind([piece.here])
    return [Piece.of(made, rest)]


# The first goes from the operation and its operands to the dimensions along which it needs the
# whole, the second from the shape of a piece of the result to its parameters for pieces.
Along = Callable[[Operation, Sequence[Piece]], Iterable[int]]
Changes = Callable[[Operation, Shape], dict[str, Any]]


def needing_whole(along: Along, changes: Changes = lambda operation, shape: {}) -> Rule:
    """An operation on arrays of one rank, and scalars, that needs the whole along some dimensions
    and treats each index along the others on its own."""

    def on_pieces(operation: Operation, pieces: Sequence[Piece]) -> list[Piece]:
        rank = len(operation.shape)
        dimensions = {i % rank for i in along(operation, pieces)} if rank else set[int]()
        found = joined(operation.shape, (p.division for p in pieces if len(p.shape) == rank))
        division = tuple(() if i in dimensions else axes for i, axes in enumerate(found))
        given = [p.divided(division) if len(p.shape) == rank else p.all for p in pieces]
        shape = piece_shape(operation.shape, division)
        made = operation.bind(given, **changes(operation, shape))
        return [Piece.of(x, division) for x in made]

    return on_pieces


def _param(name: str) -> Along:
    def along(operation: Operation, pieces: Sequence[Piece]) -> Iterable[int]:
        found = operation.params[name]
        return (found,) if isinstance(found, int) else found

    return along


def _last(operation: Operation, pieces: Sequence[Piece]) -> Iterable[int]:
    return (-1,)


def _changed_in(operation: Operation, pieces: Sequence[Piece]) -> Iterable[int]:
    """The dimensions in which the first operand and the result differ, or the second operand."""
    first, *others = pieces
    like = [p.shape for p in others if len(p.shape) == len(first.shape)]
    return [
        i for i, n in enumerate(first.shape) if any(s[i] != n for s in (operation.shape, *like))
    ]


def _padded_in(operation: Operation, pieces: Sequence[Piece]) -> Iterable[int]:
    return [i for i, edges in enumerate(operation.params["padding_config"]) if any(edges)]


def _sliced_in(operation: Operation, pieces: Sequence[Piece]) -> Iterable[int]:
    strides = operation.params["strides"] or (1,) * len(operation.shape)
    changed = _changed_in(operation, pieces)
    return [i for i, step in enumerate(strides) if step != 1 or i in changed]


def _limits(operation: Operation, shape: Shape) -> dict[str, Any]:
    uncut = [own == n for own, n in zip(shape, operation.shape, strict=True)]
    pairs = zip(uncut, operation.params["limit_indices"], shape, strict=True)
    return {"limit_indices": tuple(limit if same else own for same, limit, own in pairs)}


def _sizes(operation: Operation, shape: Shape) -> dict[str, Any]:
    return {"slice_sizes": shape}


# fmt: off
_ELEMENTWISE = OF_KERNELS - {"broadcast_in_dim", "iota"} | {
    "acos", "acosh", "asin", "asinh", "atan", "atanh", "complex", "conj", "cosh", "digamma",
    "erf_inv", "erfc", "imag", "lgamma", "population_count", "real", "sinh", "stop_gradient",
}
_CUMULATIVE = ("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
# fmt: on

# What has no rule needs the whole of all of its operands.
RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, each_element),
    **dict.fromkeys(_CUMULATIVE, needing_whole(_param("axis"))),
    **dict.fromkeys(("pvary", "pcast"), unchanged),
    "broadcast_in_dim": broadcast,
    "concatenate": needing_whole(_param("dimension")),
    "dot_general": product_of_matrices,
    "dynamic_slice": needing_whole(_changed_in, _sizes),
    "dynamic_update_slice": needing_whole(_changed_in),
    "iota": counting,
    "optimization_barrier": behind_barrier,
    "pad": needing_whole(_padded_in),
    "reduce": several_sums,
    "reduce_and": logical(lax.pmin),
    "reduce_max": reducing(lax.pmax),
    "reduce_min": reducing(lax.pmin),
    "reduce_or": logical(lax.pmax),
    "reduce_prod": reducing(_product),
    "reduce_sum": reducing(lax.psum),
    "reshape": reshape,
    "rev": needing_whole(_param("dimensions")),
    "slice": needing_whole(_sliced_in, _limits),
    "sort": needing_whole(_param("dimension")),
    "squeeze": squeeze,
    "transpose": transpose,
}
