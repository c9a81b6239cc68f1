"""A construction as plain data, for configurations: what `to_config` writes.

A construction is a dict with one key, its name, which holds its arguments:

    {"adamw": {"learning_rate": 0.001, "mask": {"matching": "kernel"}}}

or, if it takes any number of parts, their list: {"chain": [{"clip": {"max_delta": 1.0}}]}.
Numbers, strings, booleans, None and lists stand for themselves. So does a dict, unless it has just
one key. Everything else is named by a word, which is written like a construction:

    {"tuple": [0.9, 0.999]}                      a tuple
    {"dict": {"w": True}}                        a dict with one key
    {"dict": [[4, 0.5], [8, 0.1]]}               a dict whose keys are not strings
    {"matching": "bias"}, {"~matching": "bias"}  a path pattern, and all other leaves
    {"array": {"data": [0.1, 0.2], "dtype": "float32"}}
    {"dtype": "bfloat16"}, {"float": "inf"}, {"complex": [0.0, 1.0]}
    {"function": "skip_not_finite"}              one of gradtx's functions, as an argument
    {"definition": "adamw"}                      a definition itself, not a call of it
    {"PartitionSpec": ["data", None]}            how a mesh divides an array

Where the signature says what an argument is, less is written: a dtype as its name, values by label
as a dict, two decays as a list.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Never, TypeAlias

import jax
import numpy as np
from jax.sharding import PartitionSpec

from gradtx.core.dtypes import is_random_key
from gradtx.core.hyperparameters import ByPattern, DTypeKind, Instance, Kind, Number, Numbers
from gradtx.core.known import FUNCTIONS, TAKEN, name_of
from gradtx.core.mask import matching
from gradtx.core.printing import show
from gradtx.core.schedule import Schedule
from gradtx.core.state import is_named_tuple
from gradtx.core.value import Labelled, Value, identity, thaw

if TYPE_CHECKING:
    from gradtx.core.definition import Definition

# What JSON and YAML can hold.
Data: TypeAlias = "bool | int | float | str | list[Data] | dict[str, Data] | None"

TAKEN.update(("PartitionSpec", "array", "complex", "definition", "dict", "dtype", "float"))
TAKEN.update(("function", "matching", "tuple", "~matching"))

MISSING = "???"  # what OmegaConf and Hydra write for a value that is still missing
MOST_NUMBERS = 1000  # in one array; NumPy, too, prints no more in full
_SHOWN, _SHOWN_OF_PATH = 600, 200  # the most characters of a problem and of its path


class ConfigError(ValueError):
    """A configuration cannot be written or read; the message begins with the place.

    problem: what is wrong; path: where in the data, like `chain[1].adamw.b2`, or "" for all of it.
    """

    def __init__(self, problem: str, path: str):
        super().__init__(problem, path)
        self.problem, self.path = problem, path

    def __str__(self) -> str:
        path, problem = self.path, self.problem
        if len(path) > _SHOWN_OF_PATH:
            path = f"...{path[-_SHOWN_OF_PATH:]}"
        if len(problem) > _SHOWN:
            problem = f"{problem[:_SHOWN]}..."
        return f"{path}: {problem}" if path else problem


def below(path: str, key: object) -> str:
    """The path of the item that a dict at `path` holds under a key, or a list at an index."""
    if isinstance(key, str) and key.replace(".", "").replace("~", "").isidentifier():
        return f"{path}.{key}" if path else key
    text = repr(key)
    return f"{path}[{text if len(text) <= 60 else text[:57] + '...'}]"


def write(value: Value, *, defaults: bool) -> dict[str, Data]:
    """The construction as plain data.

    defaults: whether arguments that equal their defaults are written too.
    """
    try:
        written = _Writer(defaults).construction(value, Instance(), "")
    except RecursionError:
        raise ConfigError("nested too deeply", "") from None
    return written


class _Writer:
    def __init__(self, defaults: bool):
        self.defaults = defaults

    def construction(self, value: Value, kind: Kind | None, path: str) -> dict[str, Data]:
        """{name: arguments}"""
        definition = value.definition
        if value.arguments and all(map(_is_function, value.arguments.values())):
            _refuse_function(value, kind, path)
        name = name_of(definition)
        if name is None:
            raise ConfigError(
                f"{definition.name} cannot be found by its name: it was defined again since, or "
                "inside a function. Define it at the top of a module; what differs from one to the "
                "next can be an argument",
                path,
            )
        path, parameters = below(path, name), definition.signature.parameters
        several = _any_number(parameters)
        written = {
            n: self.argument(x, definition, n, path if several else below(path, n))
            for n, x in value.arguments.items()
            if not _is_default(x, definition, n)
            or (self.defaults and not _is_function(parameters[n].default))
        }
        return {name: written if several is None else written[several]}

    def argument(self, x: Any, definition: Definition[Any, Any], name: str, path: str) -> Data:
        """One argument, without what the signature already says about it."""
        kind, parameter = definition.parameters[name], definition.signature.parameters[name]
        several = parameter.kind is inspect.Parameter.VAR_POSITIONAL
        if isinstance(kind, DTypeKind) and isinstance(x, np.dtype):
            return _dtype(x, path)
        x = thaw(x)
        if isinstance(x, Labelled):
            return self.labelled(x, kind, path, as_pairs=several)
        if several:
            return [self.data(item, kind, below(path, i)) for i, item in enumerate(x)]
        return self.data(x, kind, path)

    def labelled(self, values: Labelled, kind: Kind, path: str, *, as_pairs: bool) -> Data:
        """Values by label. Their order matters, and dicts often get sorted on the way to a file."""
        named = not as_pairs and all(isinstance(label, str) for label in values)
        is_word = isinstance(kind, ByPattern) and len(values) == 1 and not TAKEN.isdisjoint(values)
        if named and list(values) == sorted(values) and not is_word:
            return {str(k): self.data(x, kind, below(path, k)) for k, x in values.items()}
        return self.pairs(values, kind, path)

    def pairs(self, items: Mapping[Any, Any], kind: Kind | None, path: str) -> list[Data]:
        """[[key, value], ...]"""
        return [
            [self.data(k, None, path), self.data(x, kind, below(path, k))] for k, x in items.items()
        ]

    def data(self, x: Any, kind: Kind | None, path: str) -> Data:
        """Any value that an argument may contain."""
        match x:
            case None | bool():
                return x
            case str() if x == MISSING:
                raise ConfigError(f"{MISSING!r} stands for a missing value", path)
            case str():
                return str(x)
            case int():
                return int(x)
            case float():
                return float(x) if math.isfinite(x) else {"float": str(float(x))}
            case complex():
                return {"complex": [self.data(part, None, path) for part in (x.real, x.imag)]}
            case np.generic():
                return self.data(x.item(), kind, path)
            case np.dtype():
                return {"dtype": _dtype(x, path)}
            case np.ndarray() | jax.Array():
                return self.array(x, path)
            case matching():
                return {"~matching" if x.inverted else "matching": x.pattern}
            case Value() if x._stands_for() is x:
                return self.construction(x, kind, path)
            case Value():
                return self.data(x._stands_for(), kind, path)
            case PartitionSpec():
                spec: list[Data] = [self.data(item, None, path) for item in tuple(x)]
                return {"PartitionSpec": spec}
            case list():
                return [self.data(item, kind, below(path, i)) for i, item in enumerate(x)]
            case tuple():
                return self.tuple(x, kind, path)
            case dict() if type(x) is dict:
                return self.dict(x, path)
        if callable(x) and not isinstance(x, Mapping | type):
            return _word_of(x) or _refuse_function(x, kind, path)
        raise ConfigError(f"a {type(x).__name__} cannot be written, got {show(x)}", path)

    def tuple(self, x: tuple[Any, ...], kind: Kind | None, path: str) -> Data:
        """A tuple, or one of gradtx's own named ones. If the signature asks for a fixed number of
        numbers, they are known to be a tuple and written as a list."""
        if not is_named_tuple(x):
            items = [self.data(item, None, below(path, i)) for i, item in enumerate(x)]
            return items if isinstance(kind, Numbers) and kind.count else {"tuple": items}
        name = type(x).__name__
        if name not in TAKEN or not type(x).__module__.startswith("gradtx."):
            raise ConfigError(f"a {name} cannot be written, got {show(x)}", path)
        fields: dict[str, Any] = x._asdict()  # type: ignore[attr-defined]
        path = below(path, name)
        return {name: {n: self.data(item, None, below(path, n)) for n, item in fields.items()}}

    def dict(self, x: dict[Any, Any], path: str) -> Data:
        """A dict, written so that it cannot be mistaken for a construction."""
        if not all(isinstance(key, str) for key in x):
            return {"dict": self.pairs(x, None, path)}
        written = {str(k): self.data(item, None, below(path, k)) for k, item in x.items()}
        return {"dict": written} if len(x) == 1 or "_target_" in x else written

    def array(self, x: Any, path: str) -> Data:
        """An array, as its numbers and its dtype."""
        if isinstance(x, jax.core.Tracer):
            raise ConfigError("the numbers are being traced: call to_config outside of jit", path)
        if is_random_key(x):
            raise ConfigError("a key cannot be written: give a whole number as a seed", path)
        if x.size > MOST_NUMBERS:
            raise ConfigError(f"an array of {x.size:,} numbers: keep it in a file of its own", path)
        numbers = self.data(np.asarray(x).tolist(), None, path)
        return {"array": {"data": numbers, "dtype": _dtype(np.dtype(x.dtype), path)}}


def _is_function(x: Any) -> bool:
    """Whether x is a function that data has no name for."""
    return callable(x) and not isinstance(x, Value | type) and not _word_of(x)


def _word_of(x: Any) -> dict[str, Data]:
    """The word for a definition or for one of gradtx's functions."""
    name = getattr(x, "__name__", None)
    if name in FUNCTIONS and FUNCTIONS[name] is x:
        return {"function": name}
    name = name_of(x) if isinstance(getattr(x, "value_class", None), type) else None
    return {"definition": name} if name else {}


