"""Find and replace values in states by name, and map over copies of the params."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import jax

from gradtx.core.state import is_named_tuple
from gradtx.tree.types import Tree

__all__ = ["NamedTupleKey", "get", "get_all_with_path", "map_params", "set"]

KeyPath = tuple[Any, ...]
Filter = Callable[[KeyPath, Any], bool]


@dataclass(frozen=True)
class NamedTupleKey:
    """An entry of a path into a NamedTuple: the names of its class and of the field."""

    tuple_name: str
    name: str

    def __str__(self) -> str:
        return f"{self.tuple_name}.{self.name}"


def get_all_with_path(
    tree: Tree, key: Hashable, filtering: Filter | None = None
) -> list[tuple[KeyPath, Any]]:
    """All (path, value) pairs whose value is called `key`.

    A value is called by the field or the dict key that holds it, and a NamedTuple by its class too.
    A path is a tuple of JAX's keys, with `NamedTupleKey(tuple_name, name)` for a field of a
    NamedTuple; `jax.tree_util.keystr` prints it. A node's own children come before anything
    deeper. filtering(path, value): whether to keep a pair.
    """
    return [
        (path, value)
        for path, value in _called(key, (), tree)
        if filtering is None or filtering(path, value)
    ]


def get(tree: Tree, key: Hashable, default: Any = None, filtering: Filter | None = None) -> Any:
    """The value called `key`, as in `get_all_with_path`; the default if there is none.

    Raises: KeyError if there are several, with their paths.
    """
    found = get_all_with_path(tree, key, filtering)
    if len(found) > 1:
        paths = [jax.tree_util.keystr(path) for path, _ in found]
        raise KeyError(
            f"tree.get: there are {len(found)} values called {key!r}, at {', '.join(paths)}: "
            "choose one with filtering=lambda path, value: ..., where path[-1] says which tuple "
            "(path[-1].tuple_name) or by tree.get_all_with_path"
        )
    return found[0][1] if found else default


def set(tree: Tree, filtering: Filter | None = None, /, **kwargs: Any) -> Tree:
    """The tree with every value that has one of these names replaced: `set(state, count=0)`.

    Names and filtering are as in `get_all_with_path`.

    Raises: KeyError for a name that is not there.
    """
    for key in kwargs:
        if not get_all_with_path(tree, key, filtering):
            chosen = "" if filtering is None else " that the filter keeps"
            raise KeyError(f"tree.set: there is no value called {key!r}{chosen}")

    def replaced(path: KeyPath, node: Tree) -> Tree:
        for key, new in kwargs.items():
            if _is_called(key, path, node) and (filtering is None or filtering(path, node)):
                return new
        children, treedef = _children(node)
        if treedef is None:
            return node
        new_children = [replaced((*path, entry), child) for entry, child in children]
        return jax.tree.unflatten(treedef, new_children)

    return replaced((), tree)


def _called(key: Hashable, path: KeyPath, node: Tree) -> Iterator[tuple[KeyPath, Any]]:
    """What is called `key` in this node: its own children first, then what lies below them."""
    if _is_of_class(key, node) and not _is_at(key, path):
        yield path, node
    children = [((*path, entry), child) for entry, child in _children(node)[0]]
    yield from (found for found in children if _is_at(key, found[0]))
    for below, child in children:
        yield from _called(key, below, child)


def _children(node: Tree) -> tuple[list[tuple[Any, Tree]], Any]:
    """The (key, child) pairs of a node, and its structure; for a leaf, none and None."""
    entries, treedef = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    if entries and not entries[0][0]:
        return [], None
    children = [(path[0], child) for path, child in entries]
    if is_named_tuple(node):
        name = type(node).__name__
        children = [
            (NamedTupleKey(name, field), child)
            for field, (_, child) in zip(node._fields, children, strict=True)
        ]
    return children, treedef


def _is_called(key: Hashable, path: KeyPath, node: Tree) -> bool:
    return _is_of_class(key, node) or _is_at(key, path)


def _is_of_class(key: Hashable, node: Tree) -> bool:
    return is_named_tuple(node) and type(node).__name__ == key


def _is_at(key: Hashable, path: KeyPath) -> bool:
    match path[-1] if path else None:
        case NamedTupleKey(name=name) | jax.tree_util.GetAttrKey(name=name):
            return bool(name == key)
        case jax.tree_util.DictKey(key=name):
            return bool(name == key)
    return False


class _Placeholder:
    """Stands for all params while a state is made, so that they can be found in it."""


jax.tree_util.register_pytree_node(
    _Placeholder, lambda placeholder: ((), None), lambda aux, children: _Placeholder()
)


def map_params(
    initable: Any,
    f: Callable[..., Any],
    state: Tree,
    /,
    *rest: Tree,
    transform_non_params: Callable[..., Any] | None = None,
    is_leaf: Callable[[Any], bool] | None = None,
) -> Tree:
    """The state with f applied to the leaves of every copy of the params in it.

    initable: the transformation that made the state, or its init. rest: trees shaped like the
    params, such as their shardings, whose leaves f gets too. transform_non_params: applied to all
    other leaves, such as counts. is_leaf: as in `jax.tree.map`, for params with `MaskedNode()`.
    """
    init = initable.init if hasattr(initable, "init") else initable

    def is_placeholder(x: object) -> bool:
        return isinstance(x, _Placeholder)

    def mapped(placed: Any, value: Tree) -> Tree:
        if is_placeholder(placed):
            return jax.tree.map(f, value, *rest, is_leaf=is_leaf)
        return value if transform_non_params is None else transform_non_params(value)

    return jax.tree.map(mapped, init(_Placeholder()), state, is_leaf=is_placeholder)
