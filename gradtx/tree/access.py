"""Find and replace values in states by name, and map over copies of the params."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import jax

from gradtx.core.state import is_named_tuple
from gradtx.core.transformation import TransformationLike
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
    """Find all values with a given name in a tree, and their paths.

    A value has the name of the field or dict key that holds it, and a NamedTuple also that of its
    class. A node's own children come before anything deeper.

    Args:
        tree: any tree, usually the state of an optimizer.
        key: the name of a field, a dict key, or the name of a NamedTuple's class.
        filtering: a function (path, value) -> bool: whether to keep a pair. None keeps all.

    Returns: a list of pairs (path, value). A path is a tuple of JAX's keys, with
    `NamedTupleKey(tuple_name, name)` for a field of a NamedTuple; `jax.tree_util.keystr` prints
    it.

    Example:
        >>> state = gradtx.adam(gradtx.linear_schedule(1.0, 0.0, 10)).init(jnp.zeros(1))
        >>> for path, value in gradtx.tree.get_all_with_path(state, "count"):
        ...     print(path[-1], value)
        ScaleByAdamState.count 0
        ScaleByScheduleState.count 0

    See also: `tree.get`, `tree.set`.
    """
    return [
        (path, value)
        for path, value in _called(key, (), tree)
        if filtering is None or filtering(path, value)
    ]


def get(tree: Tree, key: Hashable, default: Tree = None, filtering: Filter | None = None) -> Tree:
    """Find the one value with a given name in a tree, or return the default if there is none.

    Args:
        tree: any tree, usually the state of an optimizer.
        key: the name of a field, a dict key, or the name of a NamedTuple's class.
        default: what is returned if nothing has this name.
        filtering: a function (path, value) -> bool, which says whether a value counts, as in
            `tree.get_all_with_path`. None takes all.

    Raises: KeyError if there are several, with their paths.

    Example:
        >>> tx = gradtx.chain(gradtx.clip(1.0), gradtx.adam(0.1))
        >>> state = tx.init({"w": jnp.zeros(2)})
        >>> gradtx.tree.get(state, "mu")
        {'w': Array([0., 0.], dtype=float32)}
        >>> gradtx.tree.get(state, "momentum", default="none")
        'none'

    See also: `tree.set`, `tree.get_all_with_path`.
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


def set(tree: Tree, filtering: Filter | None = None, /, **kwargs: Tree) -> Tree:
    """Replace every value in a tree that has one of these names.

    Args:
        tree: any tree, usually the state of an optimizer. It is not changed itself.
        filtering: a function (path, value) -> bool, which says whether a value counts, as in
            `tree.get_all_with_path`. None takes all.
        kwargs: the new values by name, `count=0`.

    Raises: KeyError for a name that is not there.

    Example:
        >>> state = gradtx.scale_by_adam().init(jnp.zeros(1))
        >>> state = gradtx.tree.set(state, count=jnp.asarray(1000))
        >>> print(state.count)
        1000

    See also: `tree.get`.
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
    initable: TransformationLike | Callable[[Tree], Tree],
    f: Callable[..., Tree],
    state: Tree,
    /,
    *rest: Tree,
    transform_non_params: Callable[[Tree], Tree] | None = None,
    is_leaf: Callable[[Tree], bool] | None = None,
) -> Tree:
    """Map a function over the leaves of every copy of the params in a state.

    For treating moments like the parameters themselves, for example to derive the sharding of a
    whole state from that of the params. In the top module it is called
    `gradtx.tree_map_params`, as in Optax.

    Args:
        initable: the transformation that made the state, or its init.
        f: the function of a leaf, and of the same leaf of each tree in rest.
        state: the state.
        rest: trees shaped like the params, such as their shardings, whose leaves f gets too.
        transform_non_params: a function that is applied to all other leaves, such as counts; None
            keeps them.
        is_leaf: as in `jax.tree.map`, for params with `MaskedNode()`.

    Example:
        >>> tx = gradtx.sgd(0.1, momentum=0.9)
        >>> state = tx.init({"w": jnp.ones(2)})
        >>> names = {"w": "the mean of w"}
        >>> gradtx.tree_map_params(tx, lambda x, name: name, state, names)
        (TraceState(trace={'w': 'the mean of w'}), EmptyState())

    See also: `tree.get`, `tree.set`.
    """
    init = initable.init if hasattr(initable, "init") else initable

    def is_placeholder(x: object) -> bool:
        return isinstance(x, _Placeholder)

    def mapped(placed: Any, value: Tree) -> Tree:
        if is_placeholder(placed):
            return jax.tree.map(f, value, *rest, is_leaf=is_leaf)
        return value if transform_non_params is None else transform_non_params(value)

    return jax.tree.map(mapped, init(_Placeholder()), state, is_leaf=is_placeholder)
