"""Arrays as batches of matrices: which axes are rows, which are columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

import jax
from jax import Array

from gradtx.core.leaves import Leaves, at, is_function
from gradtx.core.mask import broadcast_prefix

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
    """Which axes of an array are the rows of its matrix and which its columns: all of its axes."""

    reduction_axis: Sequence[int] | int = 0
    output_axis: Sequence[int] | int = 1


@dataclass(frozen=True)
class Axes:
    """Dimension numbers in a single form, which is a leaf to tree functions."""

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


def axes_of(given: Any, leaves: Leaves, where: str) -> list[Axes | None]:
    """The axes of each leaf, or None.

    given: dimension numbers for all leaves; a tree of them, or of None, like the leaves' or a
    prefix of it; or a function from the tree of the leaves to such a tree.
    """
    tree = given(leaves.tree(leaves.values)) if is_function(given) else given
    try:
        spread = jax.tree.map(Axes.of, tree, is_leaf=_is_numbers)
        return broadcast_prefix(spread, leaves)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"{where}: the dimension numbers do not fit the tree: {error}. They are one value for "
            "all arrays, a tree of them like the params, or a function that makes one"
        ) from error


@dataclass(frozen=True)
class Layout:
    """How one array is split into a batch of matrices and joined again."""

    shape: tuple[int, ...]
    order: tuple[int, ...]
    batch: int
    rows: int
    columns: int

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
        return cls(
            shape, batch + rows + columns, *(_length(shape, x) for x in (batch, rows, columns))
        )

    def split(self, x: Array) -> Array:
        """The array reshaped to (batch, rows, columns)."""
        return x.transpose(self.order).reshape(self.batch, self.rows, self.columns)

    def join(self, matrices: Array) -> Array:
        """The inverse of `split`."""
        back = sorted(range(len(self.order)), key=self.order.__getitem__)
        return matrices.reshape([self.shape[axis] for axis in self.order]).transpose(back)


def _length(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    return math.prod(shape[axis] for axis in axes)
