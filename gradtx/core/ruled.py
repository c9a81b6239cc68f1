"""What rules of one array and rules of trees share: reading their inputs, numbers and states."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar, TypeGuard

import jax
import jax.numpy as jnp

from gradtx.core.counts import increment, split_count
from gradtx.core.hyperparameters import Number
from gradtx.core.leaves import describe, is_function
from gradtx.core.origin import (
    Held,
    StateError,
    as_class,
    is_like,
    is_nothing,
    made_by,
    restored_hint,
    show_class,
    show_state,
    wrong,
)
from gradtx.core.place import Place
from gradtx.core.problem import Extra, accepted
from gradtx.core.rule import Inputs, Rule, as_rule, inputs_of
from gradtx.core.schedule import Schedule, at
from gradtx.core.state import (
    EmptyState,
    OptState,
    ScaleByScheduleState,
    ScheduledState,
    StateClass,
    shared_fields,
)
from gradtx.core.transformation import GradientTransformation, check_rounds_outside

# The names by which a rule asks for the params, an old one among them.
_PARAMS = frozenset(("param", "params", "stored_params"))


class Ruled(GradientTransformation):
    """A transformation defined by a `Rule`."""

    # What the rule's init and update may ask for by name.
    init_names: ClassVar[tuple[str, ...]]
    update_names: ClassVar[tuple[str, ...]]

    def _check(self) -> None:
        _ = self.inputs, self.init_inputs, self.precompute_inputs, self._kept_class
        if Place.LAST not in self.place:
            check_rounds_outside(self.definition.name, self._inside)

    # -- the rule ----------------------------------------------------------------------------------

    @cached_property
    def rule(self) -> Rule:
        """The rule with example numbers instead of schedules: for reading its signatures, not for
        running it."""
        return as_rule(self.definition.call(self._unscheduled), self.definition.name)

    @property
    def _unscheduled(self) -> dict[str, Any]:
        """The arguments, with example numbers instead of schedules."""
        return {
            name: jax.tree.map(
                lambda x, name=name: self._example(name) if isinstance(x, Schedule) else x,
                value,
                is_leaf=_is_schedule,
            )
            if self.definition.is_number(name)
            else value
            for name, value in self.arguments.items()
        }

    def _example(self, name: str) -> float:
        kind = self.definition.parameters[name]
        assert isinstance(kind, Number)
        return kind.example

    @cached_property
    def inputs(self) -> Inputs:
        """What the rule's `update` asks for."""
        return self._inputs_of("update", self.update_names + self._bound_names)

    @cached_property
    def init_inputs(self) -> Inputs:
        """What the rule's `init` asks for."""
        return self._inputs_of("init", self.init_names + self._bound_names)

    @cached_property
    def precompute_inputs(self) -> Inputs:
        """What the rule's `precompute` asks for."""
        return self._inputs_of("precompute", ("updates", "params", "step"))

    def _inputs_of(self, part: str, allowed: tuple[str, ...]) -> Inputs:
        where = f"{self.definition.name}: {part}"
        return inputs_of(getattr(self.rule, part), allowed, where)

    # The names of the arguments that are transformations: a wrapper may ask for them.
    _bound_names: tuple[str, ...] = ()

    @cached_property
    def place(self) -> Place:
        """The place that the rule declares."""
        place = self.rule.place
        if "stored_params" in self.inputs.names:  # last release's way to return updates unchanged
            for tx in self._inside:
                place |= tx.place & Place.LAST
        return place

    @cached_property
    def _inside(self) -> list[GradientTransformation]:
        """The transformations among the arguments, to any depth of containers."""
        inner = jax.tree.leaves(dict(self.arguments), is_leaf=_is_transformation)
        return list(filter(_is_transformation, inner))

    def takes(self, name: str, extra: Extra) -> bool:
        """Whether the rule asks for it by name, or takes `**extra` and passes it to something that
        reads it: a transformation inside, a function among the arguments, or `value_fn`."""
        inside = self._inside
        if name in self.inputs.extra:
            return True
        if not self.inputs.all_extra:
            return self._binds and any(tx.takes(name, extra) for tx in inside)
        functions = [x for x in self.arguments.values() if is_function(x)]
        if "value_fn" in self.inputs.extra:
            functions.append(extra["value_fn"])
        if not functions and not inside:
            return True
        by_function = any(accepted(function, {name: None}) for function in functions)
        return by_function or any(tx.takes(name, extra) for tx in inside)

    @cached_property
    def _binds(self) -> bool:
        """Whether the rule's update asks for a transformation among its arguments."""
        return not self.inputs.names.isdisjoint(self._bound_names)

    @cached_property
    def _requires(self) -> bool:
        """Whether its update needs params or an extra argument."""
        inputs = self.inputs
        return bool(inputs.required_extra or inputs.required & _PARAMS)

    def check_given(self, who: object, has_params: bool, extra: Extra) -> None:
        """Raise if the rule needs params or an extra argument that was not given, naming `who`."""
        if not has_params and self.inputs.required & _PARAMS:
            raise ValueError(f"{who} needs the parameters: call update(grads, state, params)")
        missing = self.inputs.required_extra - extra.keys()
        if missing:
            given = ", ".join(f"{name}=..." for name in sorted(missing))
            raise TypeError(
                f"{who} needs {', '.join(sorted(missing))}: "
                f"call update(grads, state, params, {given})"
            )

    # -- hyperparameters ---------------------------------------------------------------------------

    @cached_property
    def _numbers(self) -> dict[str, Any]:
        """The numeric hyperparameters: numbers, arrays and schedules."""
        return {n: x for n, x in self.arguments.items() if self.definition.is_number(n)}

    @cached_property
    def _options(self) -> dict[str, Any]:
        """The arguments that are not numeric."""
        return {n: x for n, x in self.arguments.items() if n not in self._numbers}

    @cached_property
    def _is_scheduled(self) -> bool:
        """Whether any numeric hyperparameter is a schedule."""
        return any(map(_is_schedule, jax.tree.leaves(self._numbers, is_leaf=_is_schedule)))

    def numbers_at(self, count: jax.Array) -> dict[str, Any]:
        """The numeric hyperparameters at this step, with schedules evaluated once per tree.

        count: the number of updates before this one, so that schedules start at 0.
        """
        return at(self._numbers, count)

    # -- the state ---------------------------------------------------------------------------------

    @property
    def begins_with_params(self) -> bool:
        """Whether the rule has an init."""
        return self.rule.init is not None

    @cached_property
    def counted(self) -> bool:
        """Whether a step count must be kept: for `step`, or for a schedule."""
        asks_for_it = "step" in self.inputs.names | self.precompute_inputs.names
        return asks_for_it or self._is_scheduled

    @cached_property
    def keeps_nothing(self) -> bool:
        """Whether its state is empty: neither a state of the rule's own nor a count."""
        return self.rule.init is None and not self.counted

    @cached_property
    def state_class(self) -> StateClass | None:
        """The class of the rule's own state, read from its init's return annotation; None if it is
        not annotated."""
        return EmptyState if self.rule.init is None else made_by(self.rule.init)

    @cached_property
    def _kept_class(self) -> StateClass | None:
        """The class of the whole state, if that is known and the rule's own state is not wrapped
        in a `ScheduledState`: such a state is accepted by its class alone."""
        own = self.state_class
        if own is EmptyState:
            return ScaleByScheduleState if self.counted else EmptyState
        return own if own is not None and (not self.counted or any(shared_fields(own))) else None

    def _split(self, state: OptState, path: str) -> list[Held]:
        known = type(state) is self._kept_class
        return [Held(state if known else self._accepted(state, path), path)]

    def _accepted(self, state: OptState, path: str) -> OptState:
        """The state in this library's classes; a state that this init could not make is an error.

        A count that was kept for a schedule may stay when a number replaces the schedule.
        """
        own = self.state_class
        if self.keeps_nothing and is_nothing(state):
            return state
        if own is EmptyState and is_like(state, ScaleByScheduleState):
            return as_class(state, ScaleByScheduleState)
        beside = is_like(state, ScheduledState)
        mine = state.inner_state if beside else state
        if not self._is_own(mine):
            raise self.foreign_state(state, path)
        mine = as_class(mine, own)
        has_count = split_count(mine)[0] is not None
        if has_count if beside else self.counted and not has_count:
            raise self.foreign_state(state, path)
        return ScheduledState(state.count, mine) if beside else mine

    def _is_own(self, state: OptState) -> bool:
        """Whether it can be the rule's own state, not wrapped in a `ScheduledState`."""
        if self.state_class is None:
            return not is_like(state, EmptyState)
        return is_like(state, self.state_class)

    def foreign_state(self, state: OptState, path: str = "") -> StateError:
        """The error for a state that another transformation made."""
        name, own = self.definition.name, self.state_class
        if own is None:
            return wrong(state, f"one that the init of {name} makes", path)
        counts = self.counted and not any(shared_fields(own))
        kept = own if not counts else ScaleByScheduleState if own is EmptyState else ScheduledState
        hint = restored_hint(state, kept._fields)
        if counts and self._is_scheduled and (is_nothing(state) or is_like(state, own)):
            hint = ": a schedule in place of a number adds a step count to the state"
        return wrong(state, f"the {show_class(kept)} of {name}", path, hint)

    def read_count(self, state: OptState) -> tuple[OptState, Any, Any]:
        """The rule's own state, the count before this step, and the count that includes it.

        The counts are int32 scalars, or both None if no count is kept.
        """
        if type(state) is EmptyState or (self.keeps_nothing and is_nothing(state)):
            return EmptyState(), None, None
        old, own = split_count(state)
        if old is None:
            if self.counted:
                raise self.foreign_state(state)
            return own, None, None
        if not jnp.issubdtype(jnp.asarray(old).dtype, jnp.integer):
            problem = f"{show_state(state)} with a count that is not an integer, {describe(old)}"
            raise StateError.of(self.definition.name, problem, "", state)
        return own, old, increment(old)


def _is_transformation(x: object) -> TypeGuard[GradientTransformation]:
    return isinstance(x, GradientTransformation)


def _is_schedule(x: object) -> TypeGuard[Schedule]:
    return isinstance(x, Schedule)
