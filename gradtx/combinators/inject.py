"""Keep hyperparameters in the state, where a training loop can read and set them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gradtx.core.counts import increment, start
from gradtx.core.definition import Definition, makes
from gradtx.core.dtypes import cast, is_inexact, is_random_key, scalar_dtype
from gradtx.core.flat_updates import FlatUpdates, Selection
from gradtx.core.hyperparameters import DType, Instance, Numbers
from gradtx.core.inner import Inner
from gradtx.core.leaves import is_function
from gradtx.core.origin import is_like, show_class, wrong
from gradtx.core.place import Place
from gradtx.core.printing import code
from gradtx.core.run import Stage
from gradtx.core.schedule import FunctionSchedule, Schedule
from gradtx.core.state import OptState, Params
from gradtx.core.transformation import (
    GradientTransformation,
    Inside,
    TransformationLike,
    as_transformation,
    in_dtypes_of,
)
from gradtx.core.value import thaw

__all__ = [
    "InjectStatefulHyperparamsState",
    "StatefulSchedule",
    "WrappedSchedule",
    "WrappedScheduleState",
    "inject_hyperparams",
]


class InjectStatefulHyperparamsState(NamedTuple):
    """count: updates so far; hyperparams: by name, those of the last step (a number set there is
    used by the next step); hyperparams_states: the states of the scheduled ones."""

    count: jax.Array  # type: ignore[assignment]  # not the method of tuples
    hyperparams: dict[str, Any]
    hyperparams_states: dict[str, Any]
    inner_state: OptState


@runtime_checkable
class StatefulSchedule(Protocol):
    """A schedule with a state of its own, for `inject_hyperparams`."""

    def init(self) -> Any:
        """The first state."""

    def update(self, state: Any, **extra_args: Any) -> Any:
        """The state after one more step."""

    def __call__(self, state: Any, **extra_args: Any) -> Any:
        """The number in this state."""


class WrappedScheduleState(NamedTuple):
    """count: steps so far."""

    count: jax.Array  # type: ignore[assignment]  # not the method of tuples


class WrappedSchedule:
    """A schedule of the step as a stateful one, whose state is the step."""

    def __init__(self, schedule_fn: Callable[[Any], Any]):
        self.schedule_fn = schedule_fn

    def init(self) -> WrappedScheduleState:
        """Step 0."""
        return WrappedScheduleState(start())

    def update(self, state: WrappedScheduleState, **extra_args: Any) -> WrappedScheduleState:
        """The next step."""
        return WrappedScheduleState(increment(state.count))

    def __call__(self, state: WrappedScheduleState, **extra_args: Any) -> Any:
        """The number at the step."""
        return self.schedule_fn(state.count)


class Injected(GradientTransformation):
    """Calls a factory at every step with the numbers held in the state."""

    def _check(self) -> None:
        if isinstance(self.arguments["factory"], Definition):
            _ = self.parts  # check the numbers now: later they are traced

    @functools.cached_property
    def parts(self) -> tuple[GradientTransformation, ...]:
        """What the factory makes from the arguments it was given."""
        return (self._inner(dict(self._numbers)),)

    @functools.cached_property
    def place(self) -> Place:
        """That of what the factory makes."""
        return self.parts[0].place

    def _can_ignore(self) -> bool:
        return any(link.transformation._can_ignore() for link in self.parts[0]._links)

    def _ignored(self, flat: FlatUpdates, selected: Selection) -> list[bool]:
        return flat.ignored_inside(self.parts, selected)

    def _init(self, params: Params) -> OptState:
        schedules = self._schedules
        states = {name: schedule.init() for name, schedule in schedules.items()}
        numbers = {name: x for name, x in self._numbers.items() if name not in schedules}
        numbers |= {name: schedule(states[name]) for name, schedule in schedules.items()}
        hyperparams = {name: self._arrays(name, x) for name, x in numbers.items()}
        inner_state = self._inner(hyperparams).init(params)
        return InjectStatefulHyperparamsState(start(), hyperparams, states, inner_state)

    def _run(self, stage: Stage, flat: FlatUpdates) -> tuple[FlatUpdates, list[OptState]]:
        (link,), (state,), (selected,) = stage.links, stage.states, stage.selections
        self._check_state(state)
        flat, extra = flat.widened(), flat.visible(stage.extra, link.masks)
        states = state.hyperparams_states
        now = {name: s(states[name], **extra) for name, s in self._schedules.items()}
        hyperparams = self._used(state, now)
        inner = Inner(self._inner(hyperparams), flat.stored_params_tree(selected), extra)
        u, inner_state = inner(flat.tree(selected), state.inner_state)
        states = {name: s.update(states[name], **extra) for name, s in self._schedules.items()}
        kept = in_dtypes_of(state.hyperparams, hyperparams)
        new = InjectStatefulHyperparamsState(increment(state.count), kept, states, inner_state)
        from_examples = Place.FIRST in self.place
        return flat.put(u, selected, "inject_hyperparams", from_examples=from_examples), [new]

    def _used(self, state: OptState, now: Mapping[str, Any]) -> dict[str, Any]:
        """The numbers of this step: those of the state, and `now` those of schedules."""
        held = {**state.hyperparams, **now}
        return {name: self._arrays(name, x) for name, x in held.items()}

    def _next(self, state: OptState) -> dict[str, Any]:
        """The numbers of the next step, as far as the state tells them: a stateful schedule may ask
        for extra arguments, and then its last number stands."""
        states = state.hyperparams_states
        known = {name: s for name, s in self._schedules.items() if _needs_nothing(s)}
        return self._used(state, {name: s(states[name]) for name, s in known.items()})

    def _inside_at(self, state: OptState) -> Sequence[Inside]:
        self._check_state(state)
        return [Inside("", self._inner(self._next(state)), state.inner_state)]

    def _check_state(self, state: OptState) -> None:
        if not is_like(state, InjectStatefulHyperparamsState):
            kept = show_class(InjectStatefulHyperparamsState)
            raise wrong(state, f"the {kept} of inject_hyperparams", "")
        if not self._numbers.keys() <= state.hyperparams.keys():
            names = ", ".join(self._numbers)
            raise wrong(state.hyperparams, f"the dict of {names} of inject_hyperparams", "")

    def takes(self, name: str, extra: Mapping[str, Any]) -> bool:
        """Whatever the factory's transformation takes; a stateful schedule may take anything."""
        schedules = self._schedules.values()
        by_schedule = any(not isinstance(s, WrappedSchedule) for s in schedules)
        return by_schedule or super().takes(name, extra)

    @property
    def _numbers(self) -> dict[str, Any]:
        numbers: dict[str, Any] = self.arguments["numbers"]
        return numbers

    @property
    def _fixed(self) -> dict[str, Any]:
        """The arguments that are passed on as they are."""
        return dict(thaw(self.arguments["others"])) | self.arguments["keys"]

    @functools.cached_property
    def _schedules(self) -> dict[str, StatefulSchedule]:
        """The schedules among the hyperparameters, each made stateful."""
        found = {n: x for n, x in self._numbers.items() if isinstance(x, Schedule)}
        return {name: _with_state(x) for name, x in found.items()}

    def _arrays(self, name: str, value: Any) -> Any:
        """The numbers of one hyperparameter as arrays, in the dtypes that the state keeps."""
        wanted = self.arguments["hyperparam_dtype"]

        def array(x: Any, given: Any) -> jax.Array:
            own = getattr(given, "dtype", None)
            weak = getattr(given, "weak_type", False)
            kept = own if own is not None and is_inexact(given) and not weak else scalar_dtype()
            return cast(jnp.asarray(x), wanted or kept)

        given = self._numbers.get(name)
        if isinstance(given, Schedule) or given is None:
            return jax.tree.map(lambda x: array(x, None), value)
        return jax.tree.map(array, value, given)

    def _inner(self, hyperparams: dict[str, Any]) -> GradientTransformation:
        factory = self.arguments["factory"]
        arguments = self._fixed | hyperparams
        signature = inspect.signature(factory)
        # In the order of the signature, since some arguments may be positional only.
        ordered = {name: arguments[name] for name in signature.parameters if name in arguments}
        bound = inspect.BoundArguments(signature, ordered)
        where = f"inject_hyperparams: what {_name(factory)} returns"
        return as_transformation(factory(*bound.args, **bound.kwargs), where)

    def replace(self, **changes: Any) -> Any:
        """The same with some of the factory's arguments changed."""
        own = self.arguments
        injected = inject_hyperparams(own["factory"], own["static_args"], own["hyperparam_dtype"])
        return injected(**(self._fixed | self._numbers | changes))

    def _named(self) -> dict[str, Any]:
        return self._fixed | self._numbers

    def _has(self, name: str) -> bool:
        return name in inspect.signature(self.arguments["factory"]).parameters

    def _text(self) -> str:
        arguments = self._fixed | self._numbers
        names = inspect.signature(self.arguments["factory"]).parameters
        shown = ", ".join(f"{n}={code(arguments[n])}" for n in names if n in arguments)
        return f"inject_hyperparams({_name(self.arguments['factory'])})({shown})"


