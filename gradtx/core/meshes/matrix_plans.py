"""How all devices of a mesh compute on matrices that are divided among them.

A product, a decomposition or an iteration needs whole matrices, and XLA would gather every one of
them on every device. Here each device is sent a few whole ones, in one all-to-all exchange, and
sends its results back in another. Where there are fewer matrices than devices, some axes of the
mesh divide their columns instead. An estimate of the time decides which axes do what.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
from jax import lax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from gradtx.core.meshes.partitioned import Division, Names, Sizes, number_of
from gradtx.core.norms import Norm, norm_over


class Work(NamedTuple):
    """What a function of a batch of matrices does with each.

    operations: how many it takes, given the numbers of rows and columns. by_columns: whether a
    device can do its share with some of the columns. The function is then passed, as `over=`, the
    axes of the mesh that divide them, and must not depend on the order of rows or columns.
    """

    operations: Callable[[float, float], float]
    by_columns: bool = False


# Five iterations of three products.
NEWTON_SCHULZ = Work(lambda m, n: 5 * m**2 * (4 * n + 2 * m), by_columns=True)
# Decompositions run at a small fraction of a device's speed.
DECOMPOSITION = Work(lambda m, n: 1000 * m**2 * n)
# How many operations a device does while it sends one number.
_OPERATIONS_A_NUMBER = 4000
# How many products a function by columns sums over devices.
_SUMS = 5


# -- what the axes of the mesh are for -------------------------------------------------------------

Role = Literal["matrices", "columns", "none"]


class Plan(NamedTuple):
    """How a divided batch is laid out during a computation: each device has some whole matrices, or
    some of their columns.

    exchanged: the axes of the mesh along which the parts of a matrix are sent to one device;
    gathered: to each; turned: those that divide the rows before, and the columns meanwhile; kept:
    those that divide the columns all the time. Along other axes there are copies, of which each
    device takes some matrices (shared), some columns (cut), or everything.
    """

    sizes: Sizes
    division: Division
    exchanged: Names
    gathered: Names
    turned: Names
    kept: Names
    shared: Names
    cut: Names

    @classmethod
    def best(
        cls, division: Division, sizes: Sizes, n: int, shape: Sequence[int], work: Work
    ) -> Plan:
        """The plan by which n matrices of a shape take the least time. n: the number on each
        device, if the batch is divided."""
        names = [name for name in sizes if sizes[name] > 1 and name not in division[0]]
        roles: tuple[Role, ...] = ("matrices", "columns", "none")
        plans = (
            cls.of(division, sizes, dict(zip(names, chosen, strict=True)))
            for chosen in itertools.product(roles, repeat=len(names))
        )
        possible = (plan for plan in plans if plan.is_possible(shape, work))
        return min(possible, key=lambda plan: plan.time(n, shape, work))

    @classmethod
    def of(cls, division: Division, sizes: Sizes, roles: Mapping[str, Role]) -> Plan:
        """The plan with a role for each axis of the mesh that does not divide the batch."""
        _, rows, columns = division
        copies = tuple(name for name in roles if name not in rows + columns)

        def those(names: Names, role: Role) -> Names:
            return tuple(name for name in names if roles[name] == role)

        return cls(
            sizes,
            division,
            exchanged=those(rows + columns, "matrices"),
            gathered=those(rows + columns, "none"),
            turned=those(rows, "columns"),
            kept=those(columns, "columns"),
            shared=those(copies, "matrices"),
            cut=those(copies, "columns"),
        )

    @property
    def over(self) -> Names:
        """The axes of the mesh that divide the columns meanwhile."""
        return self.turned + self.kept + self.cut

    @property
    def takers(self) -> int:
        """The number of devices that take different matrices."""
        return number_of(self.exchanged + self.shared, self.sizes)

    def is_possible(self, shape: Sequence[int], work: Work) -> bool:
        """Whether columns stay whole or, if the work allows it, divide evenly."""
        return not self.over or (
            work.by_columns and shape[1] % number_of(self.over, self.sizes) == 0
        )

    def time(self, n: int, shape: Sequence[int], work: Work) -> float:
        """An estimate of the time, in operations of a device."""
        rows, columns = shape
        sizes, (_, *parts) = self.sizes, self.division
        each = -(-n // self.takers)
        stored = rows * columns / number_of(parts[0] + parts[1], sizes)
        used = rows * columns / number_of(self.over, sizes)
        sent = [
            (self.exchanged, 2 * each * number_of(self.exchanged, sizes) * stored),
            (self.shared, each * self.takers * stored),
            (self.gathered, each * used),
            (self.turned, 2 * each * used),
            (self.cut, each * used * number_of(self.cut, sizes)),
            (self.over, 2 * _SUMS * each * rows**2),
        ]
        return each * work.operations(
            rows, columns / number_of(self.over, sizes)
        ) + _OPERATIONS_A_NUMBER * sum(numbers for names, numbers in sent if names)

    # -- the way there and back, on each device ----------------------------------------------------

    def there(self, x: jax.Array) -> jax.Array:
        """What a device computes on, from its part of the batch, in which the number of matrices
        is a multiple of `takers`."""
        _, rows, columns = x.shape
        x = self._own(x, self.shared, axis=0)
        if self.exchanged:
            x = _exchanged(x, self.exchanged, 0, 0)
        if self.gathered:
            x = lax.all_gather(x, self.gathered)
        whole = x.reshape(*self._parts, -1, rows, columns).transpose(self._order)
        x = whole.reshape(len(whole), -1, columns * self._in_columns)
        if self.turned:
            x = _exchanged(x, self.turned, 2, 1)
        return self._own(x, self.cut, axis=2)

    def back(self, x: jax.Array) -> jax.Array:
        """The inverse, for the results."""
        if self.cut:
            x = lax.all_gather(x, self.cut, axis=2, tiled=True)
        if self.turned:
            x = _exchanged(x, self.turned, 1, 2)
        n, rows, columns = x.shape
        rows, columns = rows // self._in_rows, columns // self._in_columns
        sizes, order = (*self._parts, n, rows, columns), self._order
        x = x.reshape([sizes[axis] for axis in order])
        x = x.transpose(sorted(range(len(order)), key=order.__getitem__))
        x = x.reshape(-1, number_of(self.exchanged, self.sizes) * n, rows, columns)
        x = self._own(x, self.gathered, axis=0)[0]
        if self.exchanged:
            x = _exchanged(x, self.exchanged, 0, 0)
        return lax.all_gather(x, self.shared, axis=0, tiled=True) if self.shared else x

    @property
    def _arriving(self) -> Names:
        """The axes of the mesh along which parts of a matrix arrive."""
        return self.gathered + self.exchanged

    @property
    def _parts(self) -> list[int]:
        return [self.sizes[name] for name in self._arriving]

    @property
    def _in_rows(self) -> int:
        return self._number_of_parts(self.division[1])

    @property
    def _in_columns(self) -> int:
        return self._number_of_parts(self.division[2])

    def _number_of_parts(self, names: Names) -> int:
        return number_of(tuple(name for name in names if name in self._arriving), self.sizes)

    @property
    def _order(self) -> list[int]:
        """The transposition from the axes of these parts, the batch, rows and columns to the batch,
        the rows and the columns of whole matrices."""
        arrived = self._arriving
        batch = len(arrived)
        in_rows, in_columns = (
            [arrived.index(name) for name in names if name in arrived]
            for names in (self.division[1], self.division[2])
        )
        return [batch, *in_rows, batch + 1, *in_columns, batch + 2]

    def _own(self, x: jax.Array, names: Names, axis: int) -> jax.Array:
        """This device's part, along an axis, of what all devices along some mesh axes have."""
        if not names:
            return x
        length = x.shape[axis] // number_of(names, self.sizes)
        return lax.dynamic_slice_in_dim(x, lax.axis_index(names) * length, length, axis)


