"""The definitions of users by name, for reading constructions from text and from data.

A definition is entered when it is decorated, under its module and its qualified name. If the same
name is decorated again, as in a notebook cell, it replaces the earlier one. The entries are weak
references: a definition that was made inside a function disappears when nothing else holds it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradtx.core.definition import Definition

_DEFINED: weakref.WeakValueDictionary[str, Definition[Any, Any]] = weakref.WeakValueDictionary()

# Names that a user's definition cannot have in text or in data: gradtx's public ones, which each
# package enters here, and the words that data is written with.
TAKEN: set[str] = set()

# The functions of gradtx that serve as arguments; they are written by name.
FUNCTIONS: dict[str, Callable[..., Any]] = {}

_MAIN = "__main__."


class AmbiguousNameError(LookupError):
    """Several definitions share a name."""


class Names(Mapping[str, Callable[..., Any]]):
    """What may be called, by name: the public names, then the definitions of users.

    A user's definition is found as `my_rule` if no other has the name, and as `my_module.my_rule`
    in any case. What was written in a script as `__main__.my_rule` is found wherever it is now.
    """

    def __init__(self, public: Mapping[str, Callable[..., Any]]):
        self.public = public

    def __getitem__(self, name: str) -> Callable[..., Any]:
        found = self.public.get(name.removeprefix("gradtx.")) or _DEFINED.get(name)
        if found is not None:
            return found
        short = name.removeprefix(_MAIN)
        places = _places(short)
        if len(places) > 1:
            raise AmbiguousNameError(
                f"{short} is defined in several places: write {_either(places)}"
            )
        return _DEFINED[places[0] if places else name]

    def __iter__(self) -> Iterator[str]:
        """The names, those of users' definitions without their modules."""
        users = {_last(place) for place in list(_DEFINED)}
        return iter([*self.public, *sorted(users - self.public.keys())])

    def __len__(self) -> int:
        return len(list(iter(self)))


def enter(definition: Definition[Any, Any]) -> None:
    """Make a user's definition known by its name."""
    if not _is_own(definition):
        _DEFINED[_place(definition)] = definition


def name_of(definition: Definition[Any, Any]) -> str | None:
    """The name by which a definition is read, or None if its name now stands for another."""
    if _is_own(definition):
        return definition.name
    place, name = _place(definition), definition.name
    if _DEFINED.get(place) is not definition:
        return None
    return place if name in TAKEN or len(_places(name)) > 1 else name


def _is_own(definition: Definition[Any, Any]) -> bool:
    return (definition.function.__module__ or "").startswith("gradtx.")


def _place(definition: Definition[Any, Any]) -> str:
    return f"{definition.function.__module__}.{definition.function.__qualname__}"


def _places(name: str) -> list[str]:
    """Where definitions of this name are."""
    return sorted(place for place in list(_DEFINED) if _last(place) == name)


def _last(place: str) -> str:
    return place.rpartition(".")[2]


def _either(places: list[str]) -> str:
    *some, last = places
    return f"{', '.join(some)} or {last}"
