"""A value: a named construction that can be read, compared, hashed, adjusted, pickled and traced.

Transformations and schedules are values. A value remembers the `Definition` that made it and the
arguments it was made with. Its numbers (and the values inside it) are the children of a pytree;
everything else is static structure.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Hashable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Never, Self

import jax
import numpy as np

from gradtx.core.dtypes import is_random_key
from gradtx.core.printing import as_html, code, wrapped

if TYPE_CHECKING:
    from gradtx.core.config import Data
    from gradtx.core.definition import Definition


class Frozen:
    """A tree of hashable leaves, made hashable, so that it can be static structure."""

    __slots__ = ("_key",)

    def __init__(self, tree: Any):
        leaves, treedef = jax.tree.flatten(tree)
        self._key = (tuple(map(_boolean, leaves)), treedef)
        hash(self._key)

    def thaw(self) -> Any:
        """The tree itself."""
        leaves, treedef = self._key
        return jax.tree.unflatten(treedef, leaves)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frozen) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __reduce__(self) -> tuple[Any, ...]:
        return Frozen, (self.thaw(),)


def _boolean(leaf: Any) -> Any:
    """The leaf. An array of one boolean, as masks may hold, cannot be hashed: it becomes a bool."""
    known = isinstance(leaf, np.ndarray | jax.Array) and not isinstance(leaf, jax.core.Tracer)
    return bool(leaf) if known and leaf.shape == () and leaf.dtype == bool else leaf


def thaw(argument: Any) -> Any:
    """The argument as it was given."""
    return argument.thaw() if isinstance(argument, Frozen) else argument


class Value:
    """What a `Definition` makes: its name and its arguments, and nothing hidden."""

    definition: Definition[Any, Any]
    arguments: Mapping[str, Any]

    @classmethod
    def _of(cls, definition: Definition[Any, Any], arguments: Mapping[str, Any]) -> Self:
        self = object.__new__(cls)
        self.__dict__.update(definition=definition, arguments=MappingProxyType(dict(arguments)))
        return self

    @classmethod
    def _make(cls, definition: Definition[Any, Any], arguments: Mapping[str, Any]) -> Value:
        """The result of a call with these arguments, each of them checked already."""
        value = cls._of(definition, arguments)
        value._check()
        return value

    def _check(self) -> None:
        """Raise where the arguments do not fit each other."""

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        jax.tree_util.register_pytree_with_keys(
            cls,
            lambda value: value._flatten_with_keys(),
            lambda aux, children: cls._unflatten(aux, children),
            lambda value: value._flatten(),
        )

    @classmethod
    def _accept(cls, where: str, value: Any) -> Any:
        """What is kept for an argument that is annotated with this class."""
        return value

    # -- a pytree: numbers and values are children, the rest is structure --------------------------

    def _flatten(self) -> tuple[tuple[Any, ...], Any]:
        roles = self.definition.dynamic
        children = tuple(self.arguments[name] for name in roles)
        static = tuple(item for item in self.arguments.items() if item[0] not in roles)
        return children, (self.definition, static)

    def _flatten_with_keys(self) -> tuple[tuple[Any, ...], Any]:
        children, aux = self._flatten()
        keys = (jax.tree_util.GetAttrKey(name) for name in self.definition.dynamic)
        return tuple(zip(keys, children, strict=True)), aux

    @classmethod
    def _unflatten(cls, aux: Any, children: Any) -> Self:
        # JAX passes placeholders through here: nothing may be checked or converted.
        definition, static = aux
        given = dict(static) | dict(zip(definition.dynamic, children, strict=True))
        return cls._of(definition, {name: given[name] for name in definition.parameters})

    # -- readable, adjustable ----------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        arguments = self.__dict__.get("arguments", {})
        if name in arguments:
            return thaw(arguments[name])
        computed = inspect.getattr_static(type(self), name, None)
        # Python drops the AttributeError of a property and calls this instead: raise it once more.
        if isinstance(computed, functools.cached_property):
            return computed.func(self)
        if isinstance(computed, property) and computed.fget is not None:
            return computed.fget(self)
        named = self._named() if arguments and not name.startswith("_") else {}
        if name in named:
            return named[name]
        raise self._no_attribute(name)

    def _no_attribute(self, name: str) -> AttributeError:
        """The error for an attribute that does not exist."""
        arguments = self.__dict__.get("arguments", {})
        known = ", ".join(arguments) or "no arguments"
        title = self.definition.name if arguments else type(self).__name__
        hint = "" if name.startswith("_") else self._where_to_read(name)
        return AttributeError(f"{title} has no attribute {name!r}; its arguments: {known}{hint}")

    def _named(self) -> dict[str, Any]:
        """What can be read by name: the arguments and, for a composite, those of its parts."""
        return self._given()

    def _has(self, name: str) -> bool:
        """Whether an argument of this name can be replaced."""
        return name in self.arguments

    def _paths_to(self, name: str) -> list[tuple[str, ...]]:
        """The names that lead to each value inside that has an argument of this name."""
        if self._has(name):
            return [()]
        inside = {own: x for own, x in self._named().items() if isinstance(x, Value)}
        return [(own, *path) for own, x in inside.items() for path in x._paths_to(name)]

    def _where_to_read(self, name: str) -> str:
        """The end of an error about a missing argument: where to read it, if it is inside."""
        ways = [".".join(("tx", *path, name)) for path in self._paths_to(name) if path]
        return f"; read {' or '.join(ways)}" if ways else ""

    def _where_to_replace(self, name: str) -> str:
        """The same, for an argument that was to be replaced."""
        ways = [_replacing(path, name) for path in self._paths_to(name) if path]
        return f"; write {' or '.join(ways)}" if ways else ""

    # What completion lists besides the arguments. Other names without an underscore are for the
    # rest of the library, which reads them from values of any class.
    _for_users: tuple[str, ...] = ("arguments", "definition", "replace", "to_config")

    def __dir__(self) -> list[str]:
        """The arguments, and what a user may do with the value."""
        private = (name for name in dir(type(self)) if name.startswith("_"))
        return sorted({*private, *self._named(), *self._for_users})

    def __setattr__(self, name: str, value: Never) -> None:
        raise AttributeError(
            f"{self.definition.name} is a value and cannot be changed in place: "
            f"use tx.replace({name}=...)"
        )

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{self.definition.name} is a value: {name} cannot be deleted")

    def replace(self, **changes: Any) -> Self:
        """The same construction with some arguments changed, checked as at construction."""
        for name in changes:
            if name not in self.definition.parameters:
                raise TypeError(
                    f"{self.definition.name} has no argument {name!r}; it takes "
                    f"{self.definition.takes}{self._where_to_replace(name)}"
                )
        return self.definition.replace(self.arguments, changes)

    __replace__ = replace  # for copy.replace

    def to_config(self, *, defaults: bool = False) -> dict[str, Data]:
        """The construction as plain data, for JSON or YAML; `gradtx.from_config` builds it again.

        It is a dict of one key, the name, that holds the arguments: `{"adamw": {"learning_rate":
        0.001}}`; for a chain it holds the list of the parts. Arguments that have their default
        value are left out.

        defaults: write those too, for a record that a later release cannot read differently.

        Raises: `ConfigError`, with the place, for a function, which is not data, and for an array
        of more than 1000 numbers.
        """
        return self.definition.write(self, defaults=defaults)

    def _text(self) -> str:
        """The construction on one line, as it is written in Python."""
        shown = (f"{name}={code(value)}" for name, value in self._given().items())
        return f"{self.definition.name}({', '.join(shown)})"

    def _stands_for(self) -> Any:
        """Itself, or the plain function that it was made from."""
        return self

    def _given(self) -> dict[str, Any]:
        """The arguments as they were given."""
        return {name: thaw(value) for name, value in self.arguments.items()}

    def __repr__(self) -> str:
        return wrapped(self._text())

    def __str__(self) -> str:
        return self._text()

    def _repr_html_(self) -> str:
        return as_html(self)

    # -- comparable, picklable ---------------------------------------------------------------------

    def _identity(self) -> tuple[Any, ...]:
        cached = self.__dict__.get("_cached_identity")
        if cached is None:
            cached = identity(self)
            self.__dict__["_cached_identity"] = cached
        return cached

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Value) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.definition, dict(self.arguments))


class Labelled(Mapping[Any, Any]):
    """Values by label. Unlike the keys of a dict, which JAX sorts, the labels keep their order."""

    def __init__(self, labels: Iterable[Hashable], values: Iterable[Any]):
        self._by_label = dict(zip(labels, values, strict=True))

    def __getitem__(self, label: Hashable) -> Any:
        return self._by_label[label]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._by_label)

    def __len__(self) -> int:
        return len(self._by_label)

    def __repr__(self) -> str:
        return code(self._by_label)


jax.tree_util.register_pytree_with_keys(
    Labelled,
    lambda labelled: (
        tuple((jax.tree_util.DictKey(label), value) for label, value in labelled.items()),
        tuple(labelled),
    ),
    Labelled,
    lambda labelled: (tuple(labelled.values()), tuple(labelled)),
)


def _restore(definition: Definition[Any, Any], arguments: dict[str, Any]) -> Value:
    return definition.value_class._of(definition, arguments)


def identity(tree: Any) -> tuple[Any, ...]:
    """A key that is equal for equal trees: arrays are compared by their bytes."""
    leaves, treedef = jax.tree.flatten(tree)
    return treedef, tuple(map(_leaf_identity, leaves))


def _replacing(path: tuple[str, ...], name: str, written: str = "tx") -> str:
    """The expression that replaces an argument of the value at this path."""
    if not path:
        return f"{written}.replace({name}=...)"
    own, *rest = path
    return f"{written}.replace({own}={_replacing(tuple(rest), name, f'{written}.{own}')})"


def _leaf_identity(leaf: Any) -> Any:
    if isinstance(leaf, jax.core.Tracer):
        return (jax.core.Tracer, id(leaf))
    if isinstance(leaf, np.ndarray | jax.Array):
        if is_random_key(leaf):
            return (str(leaf.dtype), _leaf_identity(jax.random.key_data(leaf)))
        array = np.asarray(leaf)
        return (array.shape, str(array.dtype), array.tobytes())
    return leaf
