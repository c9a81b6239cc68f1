"""A definition: a function whose calls are values.

It reads the function's signature once. Arguments whose annotation is a number, a schedule or a
transformation become the children of the value's pytree; the others are static.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Generic, ParamSpec, Self, TypeVar

import jax
import numpy as np

from gradtx.core import config, known
from gradtx.core.documentation import Documentation, shown_signature
from gradtx.core.hyperparameters import Kind, Number, is_decay, is_factor, kind_of
from gradtx.core.printing import show
from gradtx.core.schedule import FunctionSchedule, Schedule
from gradtx.core.value import Frozen, Labelled, Value, thaw

P = ParamSpec("P")
V = TypeVar("V", bound=Value)


class Definition(Generic[P, V]):  # noqa: D101  (each definition has its own docstring)
    # Call it to make a value; it carries the name, the formula and the signature.
    __doc__ = Documentation()

    def __init__(self, function: Callable[P, Any], value_class: type[V], name: str = ""):
        functools.update_wrapper(self, function, set(functools.WRAPPER_ASSIGNMENTS) - {"__doc__"})
        self.function = function
        self.value_class = value_class
        # What reprs and errors call it, such as `torch.adam`, since `adam` is another.
        self.name = name or function.__name__
        self.signature = inspect.signature(function)
        known.enter(self)

    # Computed on demand: evaluating annotations would take most of the time of an import.

    @functools.cached_property
    def _hints(self) -> dict[str, Any]:
        return typing.get_type_hints(self.function, include_extras=True)

    @functools.cached_property
    def parameters(self) -> dict[str, Kind]:
        """What each argument may be."""
        return {name: kind_of(self._hints.get(name)) for name in self.signature.parameters}

    @functools.cached_property
    def optional(self) -> set[str]:
        """The arguments that may be None: their default is None, or their type has `| None`."""
        return {
            name
            for name, parameter in self.signature.parameters.items()
            if parameter.default is None or type(None) in typing.get_args(self._hints.get(name))
        }

    @functools.cached_property
    def decays(self) -> tuple[str, ...]:
        """The arguments that are the decay of a running mean."""
        return tuple(name for name, kind in self.parameters.items() if is_decay(kind))

    @functools.cached_property
    def factors(self) -> tuple[str, ...]:
        """The arguments that only multiply an array."""
        return tuple(name for name, kind in self.parameters.items() if is_factor(kind))

    @functools.cached_property
    def dynamic(self) -> tuple[str, ...]:
        """The arguments that are children of the value's pytree."""
        return tuple(name for name, kind in self.parameters.items() if kind.dynamic)

    @functools.cached_property
    def __signature__(self) -> inspect.Signature:
        return shown_signature(self.function, self.parameters, _public(self.value_class).__name__)

    def __get__(self, instance: object, owner: type | None = None) -> Self:
        # As a class attribute it is not bound, like a `staticmethod`; `help` prints its signature.
        return self

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> V:
        """The value with these arguments. Each is checked, and an error names it."""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            unknown = [name for name in kwargs if name not in self.signature.parameters]
            problem = f"got an unexpected keyword argument {unknown[0]!r}" if unknown else error
            raise TypeError(f"{self.name}: {problem}; it takes {self.takes}") from None
        bound.apply_defaults()
        made: Any = self.value_class._make(self, self._convert(bound.arguments))
        return made

    def call(self, arguments: Mapping[str, Any]) -> Any:
        """What the function itself returns for these arguments."""
        # Thawed anew each time: a function that changes a list changes its own copy.
        given = {
            name: x.thaw() if isinstance(x, Frozen) else dict(x) if isinstance(x, Labelled) else x
            for name, x in arguments.items()
        }
        bound = inspect.BoundArguments(self.signature, given)
        return self.function(*bound.args, **bound.kwargs)

    def replace(self, arguments: Mapping[str, Any], changes: Mapping[str, Any]) -> V:
        """The value with these arguments, some of them changed."""
        given = {name: thaw(argument) for name, argument in arguments.items()} | dict(changes)
        bound = inspect.BoundArguments(self.signature, given)
        return self(*bound.args, **bound.kwargs)

    def write(self, value: Value, *, defaults: bool) -> dict[str, config.Data]:
        """One of its values as plain data."""
        return config.write(value, defaults=defaults)

    def check_names(self) -> None:
        """Refuse an argument that could not be read: every value has an attribute of that name."""
        reserved = {*dir(self.value_class), *Value.__annotations__}
        for name in self.signature.parameters:
            if name in reserved:
                raise TypeError(
                    f"{self.name}: an argument cannot be called {name!r}: that is an attribute of "
                    f"every {self.value_class.__name__}. Call it {name}_ or something else"
                )

    @property
    def is_private(self) -> bool:
        """Whether the file that defines it does not export it."""
        exported = getattr(sys.modules.get(self.function.__module__), "__all__", None)
        return exported is not None and self.name not in exported

    def is_number(self, name: str) -> bool:
        """Whether this argument is a number, or a tree of numbers."""
        return isinstance(self.parameters[name], Number)

    @property
    def takes(self) -> str:
        """The names of its arguments."""
        return ", ".join(self.parameters) or "no arguments"

    def _convert(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.argument(name, value) for name, value in given.items()}

    def argument(self, name: str, value: Any) -> Any:
        """One argument, checked, in the form in which a value keeps it."""
        kind, where = self.parameters[name], f"{self.name}: {name}"
        if value is None and name in self.optional:
            return None
        if value is None and isinstance(kind, Number):
            raise TypeError(f"{where} must be {kind.text}, got None")
        if self.signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
            converted = kind.convert_all(self.name, value)
        else:
            converted = kind.convert(where, value)
        if kind.dynamic:
            return jax.tree.map(as_schedule, converted, is_leaf=_is_whole)
        if callable(value) and self._reads_as_number(name):
            raise TypeError(f"{where} is static and cannot be a schedule, {self._advice(value)}")
        try:
            hash(converted)
            return converted
        except TypeError:
            pass
        try:
            return Frozen(converted)
        except TypeError as error:
            if any(isinstance(x, np.ndarray | jax.Array) for x in jax.tree.leaves(converted)):
                problem = f"cannot hold an array, {self._advice(value)}"
            else:
                problem = f"its parts must be hashable, got {show(value)}"
            raise TypeError(f"{where} is static and {problem}") from error

    def _reads_as_number(self, name: str) -> bool:
        """Whether a static argument is a number, judging by its annotation or its default."""
        hint, default = self._hints.get(name), self.signature.parameters[name].default
        if hint is None:
            return isinstance(default, int | float) and not isinstance(default, bool)
        union = typing.get_origin(hint) in (typing.Union, types.UnionType)
        known = (int, float, complex, jax.Array, np.ndarray, type(None))
        return all(
            alternative in known for alternative in (typing.get_args(hint) if union else [hint])
        )

    def _advice(self, value: Any) -> str:
        """What was given instead of a static argument, and what the author can do about it."""
        ours = self.function.__module__.startswith("gradtx.")
        advice = (
            ". Annotate it with a kind of number, such as gradtx.Real or gradtx.NonNegative, to "
            "make it a hyperparameter: those may be arrays and schedules"
        )
        return f"got {show(value)}{'' if ours else advice}"

    def __repr__(self) -> str:
        return f"<{self.name}{self.__signature__}>"

    def __reduce__(self) -> str:
        # Pickled by reference, like a function.
        return self.__qualname__  # type: ignore[attr-defined]


