"""The kinds of arguments: what a hyperparameter may be, checked at construction.

A kind is attached to an annotation, as in `b1: Decay = 0.9`. A number of any kind may be given as a
Python or NumPy number, as an array (of any shape where the value is mapped with `jax.vmap`), or
as a schedule: anything that can be called. Traced arrays are not checked: their values are not
known. Numbers in a container are annotated as such, as in `betas: tuple[Decay, Decay]`.

Type checkers see what may be given, `b1: float | jax.Array | ...`, and flag `b1="0.9"`.
"""

from __future__ import annotations

import numbers
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gradtx.core.printing import show
from gradtx.core.value import Labelled, Value

if TYPE_CHECKING:
    # One annotation, read from two sides: a call may pass a NumPy array or a schedule, and the rule
    # then sees a number in its place. A protocol derived from Any serves both: only what has the
    # member may be passed, and a rule may use it in any way that it uses numbers.

    class NumPyLike(Protocol, Any):  # type: ignore[misc]
        """A NumPy array or scalar."""

        @property
        def dtype(self) -> Any:
            """Its dtype."""

    class ScheduleLike(Protocol, Any):  # type: ignore[misc]
        """A schedule, of any library, or a plain function `step -> number`."""

        def __call__(self, step: jax.Array, /) -> Any:
            """The number at this step."""

    Scalar: TypeAlias = float | jax.Array | NumPyLike
    ScalarOrSchedule: TypeAlias = Scalar | ScheduleLike
else:
    NumPyLike = ScheduleLike = Scalar = ScalarOrSchedule = Any


class StaticZero(float):
    """A literal 0 that switches a part of a recipe off. It is structure, not a leaf."""

    def __new__(cls) -> StaticZero:
        """The zero."""
        return super().__new__(cls, 0.0)

    def __reduce__(self) -> tuple[Any, ...]:
        return StaticZero, ()


jax.tree_util.register_pytree_node(
    StaticZero, lambda off: ((), None), lambda aux, children: StaticZero()
)


def is_static_zero(x: Any) -> bool:
    """Whether an argument was given as a literal 0 (or None), which leaves a part out."""
    return x is None or isinstance(x, StaticZero)


class Kind:
    """What an argument may be. `dynamic` arguments are children of the value's pytree."""

    dynamic = False

    def convert(self, where: str, value: Any) -> Any:
        """The argument in its stored form; `where` names the transformation and the argument."""
        return value

    def convert_all(self, who: str, values: tuple[Any, ...]) -> Any:
        """The arguments of `*args`, which errors name by their positions."""
        return tuple(
            self.convert(f"{who}: argument {i}", value) for i, value in enumerate(values, start=1)
        )


@dataclass(frozen=True)
class Number(Kind):
    """A number, an array or a schedule.

    factor: the rule only multiplies an array by it. Rounding it to the array's dtype beforehand
    then changes nothing, and rules that differ only in such factors can share their traces.
    """

    text: str
    accepts: Callable[[np.ndarray], Any]
    example: float = 0.5
    scheduled: bool = True
    off_at_zero: bool = False
    factor: bool = False
    dynamic = True

    def convert(self, where: str, value: Any) -> Any:
        """The checked number; NumPy's scalars become Python's."""
        if callable(value) and self.scheduled:
            return value
        if isinstance(value, jax.core.Tracer):
            return value
        if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
            value = value.item()
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        is_array = isinstance(value, np.ndarray | jax.Array) and value.dtype.kind in "fiuV"
        if not (is_number or is_array):
            what = "a number, an array or a schedule" if self.scheduled else "a number or an array"
            raise TypeError(f"{where} must be {what}, got {show(value)} ({type(value).__name__})")
        if not np.all(self.accepts(np.asarray(value, np.float64))):
            raise ValueError(f"{where} must be {self.text}, got {show(value)}")
        return StaticZero() if self.off_at_zero and is_number and value == 0 else value


@dataclass(frozen=True)
class Numbers(Number):
    """A tuple, list or dict of numbers, arrays and schedules, nested to any depth, or one of these:
    for annotations such as `Mapping[int, Real]`.

    count: how many, 2 for `tuple[Decay, Decay]`; then they must be a tuple or one array. A list
    becomes a tuple.
    """

    count: int | None = None

    def convert(self, where: str, value: Any) -> Any:
        """The checked numbers in their containers."""
        sizes = (len(value),) if isinstance(value, tuple | list) else np.shape(value)
        if self.count is not None and sizes[:1] != (self.count,):
            raise TypeError(
                f"{where} must be a tuple of {self.count} numbers, got {show(value)} "
                f"({type(value).__name__})"
            )
        if self.count is not None and isinstance(value, list):
            value = tuple(value)
        convert = super().convert
        return jax.tree.map(lambda x: convert(where, x), value, is_leaf=callable)


