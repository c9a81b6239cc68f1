"""Looking at the updates on their way: measurements that stay in the state."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.decorators import per_tree
from gradtx.core.definition import makes
from gradtx.core.dtypes import cast, is_inexact, scalar_dtype, widen_tree
from gradtx.core.inner import Inner
from gradtx.core.kinds import Decay, DType, Instance
from gradtx.core.leaves import Leaves
from gradtx.core.origin import wrong
from gradtx.core.rule import Rule
from gradtx.core.state import EmptyState, OptState, Params, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import Value, show
from gradtx.transforms.momentum import ema

__all__ = ["MonitorState", "SnapshotState", "measure_with_ema", "monitor", "snapshot"]


class SnapshotState(NamedTuple):
    """The last measurement, by its name."""

    measurement: dict[str, Any]


class MonitorState(NamedTuple):
    """The last measurements by name, and the states of those that keep one."""

    measurements: dict[str, Any]
    measure_states: tuple[OptState, ...]


@per_tree
def snapshot(measure_name: str, measure: Callable[[Updates], Any]) -> Any:
    """u = g, and state.measurement[measure_name] = measure(g).

    At a place in a chain, g is what the parts before it made of the gradient. The first state
    holds measure(params), which must have the shape of a measurement.
    """

    def init(params: Any) -> SnapshotState:
        first = jax.tree.map(_own, measure(params))
        return SnapshotState({measure_name: first})

    def update(updates: Any, state: Any) -> Any:
        last, measured = state.measurement, measure(updates)
        return updates, SnapshotState({name: _filled(x, measured) for name, x in last.items()})

    return Rule(init, update)


class Measure(Value):
    """A measurement of updates, with a state: `init(params)` and `update(updates, state, params)`.

    It is no transformation of the updates; give it to `monitor`.
    """

    _for_users = (*Value._for_users, "init", "update")

    @classmethod
    def _accept(cls, where: str, value: Any) -> Value:
        if isinstance(value, Measure | GradientTransformation):
            return value
        if callable(value):
            return measure_by_function(value)
        raise TypeError(
            f"{where} must be a function, a measure or a transformation, got {show(value)}"
        )

    def init(self, params: Params) -> OptState:
        """The state before the first measurement."""
        return EmptyState()

    def update(
        self, updates: Updates, state: OptState, params: Params | None = None, **extra: Any
    ) -> tuple[Any, OptState]:
        """The measurement and the next state."""
        return self.arguments["measure"](updates), state


class FunctionMeasure(Measure):
    """A user's plain function of the updates, kept as it is."""

    def __repr__(self) -> str:
        return show(self.arguments["measure"])


@makes(FunctionMeasure)
def measure_by_function(measure: Callable[[Updates], Any]) -> Any:
    """measure(updates)"""
    return measure


class MeasureWithEma(Measure):
    """A measurement and its running mean."""

    @functools.cached_property
    def _mean(self) -> GradientTransformation:
        names = ("decay", "debias", "accumulator_dtype")
        return ema(**{name: self.arguments[name] for name in names})

    def init(self, params: Params) -> OptState:
        """No measurement yet: its running mean is zero."""
        # Zeros like something that is measured lie where that lies.
        zeros = jax.tree.map(jnp.zeros_like, self.arguments["measure"](params))
        return EmptyState(), self._mean.init(_floating(zeros))

    def update(
        self, updates: Updates, state: OptState, params: Params | None = None, **extra: Any
    ) -> tuple[Any, OptState]:
        """The running mean and the next state."""
        if not isinstance(state, tuple) or len(state) != 2:
            raise wrong(state, "the tuple of 2 that measure_with_ema keeps", "")
        measured = _floating(self.arguments["measure"](updates))
        mean, new = Inner(self._mean)(measured, state[1])
        return mean, (state[0], new)


@makes(MeasureWithEma)
def measure_with_ema(
    measure: Callable[[Updates], Any],
    decay: Decay,
    debias: bool = True,
    accumulator_dtype: DType | None = None,
) -> Any:
    """The running mean of measure(updates), for `monitor`; booleans count as 0 and 1.

    mean <- decay mean + (1 - decay) measure(g), without the bias of its start if debias holds.
    """
    return measure, decay, debias, accumulator_dtype


MeasureLike = Annotated[Any, Instance(Measure)]


@per_tree
def monitor(measures: Mapping[str, MeasureLike]) -> Any:
    """u = g, and state.measurements holds what each of `measures` makes of g, by name.

    A measure is a function of the updates, `measure_with_ema(...)`, or a transformation, whose
    updates then are the measurement. Before the first update the measurements are zero; what is
    measured leaf by leaf stays as it is where there is no update (None).

    Raises: TypeError for what is none of these.
    """

    def init(params: Any) -> MonitorState:
        states = tuple(m.init(params) for m in measures.values())
        # Measured once, so that what is shaped like params is also placed like them.
        measured, _ = _measure_all(measures, params, states, params, {})
        return MonitorState(jax.tree.map(jnp.zeros_like, measured), states)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        measured, states = _measure_all(measures, updates, state.measure_states, params, extra)
        last = state.measurements
        filled = {name: _filled(last.get(name), x) for name, x in measured.items()}
        return updates, MonitorState(filled, states)

    return Rule(init, update)


def _measure_all(
    measures: Mapping[str, Any], updates: Any, states: Any, params: Any, extra: dict[str, Any]
) -> tuple[dict[str, Any], tuple[OptState, ...]]:
    made = [
        m.update(updates, state, params, **extra)
        for m, state in zip(measures.values(), states, strict=True)
    ]
    measured = {name: x for name, (x, _) in zip(measures, made, strict=True)}
    return measured, tuple(state for _, state in made)


def _filled(last: Any, measured: Any) -> Any:
    """The measurement, with the last one where there was no update to measure."""
    new = Leaves.of(measured)
    try:
        old = new.treedef.flatten_up_to(last)
    except ValueError:
        return measured  # of another structure, which the plumbing refuses by name
    return new.tree(y if x is None else x for x, y in zip(new.values, old, strict=True))


def _own(x: Any) -> jax.Array:
    """A buffer of its own, so that it can be donated beside the params."""
    return jnp.array(x, copy=True)


def _floating(tree: Any) -> Any:
    """Measured numbers, counts and flags as floating numbers in float32 or wider."""

    def one(x: Any) -> jax.Array:
        array = jnp.asarray(x)
        return array if is_inexact(array) else cast(array, scalar_dtype())

    return widen_tree(jax.tree.map(one, tree))
