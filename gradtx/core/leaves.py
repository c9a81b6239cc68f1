"""Flattening: the only place that knows about tree structure, absent leaves and key paths."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeGuard

import jax
import numpy as np
from jax.tree_util import DictKey, GetAttrKey, PyTreeDef, SequenceKey

from gradtx.core.dtypes import is_inexact
from gradtx.core.printing import a_or_an

# A path to a leaf, as JAX's keys.
KeyPath = tuple[Any, ...]


def _is_absent(x: object) -> bool:
    return x is None


def flatten(tree: Any) -> tuple[list[Any], PyTreeDef]:
    """Leaves and structure. None is a leaf: an absent one."""
    return jax.tree.flatten(tree, is_leaf=_is_absent)


def key_paths(tree: Any) -> list[KeyPath]:
    """The key path of each leaf."""
    return [path for path, _ in jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_absent)[0]]


def is_function(x: Any) -> bool:
    """Whether x is a function, where either a tree or a function that makes one may be given. A
    callable that is itself a tree, such as an Equinox module, is not."""
    return callable(x) and (isinstance(x, jax.tree_util.Partial) or jax.tree_util.all_leaves([x]))


def paths(tree: Any) -> list[str]:
    """The path of each leaf as it is printed, `encoder/0/kernel`."""
    return [shown(keys) for keys in _named_keys(tree)]


def shown(keys: KeyPath) -> str:
    """A key path as it is printed, `encoder/0/kernel`."""
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def value_at(tree: Any, keys: KeyPath) -> Any:
    """The node of a tree at a key path."""
    for key in keys:
        match key:
            case GetAttrKey():
                tree = getattr(tree, key.name)
            case SequenceKey():
                tree = tree[key.idx]
            case DictKey():
                tree = tree[key.key]
            case _:
                tree = children(tree)[0][(key,)]
    return tree


def unboxed(tree: Any) -> Any:
    """The tree with Flax's boxes replaced by the values in them."""
    boxes = _box_classes()

    def value(x: Any) -> Any:
        return unboxed(jax.tree.leaves(x)[0]) if isinstance(x, boxes) else x

    return jax.tree.map(value, tree, is_leaf=lambda x: isinstance(x, boxes)) if boxes else tree


def _named_keys(tree: Any) -> list[KeyPath]:
    """The key path of each leaf, without the key that leads into a Flax box (`nnx.Param`,
    `nn.Partitioned`): users know a boxed parameter by the name of its box."""
    boxes = _box_classes()

    def ends(x: object) -> bool:
        return x is None or isinstance(x, boxes)

    def below(path: KeyPath, x: Any) -> list[KeyPath]:
        if not isinstance(x, boxes):
            return [path]
        held = jax.tree_util.tree_flatten_with_path(x, is_leaf=lambda y: y is not x)[0]
        return [path + rest for _, y in held for rest in _named_keys(y)]

    entries = jax.tree_util.tree_flatten_with_path(tree, is_leaf=ends)[0]
    return [found for path, x in entries for found in below(path, x)]


def _box_classes() -> tuple[type, ...]:
    """Flax's classes that wrap one value of a tree; none if Flax has not been imported."""
    modules = (sys.modules.get(name) for name in ("flax.core.meta", "flax.nnx"))
    names = ("AxisMetadata", "Variable", "VariableState")
    found = (vars(module).get(name) for module in modules if module for name in names)
    return tuple(x for x in found if isinstance(x, type))


@dataclass(frozen=True)
class Leaves:
    """A flattened tree. `values[i]` is an array, or None where a leaf is absent."""

    treedef: PyTreeDef
    values: list[Any]

    @classmethod
    def of(cls, tree: Any) -> Leaves:
        """Flatten a tree."""
        values, treedef = flatten(tree)
        return cls(treedef, values)

    @cached_property
    def paths(self) -> list[str]:
        """The path of each leaf as it is printed."""
        return paths(self.tree(range(len(self.values))))

    @cached_property
    def kinds(self) -> list[str]:
        """The path of each leaf without numbers, which is the same for that leaf of every layer."""
        return [re.sub(r"\d+", "", path) for path in self.paths]

    @cached_property
    def key_paths(self) -> list[KeyPath]:
        """The key path of each leaf."""
        return key_paths(self.tree(range(len(self.values))))

    @cached_property
    def memo(self) -> dict[Hashable, Any]:
        """Results computed from this tree, keyed by what computed them: several masks share it."""
        return {}

    def tree(self, values: Iterable[Any]) -> Any:
        """A tree of this structure with these leaves."""
        return jax.tree.unflatten(self.treedef, values)


def at(path: str) -> str:
    """A path as errors mention it: "at encoder/0/kernel"."""
    return f"at {path}" if path else "at the root"


