"""Arrays as batches of matrices: which axes are rows, which are columns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, NamedTuple, TypeGuard

import jax
from jax import Array, lax
from jax.sharding import PartitionSpec

from gradtx.core.hyperparameters import ByPattern
from gradtx.core.leaves import Leaves, at, is_function
from gradtx.core.mask import broadcast_prefix, first_matching
from gradtx.core.meshes.placing import full_spec
from gradtx.core.state import Params
from gradtx.tree.types import Tree

__all__ = ["GaLoreDimensionNumbers", "MuonDimensionNumbers"]


class MuonDimensionNumbers(NamedTuple):
    """Which axes of an array are a matrix's rows and which its columns; any others are batch axes.

    reduction_axis: the rows, the axes that the layer sums over (its inputs); output_axis: the
    columns (its outputs). Each is an axis or a tuple of axes; an empty one makes a single row, or
    a single column.
    """

    reduction_axis: Sequence[int] | int = 0
    output_axis: Sequence[int] | int = 1


class GaLoreDimensionNumbers(NamedTuple):
    """Which axes of an array are a matrix's rows and which its columns; no axis is left over."""

    reduction_axis: Sequence[int] | int = 0
    output_axis: Sequence[int] | int = 1


@dataclass(frozen=True)
class Axes:
    """Dimension numbers in a single form, which tree functions treat as a leaf."""

    rows: tuple[int, ...] = (0,)
    columns: tuple[int, ...] = (1,)

    @classmethod
    def of(cls, numbers: object) -> Axes:
        """From either of the two named tuples."""
        if not _is_numbers(numbers):
            raise TypeError(f"expected dimension numbers or None, got {numbers!r}")
        return cls(*((n,) if isinstance(n, int) else tuple(n) for n in numbers))


def _is_numbers(x: object) -> TypeGuard[MuonDimensionNumbers | GaLoreDimensionNumbers]:
    return isinstance(x, MuonDimensionNumbers | GaLoreDimensionNumbers)


def axes_of(given: Any, leaves: Leaves, where: str, *, complete: bool = False) -> list[Axes | None]:
    """The axes of each leaf, or None.

    given: dimension numbers for all leaves; a mapping from path patterns to them, or to None; a
    tree of them, or of None, like the leaves' or a prefix of it; or a function from the tree of the
    leaves to one of these.

    A pattern that matches no leaf is an error, except one mapped to None where the leaves are only
    those of one of several optimizers, and so not `complete`.
    """
    tree = given(leaves.tree(leaves.values)) if is_function(given) else given
    if by_pattern(tree):
        names = _names(leaves)
        if set(names) <= tree.keys():
            found: Sequence[Any] = names
        else:
            to_none = [key for key, own in tree.items() if own is None]
            optional = () if complete else to_none
            found = first_matching(tuple(tree), leaves.paths, where, optional=optional)
        numbers = [None if key is None else tree[key] for key in found]
        return [None if own is None else Axes.of(own) for own in numbers]
    try:
        spread = jax.tree.map(Axes.of, tree, is_leaf=_is_numbers)
        return broadcast_prefix(spread, leaves)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"{where}: the dimension numbers do not fit the tree: {error}. They are one value for "
            "all arrays, a mapping from path patterns to them, a tree of them like the params, or "
            "a function that makes one"
        ) from error