def _any_number(parameters: Mapping[str, inspect.Parameter]) -> str | None:
    """The name of the argument `*args` if there is no other, or None."""
    several = [p.name for p in parameters.values() if p.kind is p.VAR_POSITIONAL]
    return several[0] if several and len(parameters) == 1 else None


def _is_default(x: Any, definition: Definition[Any, Any], name: str) -> bool:
    default = definition.signature.parameters[name].default
    if default is inspect.Parameter.empty:
        return False
    return bool(identity(thaw(definition.argument(name, default))) == identity(thaw(x)))


def _dtype(dtype: np.dtype[Any], path: str) -> str:
    if dtype.names is None and np.dtype(str(dtype)) == dtype:
        return str(dtype)
    raise ConfigError(f"a dtype that has no name cannot be written, got {dtype}", path)


def _refuse_function(x: Any, kind: Kind | None, path: str) -> Never:
    """Raise, and say what to write instead of a function or of a value made only from functions."""
    if isinstance(kind, Number) or isinstance(x, Schedule):
        hint = "define the schedule with @gradtx.schedule"
    elif isinstance(kind, Instance):
        hint = "define the transformation with @gradtx.per_leaf or @gradtx.per_tree"
    elif "mask" in path.rpartition(".")[2]:
        hint = "write the mask as a path pattern, as matching(...) or as a tree"
    else:
        hint = "write what it returns, if that may be given"
    raise ConfigError(
        f"the function {show(x)} is no data: {hint}, or put all of it into a definition of your "
        "own with @gradtx.recipe, which is written by its name",
        path,
    )
