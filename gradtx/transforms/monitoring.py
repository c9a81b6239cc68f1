"""Monitoring updates on their way through a chain: measurements kept in the state."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx.core.decorators import per_tree
from gradtx.core.definition import makes
from gradtx.core.dtypes import cast, is_inexact, scalar_dtype, widen_tree
from gradtx.core.hyperparameters import Decay, DType, Instance
from gradtx.core.inner import Inner
from gradtx.core.leaves import Leaves
from gradtx.core.origin import wrong
from gradtx.core.printing import show
from gradtx.core.rule import Rule
from gradtx.core.state import EmptyState, OptState, Params, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import Value
from gradtx.transforms.momentum import ema
from gradtx.tree.types import Tree

__all__ = ["MonitorState", "SnapshotState", "measure_with_ema", "monitor", "snapshot"]


class SnapshotState(NamedTuple):
    """The last measurement, an array or a tree of them, under its name."""

    measurement: dict[str, Updates]


class MonitorState(NamedTuple):
    """The last measurements by name, and the state of each measure, in the same order."""

    measurements: dict[str, Updates]
    measure_states: tuple[OptState, ...]


@per_tree
def snapshot(measure_name: str, measure: Callable[[Updates], Tree]) -> Rule:
    """Keep a measurement of the updates in the state, and leave the updates as they are.

        u = g,                          state.measurement[measure_name] = measure(g)

    Within a chain, g is the output of the links before this one. The initial state holds
    measure(params), which must have the shapes of a measurement.

    Args:
        measure_name: the name of the measurement in the state.
        measure: a function of the updates, a tree like the params, to an array or a tree of arrays,
            such as `gradtx.global_norm`.

    State: the last measurement.

    Example:
        >>> tx = gradtx.chain(gradtx.snapshot("norm", gradtx.global_norm), gradtx.sgd(0.1))
        >>> grads = jnp.array([3.0, 4.0])
        >>> updates, state = tx.update(grads, tx.init(grads))
        >>> print(gradtx.tree.get(state, "measurement"))
        {'norm': Array(5., dtype=float32)}

    See also: `monitor`, `gradtx.tree.get`.
    """

    def init(params: Params) -> SnapshotState:
        first = jax.tree.map(_own, measure(params))
        return SnapshotState({measure_name: first})

    def update(updates: Updates, state: SnapshotState) -> tuple[Updates, SnapshotState]:
        last, measured = state.measurement, measure(updates)
        return updates, SnapshotState({name: _filled(x, measured) for name, x in last.items()})

    return Rule(init, update)


class Measure(Value):
    """A measurement of updates, with a state: `init(params)` and `update(updates, state, params)`.

    It does not transform the updates; pass it to `monitor`.
    """

    _for_users = (*Value._for_users, "init", "update")

    @classmethod
    def _accept(cls, where: str, value: object) -> Value:
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
        return self._measured(updates, params), state

    def _measured(self, updates: Updates, params: Params | None) -> Any:
        """The user's function of the updates and, if it asks for them, the params."""
        measure = self.arguments["measure"]
        if not _asks_for_params(measure):
            return measure(updates)
        if params is None:
            raise ValueError(
                f"monitor: the measure {show(measure)} asks for params: call update(grads, state, "
                "params)"
            )
        return measure(updates, params=params)


def _asks_for_params(measure: Callable[..., Any]) -> bool:
    """Whether a function has a parameter `params` after its first, which is for the updates."""
    try:
        parameters = inspect.signature(measure).parameters
    except ValueError:
        return False  # nothing is known about one written in C
    return "params" in list(parameters)[1:]


class FunctionMeasure(Measure):
    """A plain function of the updates, as the user gave it."""

    def _stands_for(self) -> Any:
        return self.arguments["measure"]

    def _text(self) -> str:
        return show(self._stands_for())


@makes(FunctionMeasure)
def measure_by_function(measure: Callable[..., Any]) -> object:
    """measure(updates)"""
    return measure


class MeasureWithEma(Measure):
    """A measurement and its running mean."""

    @functools.cached_property
    def _mean(self) -> GradientTransformation:
        names = ("decay", "debias", "accumulator_dtype")
        return ema(**{name: self.arguments[name] for name in names})

    def init(self, params: Params) -> OptState:
        """The state before the first measurement: a running mean of zero."""
        # Zeros like a measurement of the params are placed where that measurement is.
        zeros = jax.tree.map(jnp.zeros_like, self._measured(params, params))
        return EmptyState(), self._mean.init(_floating(zeros))

    def update(
        self, updates: Updates, state: OptState, params: Params | None = None, **extra: Any
    ) -> tuple[Any, OptState]:
        """The running mean and the next state."""
        if not isinstance(state, tuple) or len(state) != 2:
            raise wrong(state, "the tuple of 2 that measure_with_ema keeps", "")
        measured = _floating(self._measured(updates, params))
        mean, new = Inner(self._mean)(measured, state[1])
        return mean, (state[0], new)