def _with_state(schedule: Schedule) -> StatefulSchedule:
    function = schedule.arguments.get("function") if isinstance(schedule, FunctionSchedule) else 0
    return function if isinstance(function, StatefulSchedule) else WrappedSchedule(schedule)


def _needs_nothing(schedule: StatefulSchedule) -> bool:
    """Whether a schedule can be called with its state alone."""
    _, *others = inspect.signature(schedule.__call__).parameters.values()
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(p.kind in optional or p.default is not p.empty for p in others)


def _name(factory: Callable[..., Any]) -> str:
    return getattr(factory, "__name__", None) or repr(factory)


_Numbers = Annotated[Any, Numbers("finite numbers", np.isfinite)]
_Keys = Annotated[Any, Instance()]
_NONE: dict[str, Any] = {}


@makes(Injected, name="inject_hyperparams")
def injection(
    factory: Any,
    static_args: Any = (),
    numbers: _Numbers = _NONE,
    keys: _Keys = _NONE,
    others: Any = _NONE,
    hyperparam_dtype: DType | None = None,
) -> tuple[object, ...]:
    """The factory, called at every step with the numbers held in the state."""
    return factory, static_args, numbers, keys, others, hyperparam_dtype


def inject_hyperparams(
    inner_factory: Callable[..., TransformationLike],
    static_args: str | Iterable[str] = (),
    hyperparam_dtype: DTypeLike | None = None,
) -> Callable[..., GradientTransformation]:
    """Keep the numeric arguments of a factory in the state, where they can be read and set.

        tx = inject_hyperparams(adamw)(learning_rate=0.1)
        state.hyperparams["learning_rate"]

    With gradtx you need this only for code that expects it: any number may be a schedule, and a
    transformation passed to a jitted function takes a new number without a retrace.

    All numbers of a gradtx definition are kept. For any other factory, an int whose default is an
    int is not kept (it is a size, which must be known when the program is traced), and a function
    counts as a schedule unless it is the default.

    Args:
        inner_factory: a function that returns a transformation, such as `adamw`, or one of your
            own.
        static_args: the name, or the names, of arguments to pass on as they are.
        hyperparam_dtype: the dtype of the numbers in the state, whatever the dtype of the
            parameters. None means float32 (float64 under x64), and for an array its own.

    Returns: a function that takes the arguments of inner_factory and returns the transformation.
    Its state, an `InjectStatefulHyperparamsState`, holds a count, the numbers in `hyperparams`,
    the states of schedules, and the inner state.

    Raises: ValueError for a name in static_args that the factory does not have.

    Example:
        >>> params = jnp.array([1.0])
        >>> tx = gradtx.inject_hyperparams(gradtx.sgd)(learning_rate=0.1)
        >>> state = tx.init(params)
        >>> state.hyperparams["learning_rate"] = jnp.asarray(0.5)
        >>> updates, state = tx.update(params, state, params)
        >>> updates
        Array([-0.5], dtype=float32)
    """
    names = (static_args,) if isinstance(static_args, str) else tuple(static_args)
    parameters = inspect.signature(inner_factory).parameters
    unknown = [name for name in names if name not in parameters]
    if unknown:
        raise ValueError(
            f"inject_hyperparams: {_name(inner_factory)} has no argument {unknown[0]!r}; it takes "
            f"{', '.join(parameters)}"
        )

    @functools.wraps(inner_factory)
    def injected(*args: Any, **kwargs: Any) -> GradientTransformation:
        try:
            bound = inspect.signature(inner_factory).bind(*args, **kwargs)
        except TypeError as error:
            takes = ", ".join(parameters)
            where = f"inject_hyperparams({_name(inner_factory)})"
            raise TypeError(f"{where}: {error}; it takes {takes}") from None
        bound.apply_defaults()
        numbers = {
            name: value
            for name, value in bound.arguments.items()
            if name not in names and _is_kept(inner_factory, parameters[name], value)
        }
        rest = {n: x for n, x in bound.arguments.items() if n not in numbers}
        keys = {n: x for n, x in rest.items() if is_random_key(x)}
        others = {n: x for n, x in rest.items() if n not in keys}
        return injection(inner_factory, names, numbers, keys, others, hyperparam_dtype)

    return injected


def _is_kept(factory: Callable[..., Any], parameter: inspect.Parameter, value: Any) -> bool:
    """Whether an argument of a factory is a number to keep in the state."""
    if value is None or isinstance(value, bool | np.bool_) or is_random_key(value):
        return False
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return False
    if isinstance(factory, Definition):
        return factory.is_number(parameter.name)
    if isinstance(value, int):
        return not isinstance(parameter.default, int)
    if is_function(value) or isinstance(value, Schedule | StatefulSchedule):
        return value is not parameter.default
    return isinstance(value, float | np.ndarray | np.generic | jax.Array)
