"""Constructions read from plain data, as `to_config` writes it and as people write it by hand."""

from __future__ import annotations

import functools
import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, overload

import jax
import numpy as np
from jax.sharding import PartitionSpec

from gradtx.core.config import MISSING, MOST_NUMBERS, ConfigError, below
from gradtx.core.definition import Definition
from gradtx.core.hyperparameters import (
    ByPattern,
    Instance,
    Instances,
    InstancesByLabel,
    Kind,
    Number,
    Numbers,
    kind_of,
)
from gradtx.core.known import FUNCTIONS, AmbiguousNameError, Names
from gradtx.core.mask import MaskKind, matching
from gradtx.core.printing import show
from gradtx.core.reading import ParseError, array, did_you_mean, read
from gradtx.core.schedule import Schedule
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import Value
from gradtx.interop.public import only_in_data, public_names

__all__ = ["ConfigError", "from_config"]

V = TypeVar("V", bound=Value)

_DEEPEST = 100  # constructions and lists inside one another
_MOST = 100_000  # entries, and every sixteen characters of text
_PLAIN: tuple[type, ...] = (str, int, float, dict, list, tuple)
_OF_HYDRA = ("_args_", "_convert_", "_partial_", "_recursive_")
_KINDS: Mapping[type[Value], str] = {
    GradientTransformation: "a transformation",
    Schedule: "a schedule",
}
_ANY = Kind()


@overload
def from_config(data: object) -> Any: ...


@overload
def from_config(data: object, kind: type[V]) -> V: ...


def from_config(data: object, kind: type[Value] = Value) -> Any:
    """Build a transformation or a schedule from plain data, as `to_config` writes it.

        {"chain": [{"clip": {"max_delta": 1.0}}, {"adamw": {"learning_rate": 0.001}}]}

    A construction is a dict of one key, its name, that holds its arguments: a dict by name, a list
    by position, one that is neither, or None. Where a construction or a number is expected, a
    string is read as by `parse`: "adamw(1e-3)", "1e-3". Hydra's form is read too, `{"_target_":
    "gradtx.adamw", "learning_rate": 0.001}`, and the containers of OmegaConf are accepted, with
    their interpolations resolved. gradtx's own names are known, and those of your own definitions
    whose modules were imported. The reader imports nothing and evaluates no code, so the data may
    come from anywhere.

    Args:
        data: dicts, lists, strings, numbers, booleans and None, as JSON and YAML hold them.
        kind: `GradientTransformation` or `Schedule`, to accept nothing else.

    Raises: `ConfigError`, a ValueError, with the place of whatever is unknown, missing, or refused
    by the function that takes it.

    Example:
        >>> tx = gradtx.from_config({"adamw": {"learning_rate": "1e-3", "mask": "kernel"}})
        >>> tx == gradtx.adamw(1e-3, mask="kernel")
        True
        >>> tx.to_config()
        {'adamw': {'learning_rate': 0.001, 'mask': 'kernel'}}
        >>> gradtx.from_config({"chain": [{"adamw": {"learning_rate": 0.001, "b2": 1.5}}]})
        Traceback (most recent call last):
        gradtx.core.config.ConfigError: chain[0].adamw.b2: must be in [0, 1), got 1.5

    See also: `parse`.
    """
    try:
        value = _Reader(public_names()).value(data, Instance(), "", depth=0)
    except RecursionError:  # where the caller is deep in the stack already
        raise ConfigError("nested too deeply", "") from None
    if isinstance(value, kind):
        return value
    wanted = _KINDS.get(kind, "a transformation or a schedule")
    made = next((what for each, what in _KINDS.items() if isinstance(value, each)), None)
    hint = "" if made else f". Write {wanted} as a dict of one key, {{name: {{argument: value}}}}"
    if isinstance(value, list):
        hint += ", and several in sequence as {chain: [...]}"
    raise ConfigError(f"this is {made or _shown(value)}, not {wanted}{hint}", "")


