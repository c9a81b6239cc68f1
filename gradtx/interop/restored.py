"""States that were restored without their classes: as dicts of fields, lists of links."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from gradtx.core.leaves import KeyPath, children, shown
from gradtx.core.origin import show_class, show_state
from gradtx.core.state import OptState, is_named_tuple
from gradtx.precision.formats import is_stored


def has_no_classes(state: OptState) -> bool:
    """Whether nothing in a state says what its arrays are."""
    nodes = jax.tree.leaves(state, is_leaf=is_named_tuple)
    return bool(nodes) and not any(map(is_named_tuple, nodes))


def with_classes(state: OptState, like: OptState) -> OptState:
    """The state in the containers of `like`.

    Flax and Orbax write a named tuple as a dict of its fields, and a tuple as a list or as a dict
    with the keys "0", "1", ...; what is empty may be None. The trees of parameters in the fields
    may differ. Raises: ValueError, with the path, where the state differs otherwise.
    """
    return _dressed(state, like, ())


def _dressed(state: Any, like: Any, path: KeyPath) -> Any:
    mine, treedef = children(like)
    if () in mine:
        return state  # an array
    if is_named_tuple(like):
        if not like._fields:
            return state if jax.tree.leaves(state) else like
        given = _fields_of(state, like._fields)
        if given is None:
            if is_stored(like):
                return state  # it was not stored in this format
            raise _unlike(state, show_class(type(like)), path)
        keys = zip(mine, like._fields, strict=True)
        return type(like)(*[_dressed(given[n], mine[key], path + key) for key, n in keys])
    parts, _ = children(state)
    if () in parts:
        return state  # an array, where there was a tree of them
    theirs = {shown(key): x for key, x in parts.items()}
    wanted = {shown(key): key for key in mine}
    if theirs.keys() == wanted.keys():
        made = [_dressed(theirs[name], mine[key], path + key) for name, key in wanted.items()]
        return jax.tree.unflatten(treedef, made)
    if _holds_states(like):
        raise _unlike(state, show_state(like), path)
    # A tree of parameters, some of which came or went.
    return {
        name: _dressed(x, mine[wanted[name]], path + wanted[name]) if name in wanted else x
        for name, x in theirs.items()
    }


def _fields_of(state: Any, names: tuple[str, ...]) -> Mapping[str, Any] | None:
    if is_named_tuple(state):
        state = state._asdict()
    if isinstance(state, tuple | list) and len(state) == len(names):
        state = dict(zip(names, state, strict=True))
    fits = isinstance(state, Mapping) and set(state) == set(names)
    return state if fits else None


def _holds_states(like: Any) -> bool:
    def is_state(x: object) -> bool:
        return is_named_tuple(x) and not is_stored(x) and x != ()

    return any(map(is_state, jax.tree.leaves(like, is_leaf=is_state)))


def _unlike(state: Any, expected: str, path: KeyPath) -> ValueError:
    where = jax.tree_util.keystr(path)
    return ValueError(
        f"migrate: the state{where and ' at '}{where} is {show_state(state)}, where the init of "
        f"from_ makes {expected}"
    )