def path_words(keys: KeyPath, purpose: str = "") -> tuple[np.uint32, np.uint32]:
    """Two words to seed the random numbers of a leaf: 64 bits of a hash of its key path.

    They do not depend on the rest of the tree. Key paths that differ at all have different words,
    such as those in `{"a/b": x}` and `{"a": {"b": x}}`, or in `{"0": x}` and `[x]`; so do different
    purposes. The probability that any two of a million leaves share their words is 3e-8.
    """
    text = jax.tree_util.keystr(keys).encode()
    digest = hashlib.blake2b(text, digest_size=8, person=purpose.encode()).digest()
    first, second = np.frombuffer(digest, "<u4").astype(np.uint32)
    return first, second


def describe(x: Any) -> str:
    """How errors mention an array, `float32[3,2]`, or anything else."""
    if not hasattr(x, "dtype"):
        kind = type(x).__name__
        return f"{x!r} ({kind})" if isinstance(x, int | float | complex | str) else a_or_an(kind)
    return f"{x.dtype}[{','.join(map(str, np.shape(x)))}]"


def children(node: Any) -> tuple[dict[KeyPath, Any], PyTreeDef]:
    """The direct children of a container, by key path, and the structure that holds them."""
    entries, treedef = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    return dict(entries), treedef


def spread(treedef: PyTreeDef, tree: Any) -> Any:
    """The tree with each node that hides a whole branch (Optax leaves one where a mask is a tree
    prefix) repeated for every leaf of that branch."""
    if isinstance(tree, tuple) and getattr(tree, "_fields", None) == ():
        return jax.tree.unflatten(treedef, [tree] * treedef.num_leaves)
    like, _ = children(jax.tree.unflatten(treedef, range(treedef.num_leaves)))
    held, outer = children(tree)
    if like.keys() != held.keys() or () in like:
        return tree
    parts = dict(zip(like, treedef.children(), strict=True))
    return jax.tree.unflatten(outer, [spread(parts[key], x) for key, x in held.items()])


def align(leaves: Leaves, tree: Any, what: str, other: str = "the updates") -> list[Any]:
    """The subtree of `tree` at each leaf of `leaves`; `what` and `other` name the two in errors."""
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
    """Like `align`, for a tree whose arrays must have the shapes of the leaves."""
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
    """The function applied to every array of a tree; a ValueError in it gets the leaf's path."""
    leaves = Leaves.of(tree)

    def at_leaf(i: int, x: Any) -> Any:
        try:
            return None if x is None else function(x)
        except ValueError as error:
            raise ValueError(f"{where}: {at(leaves.paths[i])} ({describe(x)}): {error}") from error

    return leaves.tree(at_leaf(i, x) for i, x in enumerate(leaves.values))


def check_arrays(leaves: Leaves, where: str, shapes_too: bool = False) -> list[Any]:
    """The leaves as arrays, None where absent; anything else is an error with the leaf's path.

    shapes_too: a `ShapeDtypeStruct` is accepted as it is.
    """
    return [
        x if x is None or (shapes_too and is_shape(x)) else _array(x, leaves, i, where)
        for i, x in enumerate(leaves.values)
    ]


def is_array_or_number(x: object) -> bool:
    """Whether x is a single leaf that can be computed with, rather than a tree or a string."""
    known = hasattr(x, "dtype") or hasattr(x, "__jax_array__")
    return known or isinstance(x, int | float | complex)


def is_shape(x: object) -> TypeGuard[jax.ShapeDtypeStruct]:
    """Whether x has the shape and dtype of an array but no values."""
    return isinstance(x, jax.ShapeDtypeStruct)


@contextmanager
def values_needed(where: str, params: Iterable[Any]) -> Iterator[None]:
    """Explain the error if an init fails because it was given shapes and needs values."""
    try:
        yield
    except (TypeError, AttributeError) as error:
        if not any(map(is_shape, params)):
            raise
        raise TypeError(
            f"{where}: its init computes with the values of the parameters and was given only "
            "their shapes. For the shapes of the state call jax.eval_shape(tx.init, params)"
        ) from error


def check_floating(leaves: Leaves, values: Sequence[Any], where: str) -> None:
    """Refuse an array that is neither floating nor complex, with its path; None is let through."""
    for i, x in enumerate(values):
        if x is not None and not is_inexact(x):
            raise TypeError(
                f"{where}: {at(leaves.paths[i])}: {describe(x)} has no gradient to transform. "
                "Leave it out (None in its place), or mask it with masked(...)"
            )


def _array(x: Any, leaves: Leaves, i: int, where: str) -> jax.Array | np.ndarray:
    """Leaf i as an array. A gradient of dtype float0, which no JAX array has, stays NumPy's."""
    if isinstance(x, np.ndarray) and x.dtype == jax.dtypes.float0:
        return x
    if isinstance(x, jax.Array):
        return x
    if isinstance(x, np.ndarray | np.generic) or hasattr(x, "__jax_array__"):
        return jax.numpy.asarray(x)
    if isinstance(x, float | complex) and not isinstance(x, bool):
        return jax.numpy.asarray(x)
    raise TypeError(f"{where}: {at(leaves.paths[i])}: expected an array, got {describe(x)}")