@dataclass(frozen=True)
class Instance(Kind):
    """A value of one class, a transformation or a schedule, or what its class accepts as one."""

    value_class: type[Value] = Value
    dynamic = True

    def convert(self, where: str, value: Any) -> Any:
        """The value itself, or what its class makes of it."""
        return self.value_class._accept(where, value)


@dataclass(frozen=True)
class Instances(Instance):
    """Values of one class, in a tuple or a list."""

    def convert(self, where: str, value: Any) -> Any:
        """Each value, or what its class makes of it."""
        if type(value) not in (tuple, list):
            return value
        convert = super().convert
        return type(value)(convert(f"{where}[{i}]", x) for i, x in enumerate(value))


@dataclass(frozen=True)
class InstancesByLabel(Instance):
    """Values of one class by label: for annotations such as `Mapping[str, Schedule]`."""

    def convert(self, where: str, value: Any) -> Labelled:
        """Each value, or what its class makes of it, in the order in which they are given."""
        if not isinstance(value, Mapping):
            raise TypeError(f"{where} must be a dict by label, got {show(value)}")
        convert = super().convert
        return Labelled(value, (convert(f"{where}[{k!r}]", x) for k, x in value.items()))


@dataclass(frozen=True)
class ByPattern(Kind):
    """Settings by path pattern, in their order: the first pattern that matches decides."""

    def convert(self, where: str, value: Any) -> Any:
        """A mapping that keeps its order; anything else as it is."""
        return Labelled(value, value.values()) if isinstance(value, Mapping) else value


@dataclass(frozen=True)
class Whole(Kind):
    """A whole number, known when the program is traced: a size, a period."""

    text: str
    accepts: Callable[[int], bool]

    def convert(self, where: str, value: Any) -> int:
        """A Python int."""
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if whole and self.accepts(int(value)):
            return int(value)
        raise ValueError(f"{where} must be a whole number {self.text}, got {show(value)}")


# One 32-bit word: a larger seed would share the random numbers of a smaller one.
_SEED = Whole("in [0, 2**32)", lambda n: 0 <= n < 2**32)


@dataclass(frozen=True)
class KeyKind(Kind):
    """A seed of random numbers: a whole number, or a key as `jax.random` makes it."""

    dynamic = True

    def convert(self, where: str, value: Any) -> Any:
        """A whole number, or the two words of a key."""
        if isinstance(value, numbers.Integral) and not isinstance(value, bool):
            if not _SEED.accepts(int(value)):
                raise ValueError(f"{where} must be a whole number {_SEED.text}, got {show(value)}")
            return int(value) if value < 2**31 else np.uint32(value)  # which JAX can convert
        dtype = getattr(value, "dtype", None)
        if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
            return jax.random.key_data(value)
        whole = dtype is not None and np.ndim(value) == 0 and np.issubdtype(dtype, np.integer)
        if not (whole or dtype == np.uint32 or isinstance(value, jax.core.Tracer)):
            raise TypeError(f"{where} must be a whole number or a random key, got {show(value)}")
        return value


@dataclass(frozen=True)
class DTypeKind(Kind):
    """A floating dtype by any of its names."""

    def convert(self, where: str, value: Any) -> Any:
        """The NumPy dtype."""
        if value is None:
            return None
        try:
            dtype = np.dtype(value)
        except TypeError as error:
            raise TypeError(f"{where} must be a dtype such as 'float32', got {value!r}") from error
        if not jnp.issubdtype(dtype, jnp.inexact):
            raise TypeError(f"{where} must be a floating dtype such as 'float32', got {value!r}")
        return dtype


@dataclass(frozen=True)
class OneOf(Kind):
    """One of a few words: for annotations such as `Literal["a", "b"]`."""

    words: tuple[str, ...]

    def convert(self, where: str, value: Any) -> str:
        """The word."""
        if isinstance(value, str) and value in self.words:
            return value
        known = ", ".join(map(repr, self.words))
        raise ValueError(f"{where} must be one of {known}, got {show(value)}")


@dataclass(frozen=True)
class Flag(Kind):
    """True or False, known when the program is traced."""

    def convert(self, where: str, value: Any) -> bool:
        """A Python bool."""
        if isinstance(value, bool | np.bool_):
            return bool(value)
        raise TypeError(f"{where} must be True or False, got {show(value)}")


