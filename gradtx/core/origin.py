"""States of any library, recognised by the names of their classes and fields. They are returned in
the classes they came in: a step that is given a state of Optax returns a state of Optax."""

from __future__ import annotations

import typing
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax

from gradtx.core.leaves import children
from gradtx.core.printing import a_or_an
from gradtx.core.state import OptState, StateClass, is_named_tuple

T = TypeVar("T")


# What to do about a state that another transformation made.
INSTEAD = (
    "Pass the state that its own init made, or bring over another one with "
    "gradtx.migrate(state, to=tx, params=params, from_=old_tx)"
)


class Held(NamedTuple):
    """The state of one link, and its key path in the whole state, such as `[0].inner_state`."""

    state: OptState
    path: str


class StateError(ValueError):
    """A state that its transformation could not have made. `path` is its key path in `root`, and
    `link` the index of the link that it was given to, in a stage of several."""

    problem: str
    path: str
    root: OptState
    link: int = 0

    @classmethod
    def of(cls, who: str, problem: str, path: str, root: OptState) -> StateError:
        """With the full text: whose state, where it is, and what is wrong with it."""
        where = f" at {path}" if path else ""
        error = cls(f"{who}: the state{where} is {problem}. {INSTEAD}")
        error.problem, error.path, error.root = problem, path, root
        return error


def located_in(root: OptState, error: StateError, who: str, held: Held | None = None) -> StateError:
    """The error, with the path extended to lead from `root`, the state that `who` was given.

    held: the state of the link that raised it, if that is known.
    """
    path = error.path if held is None else held.path + _path(held.state, error) + error.path
    return StateError.of(who, error.problem, path, root)


def _path(state: OptState, error: StateError) -> str:
    """The path, in a link's state, of the state that an inner transformation was given: the same
    object or, inside a conditional, which replaces the arrays, one of the same structure."""
    structure: Any = jax.tree.structure(error.root)

    def is_it(x: object) -> bool:
        return x is error.root or bool(jax.tree.structure(x) == structure)

    entries = jax.tree_util.tree_flatten_with_path(state, is_leaf=is_it)[0]
    return next((jax.tree_util.keystr(path) for path, x in entries if is_it(x)), "")


# -- classes ---------------------------------------------------------------------------------------


def is_like(x: Any, state_class: StateClass) -> bool:
    """Whether x is of this class, or of another library's class with the same name and fields."""
    if type(x) is state_class:
        return True
    return (
        is_named_tuple(x)
        and type(x).__name__ == state_class.__name__
        and set(x._fields) == set(_fields(state_class))
    )


def as_class(x: Any, state_class: StateClass | None) -> Any:
    """x, which is like this class, converted to it; x itself if the class is None."""
    return x if state_class is None or state_class is type(x) else state_class(**x._asdict())


def with_nodes(tree: Any, node_class: StateClass) -> Any:
    """The tree with each node that is like this class converted to it."""

    def is_node(x: Any) -> bool:
        return is_like(x, node_class)

    return jax.tree.map(
        lambda x: as_class(x, node_class) if is_node(x) else x, tree, is_leaf=is_node
    )


def made_by(init: Callable[..., Any]) -> StateClass | None:
    """The NamedTuple class that a function's return annotation names, or None."""
    try:
        made = typing.get_type_hints(init).get("return")
    except (NameError, TypeError):
        return None  # a name that is local to some function, or not a plain function
    return made if isinstance(made, type) and hasattr(made, "_fields") else None


def nodes_of(state: OptState, is_one: Callable[[Any], bool]) -> list[Any]:
    """The outermost nodes of a state that satisfy `is_one`."""
    return [x for x in jax.tree.leaves(state, is_leaf=is_one) if is_one(x)]


def the_only(found: list[T], who: str, what: str, of: str) -> T:
    """The single element of `found`.

    what: what was looked for; of: the optimizers whose states hold exactly one. Raises: ValueError
    if there is none, or several.
    """
    if len(found) != 1:
        raise ValueError(
            f"{who}: the state must hold one {what}, it holds {len(found)}: pass the state of {of}"
        )
    return found[0]


def is_nothing(x: Any) -> bool:
    """Whether x can stand for an empty state: it has no leaves, or is an empty NamedTuple class
    that someone forgot to call."""
    return not jax.tree.leaves(x) or (isinstance(x, type) and getattr(x, "_fields", None) == ())


def in_classes_of(old: OptState, new: OptState) -> OptState:
    """The new state with its containers converted to the classes of the old one's, where the two
    are alike."""
    if jax.tree.structure(old) == jax.tree.structure(new):  # type: ignore[operator]
        return new
    if not jax.tree.leaves(old) and not jax.tree.leaves(new):
        return old  # two ways to write an empty state
    if is_named_tuple(old) and not is_like(new, type(old)):
        return new
    mine, outer = children(old)
    theirs, _ = children(new)
    if mine.keys() != theirs.keys():
        return new
    return jax.tree.unflatten(outer, (in_classes_of(x, theirs[key]) for key, x in mine.items()))


def _fields(state_class: StateClass) -> tuple[str, ...]:
    fields: tuple[str, ...] = state_class._fields
    return fields


# -- how errors mention states ---------------------------------------------------------------------


def show_class(state_class: StateClass) -> str:
    """ScaleByAdamState(count, mu, nu)"""
    return f"{state_class.__name__}({', '.join(state_class._fields)})"


def show_state(state: OptState) -> str:
    """What kind of state it is, without its numbers."""
    if is_named_tuple(state):
        return show_class(type(state))
    if isinstance(state, Mapping):
        return f"{a_or_an(type(state).__name__)} of {', '.join(map(str, state)) or 'nothing'}"
    if isinstance(state, tuple | list):
        return f"{a_or_an(type(state).__name__)} of {len(state)}"
    if isinstance(state, type):
        return f"the class {state.__name__}"
    return "None" if state is None else a_or_an(type(state).__name__)


def wrong(state: OptState, expected: str, path: str, hint: str = "") -> StateError:
    """The error for a state of another kind than expected."""
    return StateError.of("", f"{show_state(state)}, not {expected}{hint}", path, state)


def restored_hint(state: OptState, keys: Iterable[Hashable]) -> str:
    """A hint for a dict with the keys of the expected state, as some checkpoint readers return."""
    if isinstance(state, Mapping) and set(state) == set(map(str, keys)):
        return " (restored without its classes? Restore a checkpoint into the state of init)"
    return ""
