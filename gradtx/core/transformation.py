"""The value that users hold: a gradient transformation, and the links that it is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.kinds import Number
from gradtx.core.leaves import describe, is_function
from gradtx.core.mask import Mask
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
from gradtx.core.problem import accepted, check_known
from gradtx.core.rule import Asks, Rule, as_rule, asks, increment
from gradtx.core.schedule import Schedule, at
from gradtx.core.state import (
    EmptyState,
    OptState,
    Params,
    ScaleByScheduleState,
    ScheduledState,
    Updates,
    shared_fields,
    split_count,
)
from gradtx.core.value import Value


class GradientTransformation(Value):
    """A pair of pure functions, `init` and `update`, that is also a value.

    `state = tx.init(params)`; `updates, state = tx.update(grads, state, params, **extra)`;
    `init, update = tx`. Its hyperparameters are attributes (`tx.learning_rate`) and the leaves of
    a pytree: pass `tx` to a jitted function and a new learning rate does not retrace; map over
    one with `jax.vmap`; differentiate with respect to one with `jax.grad`.

    `GradientTransformation(init, update)` makes one from a pair of functions.
    """

    def __new__(cls, init: Callable[..., Any], update: Callable[..., Any]) -> Any:
        """A transformation from a pair of functions."""
        from gradtx.core.foreign import from_functions

        return from_functions(init, update)

    def init(self, params: Params) -> OptState:
        """The state before the first update; arrays in it are shaped and placed like params.

        params may be `ShapeDtypeStruct`s where nothing is computed with their values. Raises:
        TypeError where something is, and, with the leaf's path, for what is no floating array.
        """
        from gradtx.core.run import init

        return init(self, params)

    def update(
        self, updates: Updates, state: OptState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, OptState]:
        """The transformed updates, in the dtypes of params (of updates without it), and the state.

        Raises: ValueError where trees or shapes differ (with the leaf's path) or params that a part
        needs are missing, TypeError where an extra argument that it needs, such as value=, is, and
        for one that nobody knows beside a value_fn.
        """
        from gradtx.core.run import update

        check_known(self, lambda name: self.takes(name, extra), extra)
        return update(self, updates, state, params, extra)

    @classmethod
    def _accept(cls, where: str, value: Any) -> GradientTransformation:
        from gradtx.core.foreign import as_transformation

        return as_transformation(value, where)

    def __iter__(self) -> Iterator[Any]:
        yield self.init
        yield self.update

    def __getitem__(self, index: int) -> Any:
        """tx[0] is init, tx[1] is update."""
        return (self.init, self.update)[index]

    @property
    def parts(self) -> tuple[GradientTransformation, ...]:
        """The transformations that this one is made of, in the order in which they run."""
        return ()

    @property
    def unrounded(self) -> bool:
        """Whether its updates leave in float32 or wider whatever the parameter's dtype."""
        inner = (link.transformation for link in self._links())
        return any(tx.unrounded for tx in inner if tx is not self)

    @property
    def per_example(self) -> bool:
        """Whether it takes the gradients of single examples, along a first axis of every leaf."""
        inner = (link.transformation for link in self._links())
        return any(tx.per_example for tx in inner if tx is not self)

    @property
    def begins_with_params(self) -> bool:
        """Whether its init looks at the parameters, so that None cannot stand in their place."""
        return True

    # Whether the gradients of single examples, along a first axis, pass through it as such.
    keeps_examples = False

    def takes(self, name: str, extra: Mapping[str, Any]) -> bool:
        """Whether something in it looks, or may look, at this extra argument."""
        links = (link.transformation for link in self._links())
        inside = [tx for tx in links if tx is not self] or self.parts
        return not inside or any(tx.takes(name, extra) for tx in inside)

    def _has(self, name: str) -> bool:
        return name in self.arguments

    def _can_ignore(self) -> bool:
        """Whether there may be leaves whose gradients it does not look at."""
        return False

    def _ignored(self, work: Any, selected: list[bool]) -> list[bool]:
        """Which of the selected leaves these are."""
        return [chosen and self._can_ignore() for chosen in selected]

    # How a composite lies along the line of links: see core/run.py.

    def _links(self) -> tuple[Link, ...]:
        return (Link(self),)

    def _split(self, state: OptState, path: str) -> list[Held]:
        return [Held(state, path)]

    def _join(self, states: Iterator[OptState]) -> OptState:
        return next(states)

    def _init(self, params: Params) -> OptState:
        raise TypeError(f"{type(self).__name__} does not say how it starts")

    def check_given(self, who: object, has_params: bool, extra: dict[str, Any]) -> None:
        """Raise if something that `update` needs was not given; `who` is named in the error."""


class Link(NamedTuple):
    """One transformation in the line, on all leaves or on those that every mask selects."""

    transformation: Any
    masks: tuple[Mask, ...] = ()
    owner: GradientTransformation | None = None

    def check_given(self, has_params: bool, extra: dict[str, Any]) -> None:
        """An error that says how to give what is missing, under the name that the user wrote."""
        self.transformation.check_given(self.owner or self.transformation, has_params, extra)


class Ruled(GradientTransformation):
    """A transformation that is given by a `Rule`."""

    names: ClassVar[tuple[str, ...]]

    def _check(self) -> None:
        _ = self.asks, self.init_asks, self.gather_asks
        if "stored_params" not in self.asks.names and not self.rule.unrounded:
            check_rounds_outside(self.definition.name, self._inside)

    @cached_property
    def rule(self) -> Rule:
        """The rule with example numbers in place of schedules: to be read, not to be run."""
        arguments = {
            name: jax.tree.map(
                lambda x, name=name: self._example(name) if isinstance(x, Schedule) else x,
                value,
                is_leaf=_is_schedule,
            )
            if self.definition.is_number(name)
            else value
            for name, value in self.arguments.items()
        }
        return as_rule(self.definition.call(arguments), self.definition.name)

    def _example(self, name: str) -> float:
        kind = self.definition.parameters[name]
        assert isinstance(kind, Number)
        return kind.example

    @cached_property
    def asks(self) -> Asks:
        """What the rule's `update` asks for."""
        return asks(self.rule.update, self.names, f"{self.definition.name}: update")

    @cached_property
    def gather_asks(self) -> Asks:
        """What the rule's `gather` asks for."""
        allowed = ("updates", "params", "step")
        return asks(self.rule.gather, allowed, f"{self.definition.name}: gather")

    @cached_property
    def unrounded(self) -> bool:
        """As the rule says, or a transformation among the arguments."""
        return self.rule.unrounded or any(tx.unrounded for tx in self._inside)

    @property
    def _inside(self) -> list[GradientTransformation]:
        """The transformations among the arguments."""
        inner = jax.tree.leaves(dict(self.arguments), is_leaf=_is_transformation)
        return list(filter(_is_transformation, inner))

    @cached_property
    def per_example(self) -> bool:
        """As the rule says."""
        return self.rule.per_example

    def takes(self, name: str, extra: Mapping[str, Any]) -> bool:
        """As the rule asks by name; `**extra` is for what is inside, or for a `value_fn`."""
        if name in self.asks.extra or not self.asks.all_extra:
            return name in self.asks.extra
        functions = [x for x in self.arguments.values() if is_function(x)]
        if "value_fn" in self.asks.extra:
            functions.append(extra["value_fn"])
        inside = self._inside
        if not functions and not inside:
            return True
        by_function = any(accepted(function, {name: None}) for function in functions)
        return by_function or any(tx.takes(name, extra) for tx in inside)

    @property
    def sees_the_tree(self) -> bool:
        """Whether one leaf cannot be updated before the updates of all are known."""
        return bool(self.gather_asks.names & {"updates", "params"})

    @cached_property
    def init_asks(self) -> Asks:
        """What the rule's `init` asks for."""
        allowed = ("param", "params", "stored_params", "step", "stored_dtype")
        return asks(self.rule.init, allowed, f"{self.definition.name}: init")

    @property
    def begins_with_params(self) -> bool:
        """As the rule says."""
        return self.rule.init is not None

    @property
    def counted(self) -> bool:
        """Whether a count of steps must be kept."""
        steps = "step" in self.asks.names | self.gather_asks.names
        return steps or bool(self._schedules())

    def check_given(self, who: object, has_params: bool, extra: dict[str, Any]) -> None:
        """Raise if params or an extra argument that the rule asks for was not given."""
        needs_params = bool(self.asks.required & {"param", "params", "stored_params"})
        if needs_params and not has_params:
            raise ValueError(f"{who} needs the parameters: call update(grads, state, params)")
        missing = sorted(self.asks.required_extra - extra.keys())
        if missing:
            given = ", ".join(f"{name}=..." for name in missing)
            raise TypeError(
                f"{who} needs {', '.join(missing)}: call update(grads, state, params, {given})"
            )

    @cached_property
    def state_class(self) -> Any:
        """The class of the rule's own state; None if its init's annotation does not say."""
        return EmptyState if self.rule.init is None else made_by(self.rule.init)

    def foreign_state(self, state: OptState, path: str = "") -> StateError:
        """The error for a state that another transformation made."""
        name, own = self.definition.name, self.state_class
        if own is None:
            return wrong(state, f"one that the init of {name} makes", path)
        counts = self.counted and not any(shared_fields(own))
        kept = own if not counts else ScaleByScheduleState if own is EmptyState else ScheduledState
        hint = restored_hint(state, kept._fields)
        if counts and self._schedules() and (is_nothing(state) or is_like(state, own)):
            hint = ": a schedule in place of a number adds a step count to the state"
        return wrong(state, f"the {show_class(kept)} of {name}", path, hint)

    def _split(self, state: OptState, path: str) -> list[Held]:
        return [Held(self._accepted(state, path), path)]

    def _accepted(self, state: OptState, path: str) -> OptState:
        """The state in the classes of this library; one that init does not make is an error.

        A count that was kept for a schedule may stay when a number takes its place.
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
        """Whether it is the rule's own state, without a count beside it."""
        if self.state_class is None:
            return isinstance(state, tuple) and not is_like(state, EmptyState)
        return is_like(state, self.state_class)

    def read_count(self, state: OptState) -> tuple[OptState, Any, Any]:
        """The rule's own state, the count before this step and the count with it."""
        if self.keeps_nothing and is_nothing(state):
            return EmptyState(), None, None
        old, own = split_count(state)
        if old is not None and not jnp.issubdtype(jnp.asarray(old).dtype, jnp.integer):
            problem = f"{show_state(state)} with a count that is no integer, {describe(old)}"
            raise StateError.of(self.definition.name, problem, "", state)
        return own, old, None if old is None else increment(old)

    @property
    def keeps_nothing(self) -> bool:
        """Whether its state is empty."""
        return self.rule.init is None and not self.counted

    def _schedules(self) -> list[Schedule]:
        numbers = [self.arguments[n] for n in self.arguments if self.definition.is_number(n)]
        return [x for x in jax.tree.leaves(numbers, is_leaf=_is_schedule) if _is_schedule(x)]

    def numbers_at(self, count: Any) -> dict[str, Any]:
        """The numeric hyperparameters at this step: schedules evaluated, once a tree."""
        return {
            name: at(value, count)
            for name, value in self.arguments.items()
            if self.definition.is_number(name)
        }


def check_rounds_outside(who: str, inside: Iterable[GradientTransformation]) -> None:
    """Refuse what says on which numbers the parameters land inside of `who`, which goes on with
    the updates, or does not hand on the parameters as they are stored."""
    for tx in inside:
        if tx.unrounded:
            raise ValueError(
                f"{who}: {tx} inside of it rounds the parameter, which must come last: round "
                f"outside, chain({who}(...), stochastic_rounding()) or master_weights({who}(...))"
            )


def _is_transformation(x: Any) -> bool:
    return isinstance(x, GradientTransformation)


def _is_schedule(x: Any) -> bool:
    return isinstance(x, Schedule)


class Recipe(GradientTransformation):
    """A named composition: it has hyperparameters of its own and no maths."""

    def _check(self) -> None:
        if not isinstance(self.body, GradientTransformation):
            raise TypeError(
                f"{self.definition.name} must return a gradient transformation such as "
                f"chain(...), got {type(self.body).__name__}"
            )

    @cached_property
    def body(self) -> GradientTransformation:
        """The transformation that the recipe stands for."""
        body: GradientTransformation = self.definition.call(self.arguments)
        return body

    @property
    def parts(self) -> tuple[GradientTransformation, ...]:
        """The parts of the body."""
        return self.body.parts

    def _links(self) -> tuple[Link, ...]:
        links = self.body._links()
        return (links[0]._replace(owner=self),) if len(links) == 1 else links

    def _split(self, state: OptState, path: str) -> list[Held]:
        return self.body._split(state, path)

    def _join(self, states: Iterator[OptState]) -> OptState:
        return self.body._join(states)

    def _init(self, params: Params) -> OptState:
        return self.body._init(params)