def _finite(x: np.ndarray) -> Any:
    return np.isfinite(x)


_REAL = Number("a finite number", _finite)
_NON_NEGATIVE = Number("finite and >= 0", lambda x: _finite(x) & (x >= 0))
_DECAY = Number("in [0, 1)", lambda x: (x >= 0) & (x < 1))
_FRACTION = Number("in [0, 1]", lambda x: (x >= 0) & (x <= 1))

Real = Annotated[ScalarOrSchedule, _REAL]
RealFactor = Annotated[ScalarOrSchedule, replace(_REAL, factor=True)]
NonNegative = Annotated[ScalarOrSchedule, _NON_NEGATIVE]
NonNegativeFactor = Annotated[ScalarOrSchedule, replace(_NON_NEGATIVE, factor=True)]
Positive = Annotated[ScalarOrSchedule, Number("finite and > 0", lambda x: _finite(x) & (x > 0))]
Decay = Annotated[ScalarOrSchedule, _DECAY]
Fraction = Annotated[ScalarOrSchedule, _FRACTION]
AtLeastOne = Annotated[
    ScalarOrSchedule, Number("finite and >= 1", lambda x: _finite(x) & (x >= 1), example=2.0)
]
PositiveFraction = Annotated[ScalarOrSchedule, Number("in (0, 1]", lambda x: (x > 0) & (x <= 1))]
NonNegativeOrOff = Annotated[ScalarOrSchedule, replace(_NON_NEGATIVE, off_at_zero=True)]
FractionOrOff = Annotated[ScalarOrSchedule, replace(_FRACTION, off_at_zero=True)]
Steps = Annotated[
    Scalar, Number("finite and >= 0", lambda x: _finite(x) & (x >= 0), example=1, scheduled=False)
]
PositiveSteps = Annotated[
    Scalar, Number("finite and > 0", lambda x: _finite(x) & (x > 0), example=1, scheduled=False)
]
PositiveInt = Annotated[int, Whole(">= 1", lambda n: n >= 1)]
NonNegativeInt = Annotated[int, Whole(">= 0", lambda n: n >= 0)]
Seed = Annotated[int, _SEED]
RandomKey = Annotated[int | jax.Array | NumPyLike, KeyKind()]
DType = Annotated[DTypeLike, DTypeKind()]


def kind_of(annotation: Any) -> Kind:
    """The kind that an annotation carries; an argument without one is static."""
    found = _search(annotation)
    return found if found is not None else Kind()


def _search(annotation: Any) -> Kind | None:
    if annotation is bool:
        return Flag()
    if typing.get_origin(annotation) is typing.Literal:
        words = typing.get_args(annotation)
        return OneOf(words) if all(isinstance(word, str) for word in words) else None
    if isinstance(annotation, type) and issubclass(annotation, Value):
        return Instance(annotation)
    for metadata in getattr(annotation, "__metadata__", ()):
        if isinstance(metadata, Kind):
            return metadata
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Callable:
        return None  # what a function takes is its own affair
    alternatives = [x for x in inner if not isinstance(x, Kind) and x is not type(None)]
    found = next(filter(None, map(_search, alternatives)), None)
    if found is None or origin is Annotated:
        return found
    if origin in (typing.Union, types.UnionType):
        # A union: a value that is not one of the words, say, is for another alternative.
        open_ended = isinstance(found, OneOf | Whole | Flag) and len(alternatives) > 1
        return None if open_ended else found
    return _several(found, annotation)


def _several(kind: Kind, annotation: Any) -> Kind:
    """The kind of a container of arguments of this kind."""
    if isinstance(kind, Instance):
        origin = typing.get_origin(annotation)
        by_label = isinstance(origin, type) and issubclass(origin, Mapping)
        return (InstancesByLabel if by_label else Instances)(kind.value_class)
    inner = typing.get_args(annotation)
    fixed = typing.get_origin(annotation) is tuple and Ellipsis not in inner
    count = len(inner) if fixed else None
    if isinstance(kind, Numbers):
        return replace(kind, count=count)
    return Numbers(**vars(kind), count=count) if isinstance(kind, Number) else Kind()


def is_factor(kind: Kind) -> bool:
    """Whether an argument of this kind only multiplies an array."""
    return isinstance(kind, Number) and kind.factor


def is_decay(kind: Kind) -> bool:
    """Whether an argument of this kind is the decay of a running mean."""
    return isinstance(kind, Number) and kind.accepts is _DECAY.accepts