@makes(MeasureWithEma)
def measure_with_ema(
    measure: Callable[..., Tree],
    decay: Decay,
    debias: bool = True,
    accumulator_dtype: DType | None = None,
) -> object:
    """Measure the running mean of a function of the updates, for `monitor`.

        mean <- decay * mean + (1 - decay) * measure(g)

    Booleans count as 0 and 1, so that the mean of a condition is how often it holds. With debias
    the measurement is mean / (1 - decay^t).

    Args:
        measure: a function of the updates, a tree like the params, to an array or a tree of arrays,
            such as `gradtx.global_norm`. One with a parameter `params` is given the params too.
        decay: the decay of the running mean, which reaches back about 1 / (1 - decay) steps. Larger
            is smoother and slower to change.
        accumulator_dtype: the dtype in which the mean is stored; None keeps float32 or wider.

    State: the mean, kept by `monitor`.

    Example:
        >>> mean = gradtx.measure_with_ema(gradtx.global_norm, 0.5, debias=False)
        >>> tx = gradtx.monitor({"mean norm": mean})
        >>> state = tx.init(jnp.zeros(2))
        >>> for scale in (1.0, 2.0):
        ...     _, state = tx.update(scale * jnp.array([3.0, 4.0]), state)
        >>> print(state.measurements["mean norm"])  # of 5 and 10
        6.25

    See also: `monitor`, `ema`.
    """
    return measure, decay, debias, accumulator_dtype


MeasureLike = Annotated[Any, Instance(Measure)]


@per_tree
def monitor(measures: Mapping[str, MeasureLike]) -> Rule:
    """Keep named measurements of the updates in the state, and leave the updates as they are.

        u = g,                          state.measurements[name] = measures[name](g)

    Within a chain, g is the output of the links before this one. Before the first update the
    measurements are zero. A per-leaf measurement keeps its last value where there is no update
    (None).

    Args:
        measures: a dict of measures by name. A measure is a function of the updates, and of the
            `params` if it has a parameter of that name; `measure_with_ema(...)`; or a
            transformation, whose updates are then the measurement.

    State: the last measurements, and the states of the measures.

    Raises: TypeError for anything else as a measure; ValueError in update if a measure asks for
    params and none were given.

    Example:
        >>> largest = lambda g: jnp.max(jnp.abs(g))
        >>> tx = gradtx.monitor({"norm": gradtx.global_norm, "largest": largest})
        >>> grads = jnp.array([3.0, -4.0])
        >>> updates, state = tx.update(grads, tx.init(grads))
        >>> print(state.measurements["norm"], state.measurements["largest"])
        5.0 4.0

    See also: `report`, which needs no place in the chain; `snapshot`, `measure_with_ema`,
    `gradtx.tree.get`.
    """

    def init(params: Params) -> MonitorState:
        states = tuple(m.init(params) for m in measures.values())
        # Measure the params, so that measurements shaped like them are also placed like them.
        measured, _ = _measure_all(measures, params, states, params, {})
        return MonitorState(jax.tree.map(jnp.zeros_like, measured), states)

    def update(
        updates: Updates, state: MonitorState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, MonitorState]:
        measured, states = _measure_all(measures, updates, state.measure_states, params, extra)
        last = state.measurements
        filled = {name: _filled(last.get(name), x) for name, x in measured.items()}
        return updates, MonitorState(filled, states)

    return Rule(init, update)


def _measure_all(
    measures: Mapping[str, Any],
    updates: Updates,
    states: Sequence[OptState],
    params: Params,
    extra: dict[str, Any],
) -> tuple[dict[str, Any], tuple[OptState, ...]]:
    made = [
        m.update(updates, state, params, **extra)
        for m, state in zip(measures.values(), states, strict=True)
    ]
    measured = {name: x for name, (x, _) in zip(measures, made, strict=True)}
    return measured, tuple(state for _, state in made)


def _filled(last: Updates, measured: Updates) -> Updates:
    """The measurement, with the last one in place of leaves that had no update to measure."""
    new = Leaves.of(measured)
    try:
        old = new.treedef.flatten_up_to(last)
    except ValueError:
        return measured  # of another structure: the plumbing raises an error that names it
    return new.tree(y if x is None else x for x, y in zip(new.values, old, strict=True))


def _own(x: ArrayLike) -> Array:
    """A copy in a buffer of its own, so that it can be donated along with the params."""
    return jnp.array(x, copy=True)


def _floating(tree: Updates) -> Updates:
    """Measurements, which may be counts or flags, in float32 or wider."""

    def one(x: ArrayLike) -> Array:
        array = jnp.asarray(x)
        return array if is_inexact(array) else cast(array, scalar_dtype())

    return widen_tree(jax.tree.map(one, tree))