def by_pattern(given: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether dimension numbers can be a mapping from path patterns, rather than a deeper tree."""
    return (
        isinstance(given, Mapping)
        and bool(given)
        and all(isinstance(key, str) for key in given)
        and all(x is None or _is_numbers(x) for x in given.values())
    )


def _names(leaves: Leaves) -> list[object]:
    """For each leaf, the key under which it lies in the tree, if that is a mapping."""
    return [getattr(path[0], "key", None) if path else None for path in leaves.key_paths]


@dataclass(frozen=True)
class NumbersKind(ByPattern):
    """Which arrays are matrices, and their rows and columns."""

    def convert(self, where: str, value: Any) -> Any:
        """A mapping from patterns in its order; anything else as it is."""
        return super().convert(where, value) if by_pattern(value) else value


# Dimension numbers of all arrays; or by path pattern; or a tree of them, or of None, like the
# params; or a function that makes one.
Numbering = Annotated[
    MuonDimensionNumbers
    | Mapping[str, MuonDimensionNumbers | None]
    | Tree
    | Callable[[Params], Tree]
    | None,
    NumbersKind(),
]


@dataclass(frozen=True)
class Layout:
    """How one array is split into a batch of matrices and joined again.

    axes: the axes of the array that become the batch, the rows and the columns. widths: how many
    columns each matrix has where several lie side by side, such as fused q, k, v.
    """

    shape: tuple[int, ...]
    axes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    widths: tuple[int, ...] = ()

    @classmethod
    def of(cls, shape: tuple[int, ...], axes: Axes, where: str, path: str) -> Layout:
        """Raises: ValueError, with the leaf's path, for axes that are missing or given twice."""
        here = f"{where}: {at(path)}: an array of shape {shape}"
        wrong = [axis for axis in axes.rows + axes.columns if not -len(shape) <= axis < len(shape)]
        if wrong:
            raise ValueError(
                f"{here} has no axis {wrong[0]}: it is not a matrix. Say which axes are rows and "
                "columns, or leave the leaf to another optimizer"
            )
        rows, columns = (tuple(a % len(shape) for a in part) for part in (axes.rows, axes.columns))
        if len({*rows, *columns}) != len(rows) + len(columns):
            raise ValueError(f"{here}: rows {axes.rows} and columns {axes.columns} share an axis")
        batch = tuple(a for a in range(len(shape)) if a not in rows + columns)
        return cls(shape, (batch, rows, columns))

    @cached_property
    def order(self) -> tuple[int, ...]:
        """The axes of the array in the order batch, rows, columns."""
        return tuple(itertools.chain(*self.axes))

    @property
    def batch(self) -> int:
        """How many matrices there are."""
        return self._lengths[0]

    @property
    def rows(self) -> int:
        """How many rows a matrix has."""
        return self._lengths[1]

    @property
    def columns(self) -> int:
        """How many columns a matrix has, or all those side by side together."""
        return self._lengths[2]

    @cached_property
    def _lengths(self) -> list[int]:
        return [math.prod(self.shape[axis] for axis in own) for own in self.axes]

    def split(self, x: Array) -> Array:
        """The array reshaped to (batch, rows, columns)."""
        return x.transpose(self.order).reshape(self.batch, self.rows, self.columns)

    def divided(self, spec: PartitionSpec) -> PartitionSpec:
        """How the result of `split` is divided among devices if the array is divided by `spec`:
        axes that become one are divided as the first of them is. Divisions of the others do not
        count: they leave no device a contiguous piece."""
        names, make = full_spec(spec, len(self.shape)), PartitionSpec
        longer = ([axis for axis in own if self.shape[axis] > 1] for own in self.axes)
        made: PartitionSpec = make(*(names[own[0]] if own else None for own in longer))  # type: ignore[no-untyped-call]
        return made

    def join(self, matrices: Array) -> Array:
        """The inverse of `split`: (batch, rows, columns) reshaped to the array."""
        back = sorted(range(len(self.order)), key=self.order.__getitem__)
        return matrices.reshape([self.shape[axis] for axis in self.order]).transpose(back)

    def with_widths(self, widths: Sequence[int] | None, where: str, path: str) -> Layout:
        """The same layout, with matrices side by side.

        Raises: ValueError, with the leaf's path, for widths that are not positive or do not add up.
        """
        if widths is None:
            return self
        total = sum(widths)
        if min(widths) < 1 or total != self.columns:
            raise ValueError(
                f"{where}: {at(path)}: split_outputs {tuple(widths)} must be positive and add up "
                f"to the {self.columns} columns (outputs) of an array of shape {self.shape}, got "
                f"{total}"
            )
        return replace(self, widths=tuple(widths))

    def pieces(self, x: Array) -> list[Array]:
        """The matrices side by side, each (batch, rows, width)."""
        return self.side_by_side(self.split(x))

    def side_by_side(self, matrices: Array) -> list[Array]:
        """An array (batch, rows, columns) cut where each of the matrices ends."""
        return (
            [matrices] if len(self.widths) < 2 else list(lax.split(matrices, self.widths, axis=2))
        )

    def join_pieces(self, pieces: Sequence[Array]) -> Array:
        """The inverse of `pieces`."""
        return self.join(pieces[0] if len(pieces) == 1 else lax.concatenate(pieces, 2))

    def shapes(self) -> list[tuple[int, int]]:
        """The rows and columns of each of the matrices side by side."""
        return [(self.rows, width) for width in self.widths or (self.columns,)]


def widths_of(given: Any, leaves: Leaves, where: str) -> list[Any]:
    """How the columns of each array are split, or None.

    given: widths for all arrays; a mapping from path patterns, each of which must match a leaf, to
    widths; or a tree of widths, or of None, like the leaves' or a prefix of it.
    """
    if given is None or _is_widths(given):
        return [given] * len(leaves.values)
    if isinstance(given, Mapping) and all(map(_is_widths, given.values())):
        found = first_matching(tuple(given), leaves.paths, where)
        return [None if pattern is None else given[pattern] for pattern in found]
    try:
        spread = jax.tree.map(_Widths, given, is_leaf=_is_widths)
        return [None if x is None else x.of for x in broadcast_prefix(spread, leaves)]
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"{where}: split_outputs does not fit the tree: {error}. It is the widths of all "
            "matrices, as (64, 32, 32), a mapping from path patterns to widths, or a tree of them "
            "like the params"
        ) from error


@dataclass(frozen=True)
class SplitKind(ByPattern):
    """Widths of all matrices, by path pattern, or a tree of them like the params."""

    def convert(self, where: str, value: Any) -> Any:
        """Patterns in their order; a tree as it is."""
        by_pattern = isinstance(value, Mapping) and all(map(_is_widths, value.values()))
        return super().convert(where, value) if by_pattern else value


# The widths of all matrices; or by path pattern; or a tree of them, or of None, like the params.
Split = Annotated[Sequence[int] | Mapping[str, Any] | None, SplitKind()]


@dataclass(frozen=True)
class _Widths:
    """The widths of one array, which tree functions treat as a leaf."""

    of: Sequence[int]

    def __post_init__(self) -> None:
        if not _is_widths(self.of):
            raise TypeError(f"expected a tuple of whole numbers or None, got {self.of!r}")


def _is_widths(x: object) -> bool:
    return isinstance(x, list | tuple) and bool(x) and all(type(n) is int for n in x)
