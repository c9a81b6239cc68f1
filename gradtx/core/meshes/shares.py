"""A step of many leaves on a mesh, in which each device takes its share of the leaves.

For a rule that multiplies a leaf by matrices of its state, and these by each other, XLA would
gather all of them on every device. Here each device is sent some whole leaves with their state, in
one exchange for all arrays that are divided alike, makes the step of these leaves, and sends the
results back. The state lies as before.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec
from jax.tree_util import PyTreeDef

from gradtx.core.batches import LARGEST
from gradtx.core.holding import traced_apart
from gradtx.core.leaves import Leaves
from gradtx.core.meshes.manual import untyped
from gradtx.core.meshes.partitioned import (
    Arrays,
    Division,
    Names,
    Sizes,
    mesh_of,
    number_of,
    on_one_device,
    run_on_shards,
)
from gradtx.core.meshes.placing import kept_like, parted_spec
from gradtx.core.meshes.told import told
from gradtx.core.state import Updates

# A function of updates, the rule's state, and what else belongs to each leaf that has an update.
Update = Callable[[Updates, Any, Sequence[Any]], tuple[Updates, Any]]
# What one leaf has: its update and its part of each field of the state, before a step or after.
Leaf = tuple[Any, ...]
Pair = tuple[Leaf, Any]  # a leaf and what else belongs to it


def in_shares(
    update: Update,
    updates: Updates,
    state: Any,
    fields: Sequence[str],
    beside: Sequence[Any] | None = None,
) -> tuple[Updates, Any]:
    """update(updates, state, beside), of which each device of a mesh computes its share of leaves.

    fields: the names of those fields of the state, a NamedTuple, that are trees like the updates,
    with an array or any tree per leaf; the new values of the others must not depend on the leaves.
    beside: an array for each leaf, or None if the update needs nothing else.
    """
    grads, structure = jax.tree.flatten(updates)
    given: list[Any] = [()] * len(grads) if beside is None else list(beside)
    tree = _Tree(structure, [name for name in fields if getattr(state, name) is not None])
    leaves = tree.leaves(updates, state)
    groups: dict[Any, list[int]] = {}
    for i, leaf in enumerate(leaves):
        if _has_matrices(leaf):
            groups.setdefault(_kind(leaf), []).append(i)
    several = [own for own in groups.values() if len(own) > 1 or _size(leaves[own[0]]) <= LARGEST]
    shared = sorted(itertools.chain(*several))
    mesh = mesh_of(grads)
    if mesh is None:
        return update(updates, state, given)

    def step(chosen: Sequence[int], old: Sequence[Leaf], beside: Sequence[Any]) -> Any:
        """The new leaves for the chosen ones, and the new state."""
        made = update(*tree.of(dict(zip(chosen, old, strict=True)), state), beside)
        return _Tree(tree.only(chosen), tree.fields).leaves(*made), made[1]

    rest = [i for i in range(len(grads)) if i not in {*shared}]
    new, others = step(rest, [leaves[i] for i in rest], [given[i] for i in rest])
    new = [_lying_like(x, leaves[i]) for x, i in zip(new, rest, strict=True)]

    def together(pairs: Sequence[Pair]) -> list[Leaf]:
        made: list[Leaf] = step(shared, *zip(*pairs, strict=True))[0]
        return made

    def alone(i: int, pair: Pair) -> Leaf:
        (made,), _ = step([i], *zip(pair, strict=True))
        own: Leaf = made
        return own

    pairs = [(leaves[i], given[i]) for i in shared]
    alike = [
        _Alike.of(functools.partial(alone, own[0]), [shared.index(i) for i in own], pairs)
        for own in several
    ]
    named = Leaves.of(updates)
    specs = [s for s, x in zip(told(named), named.values, strict=True) if x is not None]
    lying = [spec for i in shared for spec in _specs(leaves[i], specs[i], mesh)]
    made = _on(mesh, together, alike, pairs, lying) if pairs else []
    found = dict(zip(rest + shared, [*new, *made], strict=True))
    return tree.of(found, others)


class _Tree(NamedTuple):
    """Turns updates and some fields of a state into a tuple for each leaf, and back."""

    structure: PyTreeDef
    fields: list[str]

    def leaves(self, updates: Updates, state: Any) -> list[Leaf]:
        """The tuples."""
        trees = (updates, *(getattr(state, name) for name in self.fields))
        columns = [self.structure.flatten_up_to(x) for x in trees]
        return list(zip(*columns, strict=True))

    def of(self, leaves: dict[int, Leaf], state: Any) -> tuple[Updates, Any]:
        """The inverse, for some leaves by index, with the other fields of a state."""
        nothing = (None,) * (len(self.fields) + 1)
        every = [leaves.get(i, nothing) for i in range(self.structure.num_leaves)]
        columns = [[leaf[k] for leaf in every] for k in range(len(nothing))]
        updates, *values = (jax.tree.unflatten(self.structure, column) for column in columns)
        return updates, state._replace(**dict(zip(self.fields, values, strict=True)))

    def only(self, chosen: Sequence[int]) -> PyTreeDef:
        """The structure with these leaves alone."""
        flags = [True if i in chosen else None for i in range(self.structure.num_leaves)]
        return jax.tree.structure(jax.tree.unflatten(self.structure, flags))


def _lying_like(new: Leaf, old: Leaf) -> Leaf:
    """A leaf that XLA computed, with its state placed where the old state lies."""

    def there(x: Any, like: Any) -> Any:
        return kept_like(x, like) if x.shape == like.shape else x

    state = [jax.tree.map(there, x, y) for x, y in zip(new[1:], old[1:], strict=True)]
    return (new[0], *state)


def _has_matrices(leaf: Leaf) -> bool:
    """Whether a field that holds a tree, not just an array, has a matrix in it."""
    fields = [jax.tree.leaves(x) for x in leaf if not hasattr(x, "shape")]
    return any(np.ndim(x) > 1 for own in fields for x in own)


def _specs(leaf: Leaf, spec: PartitionSpec | None, mesh: Any) -> list[PartitionSpec | None]:
    """How the arrays of a leaf are divided, if it is divided as spec says: those of its shape like
    it, and matrices as their own shape decides."""

    def one(x: Any) -> Any:
        return jax.tree.map(lambda array: parted_spec(array.shape, mesh), x)

    if spec is None:
        return [None] * len(jax.tree.leaves(leaf))
    like = leaf[0].shape
    found = (spec if getattr(x, "shape", None) == like else one(x) for x in leaf)
    return jax.tree.leaves(list(found), is_leaf=lambda x: isinstance(x, PartitionSpec))


def _size(leaf: Leaf) -> int:
    return sum(x.size for x in jax.tree.leaves(leaf))


def _kind(leaf: Leaf) -> Any:
    arrays, structure = jax.tree.flatten(leaf)
    return structure, tuple((x.shape, np.dtype(x.dtype)) for x in arrays)


class _Alike(NamedTuple):
    """Leaves whose arrays have equal shapes: their positions, and the step of one of them, a
    function of its pair and of consts, the traced arrays that it reads besides."""

    members: list[int]
    step: Callable[[Pair, Arrays], Leaf]
    consts: Arrays

    @classmethod
    def of(
        cls,
        step: Callable[[Pair], Leaf],
        members: list[int],
        pairs: Sequence[Pair],
    ) -> _Alike:
        """For the pairs at these positions."""
        shaped: Any = jax.ShapeDtypeStruct  # whole, wherever the array lies
        one = jax.tree.map(lambda x: shaped(np.shape(x), x.dtype), pairs[members[0]])
        with on_one_device():
            call, consts, _ = traced_apart(step, one)
        return cls(members, call, consts)

    def of_each(self, structure: PyTreeDef, consts: Arrays, arrays: Arrays, besides: Any) -> Arrays:
        """The step of many leaves, with a batch for each array of a leaf of this structure."""

        def one(arrays: Arrays, beside: Any) -> Arrays:
            return jax.tree.leaves(
                self.step((jax.tree.unflatten(structure, arrays), beside), known)
            )

        arrays, besides, known = untyped((arrays, besides, consts))
        return untyped(jax.vmap(one)(arrays, besides))


def _on(
    mesh: Any,
    step: Callable[[list[Pair]], list[Leaf]],
    alike: Sequence[_Alike],
    pairs: list[Pair],
    specs: Sequence[PartitionSpec | None],
) -> list[Leaf]:
    """step(pairs) on a mesh, where `alike` covers all pairs. specs: how each array is divided, as
    far as that is told."""
    flat = [jax.tree.flatten(leaf) for leaf, _ in pairs]
    ends = list(itertools.accumulate(len(arrays) for arrays, _ in flat))
    call, consts, _ = traced_apart(step, pairs)
    others, structure = jax.tree.flatten(
        (consts, [own.consts for own in alike], [beside for _, beside in pairs])
    )

    def by_leaf(values: Sequence[Any]) -> list[list[Any]]:
        pieces = itertools.pairwise([0, *ends])
        return [list(values[start:end]) for start, end in pieces]

    def whole(arrays: Arrays, others: Arrays) -> Arrays:
        consts, _, besides = jax.tree.unflatten(structure, others)
        leaves = [
            jax.tree.unflatten(of, own) for own, (_, of) in zip(by_leaf(arrays), flat, strict=True)
        ]
        made: Arrays = jax.tree.leaves(call(list(zip(leaves, besides, strict=True)), consts))
        return made

    def on_shards(
        shards: Arrays, others: Arrays, divisions: Sequence[Division], sizes: Sizes
    ) -> Arrays:
        _, every_consts, besides = jax.tree.unflatten(structure, others)
        own, divided = by_leaf(shards), by_leaf(divisions)
        made: list[Arrays] = [[] for _ in own]
        for group, consts in zip(alike, every_consts, strict=True):
            _, of = flat[group.members[0]]

            every = functools.partial(group.of_each, of, consts)
            for kind in {tuple(divided[i]) for i in group.members}:
                members = [i for i in group.members if tuple(divided[i]) == kind]
                share = Share.best(len(members), sizes)
                results = share.run(
                    every, [own[i] for i in members], [besides[i] for i in members], kind
                )
                for i, result in zip(members, results, strict=True):
                    made[i] = result
        return list(itertools.chain(*made))

    arrays = [x for own, _ in flat for x in own]
    results = run_on_shards(on_shards, whole, whole, arrays, others, mesh, specs)
    return [
        jax.tree.unflatten(of, own) for own, (_, of) in zip(by_leaf(results), flat, strict=True)
    ]


class Share(NamedTuple):
    """How the devices of a mesh divide a number of leaves among them.

    takers: the axes of the mesh along which each device takes different leaves. Along the others
    all do the same.
    """

    number: int
    sizes: Sizes
    takers: Names

    @classmethod
    def best(cls, number: int, sizes: Sizes) -> Share:
        """The one with the fewest leaves per device, unless it sends far more leaves than exist."""
        names = [name for name in sizes if sizes[name] > 1]
        subsets = [
            cls(number, sizes, own)
            for k in range(len(names) + 1)
            for own in itertools.combinations(names, k)
        ]
        return min(subsets, key=lambda own: own.each * (1 + 0.25 * own.devices / number))

    @property
    def devices(self) -> int:
        """The number of devices among which the leaves are divided."""
        return number_of(self.takers, self.sizes)

    @property
    def each(self) -> int:
        """How many leaves a device takes."""
        return -(-self.number // self.devices)

    def run(
        self,
        step: Callable[[Arrays, Any], Arrays],
        leaves: Sequence[Arrays],
        besides: Sequence[Any],
        divisions: Sequence[Division],
    ) -> list[Arrays]:
        """A device's shards of the results of a step, for each leaf, from its shards before."""
        moves = [_Move.of(division, self) for division in divisions]
        stacked = [self._stacked(own) for own in zip(*leaves, strict=True)]
        parts = [move.taken(x) for move, x in zip(moves, stacked, strict=True)]
        parts = _exchanged(parts, moves)
        wholes = [move.assembled(x) for move, x in zip(moves, parts, strict=True)]
        nowhere = _Move.of(Division(), self)
        beside = jax.tree.map(lambda *xs: nowhere.taken(self._stacked(xs)), *besides)
        made = step(wholes, beside)
        parts = [move.cut(x) for move, x in zip(moves, made, strict=True)]
        parts = _exchanged(parts, moves)
        back = [move.returned(x) for move, x in zip(moves, parts, strict=True)]
        return [[x[i] for x in back] for i in range(self.number)]

    def _stacked(self, arrays: Sequence[jax.Array]) -> jax.Array:
        """The arrays, one for each leaf, stacked, with zeros where some devices have no leaf."""
        x = jnp.stack(arrays)
        missing = self.devices * self.each - self.number
        return jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) if missing else x


