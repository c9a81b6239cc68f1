"""What an author writes: a rule for one array or one tree, and what it may ask for by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from gradtx.core import renamed
from gradtx.core.place import Place
from gradtx.core.state import EmptyState


@dataclass(frozen=True)
class Rule:
    """The maths of one array (`per_leaf`) or of one tree (`per_tree`).

    `init(param)` returns the state; `update(grad, state)` returns the update and the new state.
    Without `init` the rule keeps no state and `update` returns the update alone. A Python number as
    the update of a leaf stands for all of its elements. Counts of steps are kept for the rule: a
    field of the state that is annotated `Count` is None in what `init` returns, and `update`
    returns `state._replace(...)` without it; another count is an error.

    Each function receives what it names, in any order. Of one array:

    - `grad`: the update so far; `param`: the parameter; both in float32 or wider.
    - `state`: what `init`, or the last `update`, returned for this leaf.
    - `step`: the `Step`, with `count` and `debias`.
    - `precomputed`: what `precompute` returned.
    - `leaf`: the `Leaf`: the dtype in which its parameter is kept, and two uint32 made from its
      path, both of which are to be folded into a random key.

    Of a tree:

    - `updates`, `params`: the same as trees, and `state` and `step`.
    - `needed`: the updates, with zeros for the gradients at which no transformation inside looks,
      as of a frozen leaf.
    - any of its arguments that is a transformation, by the name of that argument: bound to this
      step, an `Inner`. That makes it a wrapper: `inner.init()` in init, and in update
      `u, inner_state = inner(updates, state.inner_state)`.

    Keyword-only names are extra arguments of the caller's `update(..., value=loss)`; `**extra`
    takes all.

    precompute (per leaf only): run once a tree, before the leaves. What it returns, such as the
    norm of all `updates`, reaches `update` as `precomputed`. It asks for what it needs of
    `updates`, `params` and `step`.

    place: where in a chain it must stand, `Place.FIRST` or `Place.LAST`. A wrapper that hands on
    the updates of its inner transformation as they are gives that one's place, `inner.place`; what
    is to come last can be inside of no other wrapper.
    """

    init: Callable[..., Any] | None
    update: Callable[..., Any]
    precompute: Callable[..., Any] | None
    place: Place

    def __init__(
        self,
        init: Callable[..., Any] | None,
        update: Callable[..., Any],
        precompute: Callable[..., Any] | None = None,
        place: Place = Place.ANYWHERE,
        **old: Any,
    ):
        if old:
            precompute, place = renamed.rule_fields(old, precompute, place)
        vars(self).update(init=init, update=update, precompute=precompute, place=place)


class Inputs(NamedTuple):
    """The names by which a function asks for its inputs."""

    names: frozenset[str]
    required: frozenset[str]
    extra: frozenset[str]
    required_extra: frozenset[str]
    all_extra: bool = False

    def of(self, extra: dict[str, Any]) -> dict[str, Any]:
        """The extra arguments among the given ones that are asked for."""
        if self.all_extra:
            return dict(extra)
        return {name: extra[name] for name in sorted(self.extra) if name in extra}

    def call(
        self,
        function: Callable[..., Any],
        available: dict[str, Any],
        extra: dict[str, Any] | None = None,
    ) -> Any:
        """The function on those of the available inputs that it asks for, and on extra arguments,
        which may be called as an input is that it does not ask for."""
        named = {name: x for name, x in available.items() if name in self.names}
        if len(named) < len(self.names):
            old = self.names & renamed.INPUTS.keys()
            named |= {name: renamed.INPUTS[name](available) for name in old}
        return function(**((extra or {}) | named))


NOTHING = Inputs(frozenset(), frozenset(), frozenset(), frozenset())


def inputs_of(function: Callable[..., Any] | None, allowed: tuple[str, ...], where: str) -> Inputs:
    """Read what a rule's function asks for; a name that nobody provides is an error."""
    if function is None:
        return NOTHING
    names, required, extra, required_extra = set(), set(), set(), set()
    all_extra = False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            extra.add(parameter.name)
            if parameter.default is parameter.empty:
                required_extra.add(parameter.name)
        elif parameter.kind is parameter.POSITIONAL_OR_KEYWORD and (
            parameter.name in allowed or parameter.name in renamed.INPUTS
        ):
            if parameter.name in renamed.INPUTS:
                renamed.warn_of_input(where, parameter.name)
            names.add(parameter.name)
            if parameter.default is parameter.empty:
                required.add(parameter.name)
        elif parameter.kind is parameter.VAR_KEYWORD:
            all_extra = True
        elif parameter.default is parameter.empty:
            raise TypeError(
                f"{where} asks for {str(parameter)!r}; it may ask for {', '.join(allowed)}, "
                "and for extra arguments as keyword-only names"
            )
    return Inputs(
        names=frozenset(names),
        required=frozenset(required),
        extra=frozenset(extra),
        required_extra=frozenset(required_extra),
        all_extra=all_extra,
    )


def as_rule(returned: Any, where: str) -> Rule:
    """A rule, or a bare update function of a rule that keeps no state."""
    if isinstance(returned, Rule):
        return returned
    if callable(returned):
        return Rule(None, returned)
    raise TypeError(
        f"{where} must return a Rule(init, update) or an update function, "
        f"got {type(returned).__name__}"
    )


def split_result(rule: Rule, result: Any, where: str) -> tuple[Any, Any]:
    """What `update` returned, as (update, state)."""
    if rule.init is None:
        return result, EmptyState()
    if type(result) is not tuple or len(result) != 2:
        raise TypeError(
            f"{where}: update must return (update, state), because the rule has an init"
        )
    return result