def makes(value_class: type[V], name: str = "") -> Callable[[Callable[P, Any]], Definition[P, V]]:
    """Define a function whose calls are values of this class.

    name: what reprs and errors call it, if not the function's name.
    """

    def decorate(function: Callable[P, Any]) -> Definition[P, V]:
        return Definition(function, value_class, name)

    return decorate


def _public(value_class: type[Value]) -> type[Value]:
    """The class that users know: GradientTransformation for rules and chains."""
    bases = [base for base in value_class.__mro__ if issubclass(base, Value)]
    return bases[-2] if len(bases) > 1 else value_class


def _is_whole(x: Any) -> bool:
    return callable(x) or isinstance(x, Value)


@makes(FunctionSchedule)
def function_schedule(function: Any) -> Any:
    """A plain function of the step, as a schedule."""
    return function


def as_schedule(x: Any) -> Any:
    """A plain function of the step as a `Schedule`; anything else as it is."""
    plain = callable(x) and not isinstance(x, Value)
    return FunctionSchedule._of(function_schedule, {"function": x}) if plain else x


def schedule(function: Callable[P, Callable[[jax.Array], Any]]) -> Definition[P, Schedule]:
    """Turn a function that returns `step -> number` into a definition of schedules.

    The step is passed as a scalar in float32 (float64 under x64), arrays among the arguments in the
    same dtype, and Python numbers as they are. A plain function of the step is also accepted
    wherever a schedule is; this decorator adds a name, checked arguments and `replace`.

    Args:
        function: a function of numbers and options that returns a function from the step to the
            value at that step. The step of the first update is 0.

    Raises: TypeError at decoration if an argument has the name of an attribute of schedules.

    Example:
        >>> @gradtx.schedule
        ... def halving(start: gradtx.NonNegative, every: gradtx.PositiveSteps = 10):
        ...     return lambda step: start * 0.5 ** (step / every)
        >>> rate = halving(1.0)
        >>> print(rate, rate(0), rate(20))
        halving(start=1.0, every=10) 1.0 0.25
    """
    definition = Definition(function, Schedule)
    definition.check_names()
    return definition
