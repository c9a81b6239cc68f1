"""Flattening: the one place that knows about tree structure, absent leaves and paths."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from gradtx.core.dtypes import is_inexact


def _is_absent(x: Any) -> bool:
    return x is None


def flatten(tree: Any) -> tuple[list[Any], Any]:
    """Leaves and structure; None is a leaf that is absent."""
    return jax.tree.flatten(tree, is_leaf=_is_absent)


def key_paths(tree: Any) -> list[Any]:
    """The keys by which each leaf is reached, as JAX has them."""
    return [path for path, _ in jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_absent)[0]]


def is_function(x: Any) -> bool:
    """Whether x is to be called, where it may be a tree or a function that makes one. A module, as
    of Equinox, can be called and is a tree."""
    return callable(x) and (isinstance(x, jax.tree_util.Partial) or jax.tree_util.all_leaves([x]))


def paths(tree: Any) -> list[str]:
    """The path of each leaf, `encoder/0/kernel`."""
    return [shown(keys) for keys in _named_keys(tree)]


def shown(keys: Any) -> str:
    """Keys as a path, `encoder/0/kernel`."""
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def _named_keys(tree: Any) -> list[tuple[Any, ...]]:
    """The keys of each leaf, without the one by which a box of flax holds what is in it: the user
    of `nnx.Param` or `nn.Partitioned` has named the box."""
    boxes = _box_classes()

    def ends(x: Any) -> bool:
        return x is None or isinstance(x, boxes)

    def below(path: tuple[Any, ...], x: Any) -> list[tuple[Any, ...]]:
        if not isinstance(x, boxes):
            return [path]
        held = jax.tree_util.tree_flatten_with_path(x, is_leaf=lambda y: y is not x)[0]
        return [path + rest for _, y in held for rest in _named_keys(y)]

    entries = jax.tree_util.tree_flatten_with_path(tree, is_leaf=ends)[0]
    return [found for path, x in entries for found in below(path, x)]


def _box_classes() -> tuple[type, ...]:
    """The classes of flax, where it is imported, that stand around one value of a tree."""
    modules = (sys.modules.get(name) for name in ("flax.core.meta", "flax.nnx"))
    names = ("AxisMetadata", "Variable", "VariableState")
    found = (vars(module).get(name) for module in modules if module for name in names)
    return tuple(x for x in found if isinstance(x, type))


@dataclass(frozen=True)
class Leaves:
    """A flattened tree. `values[i]` is an array, or None where the tree has no leaf."""

    treedef: Any
    values: list[Any]

    @classmethod
    def of(cls, tree: Any) -> Leaves:
        """Of a tree."""
        values, treedef = flatten(tree)
        return cls(treedef, values)

    @cached_property
    def paths(self) -> list[str]:
        """The path of each leaf."""
        return paths(self.tree(range(len(self.values))))

    @cached_property
    def key_paths(self) -> list[Any]:
        """The keys by which each leaf is reached."""
        return key_paths(self.tree(range(len(self.values))))

    @cached_property
    def memo(self) -> dict[Any, Any]:
        """What was found out about this tree, by who asked: several masks share it."""
        return {}

    def tree(self, values: Iterable[Any]) -> Any:
        """These values in this structure."""
        return jax.tree.unflatten(self.treedef, values)


def at(path: str) -> str:
    """How an error says where it happened."""
    return f"at {path}" if path else "at the root"


def words_of(keys: Any, purpose: str = "") -> tuple[np.uint32, np.uint32]:
    """Two words from which the random numbers of a leaf are made: 64 bits of a hash of its keys.

    They do not depend on what else the tree holds. Keys that differ in anything give other words,
    those of `{"a/b": x}` than of `{"a": {"b": x}}`, of `{"0": x}` than of `[x]`; so do different
    purposes. That any two of a million leaves share theirs has a probability of 3e-8.
    """
    text = jax.tree_util.keystr(keys).encode()
    digest = hashlib.blake2b(text, digest_size=8, person=purpose.encode()).digest()
    first, second = np.frombuffer(digest, "<u4").astype(np.uint32)
    return first, second


def describe(x: Any) -> str:
    """float32[3,2]"""
    if not hasattr(x, "dtype"):
        kind = type(x).__name__
        return f"{x!r} ({kind})" if isinstance(x, int | float | complex | str) else f"a {kind}"
    return f"{x.dtype}[{','.join(map(str, np.shape(x)))}]"


def children(node: Any) -> tuple[dict[Any, Any], Any]:
    """What a container holds, by key, and the container itself without it."""
    entries, treedef = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    return dict(entries), treedef


def spread(treedef: Any, tree: Any) -> Any:
    """The tree with a node that marks a whole branch as left out, as a mask that is a prefix does
    in Optax, on each leaf of that branch."""
    if isinstance(tree, tuple) and getattr(tree, "_fields", None) == ():
        return jax.tree.unflatten(treedef, [tree] * treedef.num_leaves)
    like, _ = children(jax.tree.unflatten(treedef, range(treedef.num_leaves)))
    held, outer = children(tree)
    if like.keys() != held.keys() or () in like:
        return tree
    parts = dict(zip(like, treedef.children(), strict=True))
    return jax.tree.unflatten(outer, [spread(parts[key], x) for key, x in held.items()])


def align(leaves: Leaves, tree: Any, what: str, other: str = "the updates") -> list[Any]:
    """The parts of `tree` at each leaf of `leaves`; `what` and `other` name them in the error."""
    for spread_out in (False, True):
        try:
            return leaves.treedef.flatten_up_to(
                spread(leaves.treedef, tree) if spread_out else tree
            )
        except ValueError:
            pass
    mine, theirs = dict.fromkeys(leaves.paths), dict.fromkeys(paths(tree))
    missing = [p for p in mine if p not in theirs]
    surplus = [p for p in theirs if p not in mine]
    differences = [f"{p or 'the root'} is in {other} only" for p in missing[:3]]
    differences += [f"{p or 'the root'} is in {what.split(': ')[-1]} only" for p in surplus[:3]]
    raise ValueError(
        f"{what} and {other} differ in structure: "
        + ("; ".join(differences) or "the containers are of different types")
        + ". Both must be trees like the params that init was given, with None for an absent leaf"
    )


def aligned_arrays(leaves: Leaves, tree: Any, what: str) -> list[Any]:
    """The arrays of `tree` at each leaf; one of another shape is refused by path."""
    aligned = align(leaves, tree, what)
    for i, (x, y) in enumerate(zip(leaves.values, aligned, strict=True)):
        if x is not None and np.shape(x) != np.shape(y):
            where, name = what.split(": ", 1)
            raise ValueError(
                f"{where}: {at(leaves.paths[i])}: updates {describe(x)} do not fit "
                f"{name}, {describe(y)}"
            )
    return aligned


def map_leaves(where: str, function: Callable[[Any], Any], tree: Any) -> Any:
    """The function of every array of a tree; a ValueError in it says at which leaf."""
    leaves = Leaves.of(tree)

    def at_leaf(i: int, x: Any) -> Any:
        try:
            return None if x is None else function(x)
        except ValueError as error:
            raise ValueError(f"{where}: {at(leaves.paths[i])} ({describe(x)}): {error}") from error

    return leaves.tree(at_leaf(i, x) for i, x in enumerate(leaves.values))


def check_arrays(leaves: Leaves, where: str, shapes_too: bool = False) -> list[Any]:
    """The leaves as arrays; what is no array is refused by path. shapes_too: a ShapeDtypeStruct
    is let through as it is."""
    return [
        x
        if x is None or (shapes_too and is_shape(x))
        else _array(x, lambda i=i: f"{where}: {at(leaves.paths[i])}")
        for i, x in enumerate(leaves.values)
    ]


def is_array_or_number(x: Any) -> bool:
    """Whether x is one leaf to compute with: not a tree, not a string."""
    known = hasattr(x, "dtype") or hasattr(x, "__jax_array__")
    return known or isinstance(x, int | float | complex)


def is_shape(x: Any) -> bool:
    """Whether x is the shape and dtype of an array without its values."""
    return isinstance(x, jax.ShapeDtypeStruct)


@contextmanager
def values_needed(where: str, params: Iterable[Any]) -> Iterator[None]:
    """Say so if an init fails because it was given shapes and needs values."""
    try:
        yield
    except (TypeError, AttributeError) as error:
        if not any(map(is_shape, params)):
            raise
        raise TypeError(
            f"{where}: its init computes with the values of the parameters and was given only "
            "their shapes. For the shapes of the state call jax.eval_shape(tx.init, params)"
        ) from error


def check_floating(leaves: Leaves, values: list[Any], where: str) -> None:
    """Refuse, by path, an array that has no gradient. None stands for a leaf that is left out."""
    for i, x in enumerate(values):
        if x is not None and not is_inexact(x):
            raise TypeError(
                f"{where}: {at(leaves.paths[i])}: {describe(x)} has no gradient to transform. "
                "Leave it out (None in its place), or mask it with masked(...)"
            )


def _array(x: Any, where: Any) -> Any:
    if isinstance(x, np.ndarray) and x.dtype == jax.dtypes.float0:
        return x
    if isinstance(x, jax.Array):
        return x
    if isinstance(x, np.ndarray | np.generic) or hasattr(x, "__jax_array__"):
        return jax.numpy.asarray(x)
    if isinstance(x, float | complex) and not isinstance(x, bool):
        return jax.numpy.asarray(x)
    raise TypeError(f"{where()}: expected an array, got {describe(x)}")