class _Move(NamedTuple):
    """How an array that each of some leaves has is moved, whole, to the devices that take these
    leaves, and back.

    sent: the axes of the mesh that divide it, along which devices take different leaves; copied:
    those that do not divide it, along which devices take different leaves; gathered: those that
    divide it, along which all devices take the same leaves.
    """

    division: Division
    share: Share
    sent: Names
    copied: Names
    gathered: Names

    @classmethod
    def of(cls, division: Division, share: Share) -> _Move:
        """For an array of each leaf that is divided so."""
        names, takers = division.names, share.takers
        return cls(
            division,
            share,
            sent=tuple(name for name in names if name in takers),
            copied=tuple(name for name in takers if name not in names),
            gathered=tuple(name for name in names if name not in takers),
        )

    def taken(self, x: jax.Array) -> jax.Array:
        """From a shard for each leaf, the shards of those leaves that the devices along `sent`
        take, one device after the other."""
        takers, shape = self.share.takers, x.shape[1:]
        x = x.reshape(*self._lengths(takers), self.share.each, *shape)
        order = [takers.index(name) for name in self.copied + self.sent]
        x = x.transpose(order + list(range(len(order), x.ndim)))
        return self._own(x.reshape(self._number(self.copied), -1, *shape), self.copied)

    def returned(self, x: jax.Array) -> jax.Array:
        """The inverse, for what comes back."""
        takers, shape = self.share.takers, x.shape[1:]
        if self.copied:
            x = lax.all_gather(x, self.copied)
        from_all = self.copied + self.sent
        x = x.reshape(*self._lengths(from_all), self.share.each, *shape)
        order = [from_all.index(name) for name in takers]
        return x.transpose(order + list(range(len(order), x.ndim))).reshape(-1, *shape)

    def assembled(self, x: jax.Array) -> jax.Array:
        """Whole arrays, from the parts that came from the devices along `sent`."""
        if self.gathered:
            x = lax.all_gather(x, self.gathered)
        arrived, shape = self.gathered + self.sent, x.shape[1 + bool(self.gathered) :]
        x = x.reshape(*self._lengths(arrived), self.share.each, *shape).transpose(self._order)
        lengths = self.division.whole(shape, self.share.sizes)
        return x.reshape(self.share.each, *lengths)

    def cut(self, x: jax.Array) -> jax.Array:
        """The inverse: the parts that go back."""
        lengths = [x.shape[0]]
        for n, names in zip(x.shape[1:], self.division, strict=True):
            lengths += [*self._lengths(names), n // self._number(names)]
        back = sorted(range(len(self._order)), key=self._order.__getitem__)
        x = x.reshape(lengths).transpose(back)
        arrived = len(self.gathered + self.sent)
        shape = x.shape[arrived + 1 :]
        return self._own(x.reshape(self._number(self.gathered), -1, *shape), self.gathered)

    @property
    def _order(self) -> list[int]:
        """The transposition from the axes along which parts arrived, leaves and a part's axes to
        leaves and, for each axis of a part, those that divide it and the axis itself."""
        arrived = self.gathered + self.sent
        order = [len(arrived)]
        for k, names in enumerate(self.division):
            order += [*map(arrived.index, names), len(arrived) + 1 + k]
        return order

    def _own(self, x: jax.Array, names: Names) -> jax.Array:
        """The element along the first axis that is this device's, by its place along `names`."""
        if not names:
            return x[0]
        index = lax.axis_index(names)
        own: jax.Array = lax.dynamic_index_in_dim(x, index, keepdims=False)
        return own

    def _lengths(self, names: Names) -> list[int]:
        return [self.share.sizes[name] for name in names]

    def _number(self, names: Names) -> int:
        return number_of(names, self.share.sizes)


def _exchanged(parts: Sequence[jax.Array], moves: Sequence[_Move]) -> Arrays:
    """The parts that other devices send, in one exchange for all arrays of one dtype that are sent
    along the same axes of the mesh."""
    made = list(parts)
    together: dict[Any, list[int]] = {}
    for i, (x, move) in enumerate(zip(parts, moves, strict=True)):
        if move.sent:
            together.setdefault((move.sent, np.dtype(x.dtype)), []).append(i)
    for (names, _), members in together.items():
        flat = [parts[i].reshape(len(parts[i]), -1) for i in members]
        joined = lax.optimization_barrier(jnp.concatenate(flat, axis=1))  # type: ignore[no-untyped-call]
        arrived = lax.all_to_all(joined, names, 0, 0, tiled=True)  # type: ignore[no-untyped-call]
        ends = np.cumsum([x.shape[1] for x in flat])[:-1]
        for i, x in zip(members, jnp.split(arrived, ends, axis=1), strict=True):
            made[i] = x.reshape(parts[i].shape)
    return made