class _Reader:
    """Gives the entries of one piece of data their meaning."""

    def __init__(self, names: Names):
        self.names, self.left, self.containers = names, _MOST, _containers()
        self.words: Mapping[str, Callable[[Any, str, int], Any]] = {
            "PartitionSpec": self.as_spec,
            "array": self.as_array,
            "complex": self.as_complex,
            "definition": self.as_definition,
            "dict": self.as_dict,
            "dtype": self.as_dtype,
            "float": self.as_float,
            "function": self.as_function,
            "matching": self.as_matching,
            "tuple": self.as_tuple,
            "~matching": lambda x, path, depth: ~self.as_matching(x, path, depth),
        }

    def value(self, data: Any, kind: Kind, path: str, depth: int) -> Any:
        """What an entry means where an argument of this kind is expected."""
        if depth > _DEEPEST:
            raise ConfigError("nested too deeply", path)
        depth += 1
        match data := self.plain(data, path):
            case str() if data == MISSING:
                raise ConfigError(f"is missing: {MISSING!r} stands for a value to be given", path)
            case str() if isinstance(kind, Number | Instance):
                return self.text(data, path)
            case dict() if isinstance(kind, InstancesByLabel) or (
                isinstance(kind, ByPattern) and not self.is_word(data)
            ):
                one = _each(kind)
                return {
                    self.key(k, path): self.value(x, one, below(path, k), depth)
                    for k, x in data.items()
                }
            case list() if isinstance(kind, InstancesByLabel) or (
                isinstance(kind, ByPattern) and _are_pairs(data)
            ):
                return self.pairs(data, _each(kind), path, depth)
            case list():
                each = kind if isinstance(kind, Numbers | Instances | MaskKind) else _ANY
                items = [self.value(x, each, below(path, i), depth) for i, x in enumerate(data)]
                fixed = isinstance(kind, Numbers) and kind.count is not None
                return tuple(items) if fixed else items
            case dict() if "_target_" in data:
                return self.target(data, path, depth)
            case dict() if self.is_construction(data, kind):
                ((name, given),) = data.items()
                return self.construction(name, given, kind, path, depth)
            case dict():
                if isinstance(kind, Instance) and data:
                    keys = ", ".join(map(_shown, data))
                    raise ConfigError(
                        f"a construction is a dict of one key, {{name: {{argument: value}}}}, got "
                        f"the keys {keys}: are they indented as they should be?",
                        path,
                    )
                each = kind if isinstance(kind, Numbers | MaskKind) else _ANY
                return {
                    self.key(k, path): self.value(x, each, below(path, k), depth)
                    for k, x in data.items()
                }
        return data

    # -- what data is made of ----------------------------------------------------------------------

    def plain(self, x: Any, path: str) -> Any:
        """An entry as a plain Python object. Methods that x's class overrides are not called."""
        self.spend(1, path)
        given = type(x)
        if issubclass(given, self.containers):
            x = _resolved(x, path)
        elif issubclass(given, np.generic):
            x = np.generic.item(x)
        if x is None or type(x) is bool:
            return x
        for plain in _PLAIN:
            if issubclass(type(x), plain):
                return self.copied(x, plain, path)
        name = type.__dict__["__name__"].__get__(given)  # not what its metaclass says
        raise ConfigError(f"a {name} is no plain data: {_TAKEN}", path)

    def copied(self, x: Any, plain: type, path: str) -> Any:
        """x, of this class or one derived from it, as one of exactly this class."""
        if plain is dict:
            return dict(dict.items(x))
        if plain in (list, tuple):
            return list(plain.__iter__(x))
        if plain is int:
            x = int.__int__(x)
            if abs(x) >= 10**300:
                raise ConfigError("the number is too large", path)
            return x
        if plain is float:
            return float.__float__(x)
        x = str.__str__(x)
        self.spend(len(x) // 16, path)
        return x

    def spend(self, cost: int, path: str) -> None:
        """Count what was read: data may hold one list in many places, or be infinite."""
        self.left -= cost
        if self.left < 0:
            raise ConfigError(f"more than {_MOST:,} entries", path)

    def key(self, key: Any, path: str) -> Any:
        """A key of a dict."""
        key = self.plain(key, path)
        if isinstance(key, list | dict):
            raise ConfigError(f"a key cannot be a {type(key).__name__}", path)
        return key

    def text(self, text: str, path: str) -> Any:
        """What a text means, which is read as by `parse`."""
        try:
            return read(text, self.names)
        except ParseError as error:
            raise ConfigError(str(error), path) from error

    # -- constructions -----------------------------------------------------------------------------

    def is_construction(self, data: dict[Any, Any], kind: Kind) -> bool:
        """Whether a dict stands for what it names, rather than for itself."""
        name = next(iter(data)) if len(data) == 1 else None
        return isinstance(name, str) and (not isinstance(kind, MaskKind) or name in self.words)

    def is_word(self, data: dict[Any, Any]) -> bool:
        """Whether a dict stands for what it names even where the keys of others are patterns."""
        name = next(iter(data)) if len(data) == 1 else None
        if not isinstance(name, str):
            return False
        try:
            named = self.names.get(name)
        except AmbiguousNameError:
            named = None
        return name in self.words or hasattr(named, "_fields")

    def construction(self, name: str, given: Any, kind: Kind, path: str, depth: int) -> Any:
        """{name: arguments}"""
        name = self.plain(name, path)
        if name in self.words:
            return self.words[name](given, below(path, name), depth)
        single = isinstance(kind, Instance | Number) and not isinstance(kind, Numbers)
        function = self.called(name, path, or_itself=not single)
        inside = below(path, name)
        match given := self.plain(given, inside):
            case None:
                return self.call(function, {}, inside, depth)
            case dict() if "_target_" not in given:
                return self.call(function, given, inside, depth)
            case list():
                return self.call(function, given, inside, depth)
        return self.call(function, [given], inside, depth)

    def target(self, data: dict[Any, Any], path: str, depth: int) -> Any:
        """Hydra's form: {"_target_": name, argument: value, ...}"""
        name = self.plain(data["_target_"], path)
        if not isinstance(name, str):
            raise ConfigError(f"must be a name, got {_shown(name)}", below(path, "_target_"))
        if self.plain(data.get("_partial_"), path):
            raise ConfigError("is not read: a construction is complete", below(path, "_partial_"))
        by_position = self.plain(data.get("_args_", []), path)
        if not isinstance(by_position, list):
            raise ConfigError(f"must be a list, got {_shown(by_position)}", below(path, "_args_"))
        function = self.called(name, path)
        by_name = {k: x for k, x in data.items() if k != "_target_" and k not in _OF_HYDRA}
        return self.call(function, by_name, path, depth, by_position)

    def called(self, name: str, path: str, *, or_itself: bool = False) -> Callable[..., Any]:
        """The function of this name. or_itself: whether the dict with this key could be meant as a
        dict."""
        try:
            function = only_in_data().get(name) or self.names.get(name)
        except AmbiguousNameError as error:
            raise ConfigError(str(error), path) from None
        if function is not None:
            return function
        hint = did_you_mean(name, [*self.names, *self.words])
        hint = hint or "of your own definitions, those that were imported are known"
        if or_itself:
            hint = f"{_ONE_KEY}. For a construction, {hint}"
        raise ConfigError(f"unknown name {_shown(name).strip(_QUOTES)}: {hint}", path)

    def call(
        self,
        function: Callable[..., Any],
        given: dict[Any, Any] | list[Any],
        path: str,
        depth: int,
        by_position: Iterable[Any] = (),
    ) -> Any:
        """Call a definition with arguments by name, or by position."""
        signature, kinds = inspect.signature(function), _kinds(function)
        parameters = signature.parameters
        who = getattr(function, "name", None) or function.__name__
        if isinstance(given, list):
            given, by_position = {}, given
        arguments: dict[str, Any] = {}
        places: dict[str, str] = {}
        waiting = [p for p in parameters.values() if p.kind is not p.KEYWORD_ONLY]
        for i, x in enumerate(by_position):
            if not waiting:
                raise ConfigError(f"{who} takes {len(places)} by position", below(path, i))
            parameter = waiting[0]
            name, kind = parameter.name, kinds[parameter.name]
            read = self.value(x, kind, below(path, i), depth)
            if parameter.kind is parameter.VAR_POSITIONAL:
                arguments[name] = (*arguments.get(name, ()), read)
                places.setdefault(name, path)
            else:
                arguments[name], places[name] = read, below(path, i)
                del waiting[0]
        for name, x in given.items():
            name = self.key(name, path)
            if name not in parameters:
                raise self.unknown(who, name, parameters, path)
            if name in arguments:
                raise ConfigError("is given twice, by position too", below(path, name))
            places[name] = below(path, name)
            arguments[name] = self.argument(x, parameters[name], kinds[name], places[name], depth)
        bound = inspect.BoundArguments(signature, _ordered(arguments, parameters))
        try:
            return function(*bound.args, **bound.kwargs)
        # Whatever is wrong with arguments that were read is an error of the data.
        except Exception as error:
            raise _blamed(error, who, places, path) from error

    def argument(
        self, x: Any, parameter: inspect.Parameter, kind: Kind, path: str, depth: int
    ) -> Any:
        """One argument by name; for `*args`, all of them."""
        if parameter.kind is not parameter.VAR_POSITIONAL:
            return self.value(x, kind, path, depth)
        items = self.plain(x, path)
        if not isinstance(items, list):
            raise ConfigError(f"must be a list, got {_shown(items)}", path)
        return tuple(self.value(x, kind, below(path, i), depth) for i, x in enumerate(items))

    def unknown(
        self, who: str, name: Any, parameters: Mapping[str, inspect.Parameter], path: str
    ) -> ConfigError:
        """The error for an argument that does not exist."""
        takes = f"{who} takes {', '.join(parameters) or 'no arguments'}"
        if any(p.kind is p.VAR_POSITIONAL for p in parameters.values()):
            takes = f"{who} takes a list, {{{who}: [...]}}"
        hint = did_you_mean(name, parameters) if isinstance(name, str) else ""
        return ConfigError(
            f"{who} has no argument {_shown(name).strip(_QUOTES)}: {hint}{' ' * bool(hint)}{takes}",
            below(path, name) if isinstance(name, str) else path,
        )

    # -- words: what else a dict of one key may mean -----------------------------------------------

    def as_tuple(self, x: Any, path: str, depth: int) -> tuple[Any, ...]:
        """{"tuple": [1, 2]}"""
        return tuple(self.as_list(x, path, depth))

    def as_spec(self, x: Any, path: str, depth: int) -> PartitionSpec:
        """{"PartitionSpec": ["data", None]}"""
        make: Any = PartitionSpec
        spec: PartitionSpec = make(*self.as_list(x, path, depth))
        return spec

    def as_list(self, x: Any, path: str, depth: int) -> list[Any]:
        """A list, and nothing else."""
        items = self.value(x, _ANY, path, depth)
        if not isinstance(items, list):
            raise ConfigError(f"must be a list, got {_shown(items)}", path)
        return items

    def as_dict(self, x: Any, path: str, depth: int) -> dict[Any, Any]:
        """{"dict": {"w": True}}, or pairs {"dict": [[1, True]]}"""
        match x := self.plain(x, path):
            case dict():
                return {
                    self.key(k, path): self.value(item, _ANY, below(path, k), depth)
                    for k, item in x.items()
                }
            case list():
                return self.pairs(x, _ANY, path, depth)
        raise ConfigError(f"must be a dict or a list of pairs, got {_shown(x)}", path)

    def pairs(self, x: list[Any], kind: Kind, path: str, depth: int) -> dict[Any, Any]:
        """A dict from [[key, value], ...]."""
        made: dict[Any, Any] = {}
        for i, pair in enumerate(x):
            place = below(path, i)
            both = self.plain(pair, place)
            if not isinstance(both, list) or len(both) != 2:
                raise ConfigError(f"must be a pair [key, value], got {_shown(both)}", place)
            key = self.value(both[0], _ANY, below(place, 0), depth)
            try:
                twice = key in made
            except TypeError:
                raise ConfigError(f"a key cannot be a {type(key).__name__}", place) from None
            if twice:
                raise ConfigError(f"the key {_shown(key)} is given twice", place)
            made[key] = self.value(both[1], kind, below(place, 1), depth)
        return made

    def as_matching(self, x: Any, path: str, depth: int) -> matching:
        """{"matching": "bias"}"""
        pattern = self.plain(x, path)
        if not isinstance(pattern, str):
            raise ConfigError(f"must be a pattern, got {_shown(pattern)}", path)
        try:
            return matching(pattern)
        except Exception as error:  # of the regular expression
            raise _blamed(error, "matching", {}, path) from error

    def as_float(self, x: Any, path: str, depth: int) -> float:
        """{"float": "inf"}: what JSON has no number for."""
        x = self.plain(x, path)
        if x in ("inf", "-inf", "nan"):
            return float(x)
        raise ConfigError(f"must be 'inf', '-inf' or 'nan', got {_shown(x)}", path)

    def as_complex(self, x: Any, path: str, depth: int) -> complex:
        """{"complex": [real, imaginary]}"""
        parts = self.as_list(x, path, depth)
        if len(parts) == 2 and all(type(part) in (int, float) for part in parts):
            return complex(*parts)
        raise ConfigError(f"must be two numbers, got {_shown(parts)}", path)

    def as_dtype(self, x: Any, path: str, depth: int) -> np.dtype[Any]:
        """{"dtype": "bfloat16"}"""
        dtype = self.text(x, path) if isinstance(x := self.plain(x, path), str) else None
        if isinstance(dtype, np.dtype):
            return dtype
        raise ConfigError(f"must be a dtype such as 'float32', got {_shown(x)}", path)

    def as_definition(self, x: Any, path: str, depth: int) -> Callable[..., Any]:
        """{"definition": "adamw"}: not called, for a wrapper that calls it."""
        name = self.plain(x, path)
        if isinstance(name, str):
            return self.called(name, path)
        raise ConfigError(f"must be a name, got {_shown(name)}", path)

    def as_function(self, x: Any, path: str, depth: int) -> Callable[..., Any]:
        """{"function": "skip_not_finite"}: functions of gradtx that are meant as arguments."""
        x = self.plain(x, path)
        if isinstance(x, str) and x in FUNCTIONS:
            return FUNCTIONS[x]
        raise ConfigError(f"must be one of {', '.join(FUNCTIONS)}, got {_shown(x)}", path)

    def as_array(self, x: Any, path: str, depth: int) -> np.ndarray[Any, Any] | jax.Array:
        """{"array": {"data": [0.1, 0.2], "dtype": "float32"}}"""
        parts = self.plain(x, path)
        if not isinstance(parts, dict) or parts.keys() != {"data", "dtype"}:
            raise ConfigError(f"must be a dict of data and dtype, got {_shown(parts)}", path)
        dtype = self.as_dtype(parts["dtype"], below(path, "dtype"), depth)
        place = below(path, "data")
        data = self.value(parts["data"], _ANY, place, depth)
        try:
            made = array(data, dtype)
        except Exception as error:  # rows of unequal lengths
            raise _blamed(error, "array", {"object": place}, place) from error
        if made.size > MOST_NUMBERS:
            raise ConfigError(f"{made.size:,} numbers are more than {MOST_NUMBERS:,}", place)
        return made


# -- the containers of OmegaConf -------------------------------------------------------------------

_TAKEN = "give dicts, lists, strings, numbers, booleans and None"
_ONE_KEY = "a dict of one key that is no construction is written {dict: {key: value}}"
_QUOTES = "'\""


def _containers() -> tuple[type, ...]:
    """OmegaConf's containers, if it was imported."""
    omegaconf = sys.modules.get("omegaconf")
    found = (getattr(omegaconf, name, None) for name in ("DictConfig", "ListConfig"))
    return tuple(x for x in found if isinstance(x, type))


def _resolved(x: Any, path: str) -> Any:
    """A container of OmegaConf as dicts and lists, with its interpolations resolved."""
    convert = sys.modules["omegaconf"].OmegaConf.to_container
    try:
        return convert(x, resolve=True)
    except Exception as error:
        where = getattr(error, "full_key", None)
        reason = str(error).strip().split("\n")[0]
        raise ConfigError(reason, f"{path}.{where}" if path and where else where or path) from error


# -- signatures and errors -------------------------------------------------------------------------


def _kinds(function: Callable[..., Any]) -> Mapping[str, Kind]:
    """What each argument may be."""
    return function.parameters if isinstance(function, Definition) else _kinds_of(function)


@functools.cache  # for gradtx's own functions: nothing of a user's definition is held
def _kinds_of(function: Callable[..., Any]) -> Mapping[str, Kind]:
    hints = typing.get_type_hints(function, include_extras=True)
    return {name: kind_of(hints.get(name)) for name in inspect.signature(function).parameters}


def _are_pairs(data: list[Any]) -> bool:
    """Whether a list says what patterns mean, [[pattern, value], ...]."""
    pairs = [x for x in data if isinstance(x, list | tuple) and len(x) == 2]
    return 0 < len(data) == len([key for key, _ in pairs if isinstance(key, str)])


def _each(kind: ByPattern | InstancesByLabel) -> Kind:
    """What each of the values by label may be."""
    return Instance(kind.value_class) if isinstance(kind, InstancesByLabel) else _ANY


def _ordered(
    arguments: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]
) -> dict[str, Any]:
    return {name: arguments[name] for name in parameters if name in arguments}


def _blamed(error: Exception, who: str, places: Mapping[str, str], path: str) -> ConfigError:
    """The error of the library, `adam: b1 must be in ...`, at the place in the data that it is
    about."""
    reason = (" ".join(str(error).split()) or type(error).__name__).removeprefix(f"{who}: ")
    if found := re.match(r"argument (\d+) (.+)", reason):
        return ConfigError(found[2], below(path, int(found[1]) - 1))
    found = re.match(r"(\w+)(\[[^\]]*\])* (must .+)", reason)
    if found and found[1] in places:
        return ConfigError(found[3], places[found[1]] + (found[2] or ""))
    return ConfigError(reason, path)


def _shown(x: Any) -> str:
    """An entry as far as a message can show it. What a container holds may not have been read."""
    if isinstance(x, list | dict):
        return f"a {type(x).__name__} of {len(x)}"
    text = show(x)
    return text if len(text) <= 60 else f"{text[:57]}..."