def expected(shape: Sequence[int], width: int, sizes: Sizes) -> Division:
    """How a batch of matrices is probably divided: the last axis of the mesh divides the side that
    is not of the model's width, by default the columns, and the other axes the other side."""
    *others, last = sizes
    sides: tuple[Names, Names] = (tuple(others), (last,))
    rows, columns = sides[::-1] if shape[1] != width == shape[2] else sides
    return Division.of(shape, shape, Division([(), rows, columns]).spec, sizes)


class Hints(NamedTuple):
    """A plan as sharding constraints for XLA, where it does not say how a batch is divided.

    XLA moves what one axis of the mesh divides in one exchange, but to move what two divide at once
    it would copy everything to every device. So there is a step for each axis. The last axis comes
    first, since it may divide one axis of an array together with others, in smaller parts than they
    do. The steps leave rows and columns to XLA, so that they are right however these are divided.
    """

    mesh: AbstractMesh | Mesh
    batch: Names
    plan: Plan

    @classmethod
    def like(cls, plan: Plan, mesh: AbstractMesh | Mesh) -> Hints:
        """The hints for a plan of a batch that is divided as `expected`."""
        batch = tuple(name for name in reversed(mesh.axis_names) if name in plan.exchanged)
        return cls(mesh, batch, plan)

    def there(self, x: jax.Array) -> jax.Array:
        """The batch, laid out as the plan says."""
        for i in range(len(self.batch) + 1):
            x = self._lying(x, self.batch[:i], *_FREE)
        return self._lying(x, self.batch, (), self.plan.over)

    def back(self, x: jax.Array) -> jax.Array:
        """The result, divided as XLA chooses."""
        x = self._lying(x, self.batch, (), self.plan.over)
        if self.plan.turned:
            x = self._lying(x, self.batch, self.plan.turned, self.plan.kept)
        for i in reversed(range(len(self.batch))):
            x = self._lying(x, self.batch[:i], *_FREE)
        return x

    def _lying(self, x: jax.Array, *axes: Any) -> jax.Array:
        make: Any = PartitionSpec
        sharding = NamedSharding(self.mesh, make(*(names or None for names in axes)))
        lying: jax.Array = jax.lax.with_sharding_constraint(x, sharding)  # type: ignore[no-untyped-call]
        return lying


_FREE = (PartitionSpec.UNCONSTRAINED, PartitionSpec.UNCONSTRAINED)


def _exchanged(x: jax.Array, names: Names, split: int, joined: int) -> jax.Array:
    """Send the parts of x along one axis to the devices along these axes of the mesh, and join the
    parts that they send along another."""
    # Of a concatenated x, XLA for CPU would exchange the pieces one by one, in several layouts, and
    # then refuse that.
    x = lax.optimization_barrier(x)  # type: ignore[no-untyped-call]
    made: jax.Array = lax.all_to_all(x, names, split, joined, tiled=True)  # type: ignore[no-untyped-call]
    return made


# -- for functions by columns ----------------------------------------------------------------------


def summed(x: jax.Array, over: Names) -> jax.Array:
    """The sum of x over the devices along these axes of a mesh."""
    total: jax.Array = lax.psum(x, over) if over else x  # type: ignore[no-untyped-call]
    return total


def lengths(x: jax.Array, over: Names) -> Norm:
    """The norm of each matrix, whose columns are divided among these axes of a mesh."""
    own = norm_over(x, (1, 2))
    return norm_over(lax.all_gather(own.value, over, axis=1, tiled=True), 1) if over else own
