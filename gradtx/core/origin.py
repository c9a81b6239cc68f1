"""States of any origin: told by the names of their classes and fields, and handed back in the
classes in which they came, so that a state of Optax goes in and out of a step as one of Optax."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax

from gradtx.core.leaves import children
from gradtx.core.state import OptState, is_named_tuple

T = TypeVar("T")


class Held(NamedTuple):
    """The state of one link, and where in the whole state it is, as `[0].inner_state`."""

    state: OptState
    path: str


class StateError(ValueError):
    """A state that is not the one that a transformation keeps. `path` is where it is in `root`."""

    problem: str
    path: str
    root: OptState

    @classmethod
    def of(cls, who: str, problem: str, path: str, root: OptState) -> StateError:
        """With the text that says all of it."""
        where = f" at {path}" if path else ""
        error = cls(f"{who}: the state{where} is {problem}. Pass the state that its own init made")
        error.problem, error.path, error.root = problem, path, root
        return error


def located_in(root: OptState, error: StateError, who: str, held: Held | None = None) -> StateError:
    """The error of a wrong state inside of `root`, which `who` was given, with where it is in that;
    held: the state of the link that was at work."""
    path = error.path if held is None else held.path + _path(held.state, error) + error.path
    return StateError.of(who, error.problem, path, root)


def _path(state: OptState, error: StateError) -> str:
    """Where in a link's state that is which an inner transformation was given. Inside of a
    conditional it is there with other arrays."""
    structure: Any = jax.tree.structure(error.root)

    def is_it(x: Any) -> bool:
        return x is error.root or bool(jax.tree.structure(x) == structure)

    entries = jax.tree_util.tree_flatten_with_path(state, is_leaf=is_it)[0]
    return next((jax.tree_util.keystr(path) for path, x in entries if is_it(x)), "")


# -- classes ---------------------------------------------------------------------------------------


def is_like(x: Any, state_class: type) -> bool:
    """Whether x is of this class, or of another library's with the same name and fields."""
    if type(x) is state_class:
        return True
    return (
        is_named_tuple(x)
        and type(x).__name__ == state_class.__name__
        and set(x._fields) == set(_fields(state_class))
    )


def as_class(x: Any, state_class: Any) -> Any:
    """The same fields in this class, for an x that is like it; as it is where none is known."""
    return x if state_class in (None, type(x)) else state_class(**x._asdict())


def with_nodes(tree: Any, node_class: type) -> Any:
    """The tree with each node that is like this class in it."""

    def is_node(x: Any) -> bool:
        return is_like(x, node_class)

    return jax.tree.map(
        lambda x: as_class(x, node_class) if is_node(x) else x, tree, is_leaf=is_node
    )


def made_by(init: Callable[..., Any]) -> Any:
    """The class of state that a function makes, as its annotation says; None if it says none."""
    try:
        made = typing.get_type_hints(init).get("return")
    except (NameError, TypeError):
        return None  # a name that is known in a function only, or no plain function
    return made if isinstance(made, type) and hasattr(made, "_fields") else None


def nodes_of(state: OptState, is_one: Callable[[Any], bool]) -> list[Any]:
    """The nodes of a state that are such ones, without those that lie inside of another."""
    return [x for x in jax.tree.leaves(state, is_leaf=is_one) if is_one(x)]


def the_only(found: list[T], who: str, what: str, of: str) -> T:
    """The one thing that was found in a state.

    Raises: ValueError where it is none or several, which says of which optimizers' states it is.
    """
    if len(found) != 1:
        raise ValueError(
            f"{who}: the state must hold one {what}, it holds {len(found)}: pass the state of {of}"
        )
    return found[0]


def is_nothing(x: Any) -> bool:
    """Whether x can be the state of what keeps none: it has no leaves, or is an empty class that
    was meant to be called."""
    return not jax.tree.leaves(x) or (isinstance(x, type) and getattr(x, "_fields", None) == ())


def in_classes_of(old: Any, new: Any) -> Any:
    """The new state with its containers in the classes of the old one, where these are alike."""
    if jax.tree.structure(old) == jax.tree.structure(new):  # type: ignore[operator]
        return new
    if not jax.tree.leaves(old) and not jax.tree.leaves(new):
        return old  # one way and another to hold nothing
    if is_named_tuple(old) and not is_like(new, type(old)):
        return new
    mine, outer = children(old)
    theirs, _ = children(new)
    if mine.keys() != theirs.keys():
        return new
    return jax.tree.unflatten(outer, (in_classes_of(x, theirs[key]) for key, x in mine.items()))


def _fields(state_class: Any) -> tuple[str, ...]:
    fields: tuple[str, ...] = state_class._fields
    return fields


# -- how an error names them -----------------------------------------------------------------------


def show_class(state_class: Any) -> str:
    """ScaleByAdamState(count, mu, nu)"""
    return f"{state_class.__name__}({', '.join(state_class._fields)})"


def show_state(state: Any) -> str:
    """The kind of a state, for an error, without its numbers."""
    if is_named_tuple(state):
        return show_class(type(state))
    if isinstance(state, Mapping):
        return f"a {type(state).__name__} of {', '.join(map(str, state)) or 'nothing'}"
    if isinstance(state, tuple | list):
        return f"a {type(state).__name__} of {len(state)}"
    if isinstance(state, type):
        return f"the class {state.__name__}"
    return "None" if state is None else f"a {type(state).__name__}"


def wrong(state: Any, expected: str, path: str, hint: str = "") -> StateError:
    """The error for a state of another kind than is expected."""
    return StateError.of("", f"{show_state(state)}, not {expected}{hint}", path, state)


def restored_hint(state: Any, keys: Iterable[Any]) -> str:
    """A word on a dict that holds by name what the state has, as readers of checkpoints make it."""
    if isinstance(state, Mapping) and set(state) == set(map(str, keys)):
        return " (restored without its classes? Restore a checkpoint into the state of init)"
    return ""
