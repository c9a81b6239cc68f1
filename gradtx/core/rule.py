"""What an author writes: a rule for one array or one tree. It asks for its inputs by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gradtx.core import renamed
from gradtx.core.place import Place
from gradtx.core.problem import Extra
from gradtx.core.state import EmptyState, OptState, Updates

# A function that an author writes: its parameters name its inputs.
Function = Callable[..., Any]


@dataclass(frozen=True)
class Rule:
    """The maths of one array (`per_leaf`) or of one tree (`per_tree`).

    `init(param)` returns the state; `update(grad, state)` returns the update and the new state.
    Without `init` the rule keeps no state and `update` returns the update alone. A Python number
    returned as the update of a leaf is broadcast to the leaf's shape. Step counts are kept for the
    rule: a state field annotated `Count` is None in what `init` returns, in the state that `update`
    is given and in the one that it returns. Anything else there, but `step.count`, is an error.

    Each function receives the inputs that its parameters name, in any order. For one array:

    - `grad`: the update so far; `param`: the parameter; both in float32 or wider.
    - `state`: what `init`, or the previous `update`, returned for this leaf.
    - `step`: the `Step`, with `count` and `debias`.
    - `precomputed`: what `precompute` returned.
    - `leaf`: the `Leaf`: the dtype in which its parameter is stored, and two uint32 words made from
      its path; fold both into a random key.

    For a tree:

    - `updates`, `params`, `state`, `step`: the same for the whole tree.
    - `needed`: the updates, with zeros in place of gradients that no transformation inside reads,
      such as those of frozen leaves; `unwidened`: the same in the dtypes in which they were given,
      for an inner transformation to widen.
    - any argument of the definition that is a transformation, by its name: an `Inner`, which is the
      transformation bound to this step. The rule is then a wrapper: it calls `inner.init()` in
      `init`, and `u, inner_state = inner(updates, state.inner_state)` in `update`.

    Keyword-only parameters are extra arguments of the caller's `update(..., value=loss)`; `**extra`
    takes all of them.

    precompute (per leaf only): runs once per tree, before the leaves. What it returns, such as the
    norm of all `updates`, reaches `update` as `precomputed`. It may ask for `updates`, `params` and
    `step`.

    place: where in a chain the rule must stand, `Place.FIRST` or `Place.LAST`. A wrapper that
    returns the updates of its inner transformation unchanged may hold one that comes last: it then
    comes last itself, with `inner.place & Place.LAST`. Only a wrapper that also hands on the
    gradients as they are, per-example ones included, has the whole of `inner.place`.
    """

    init: Function | None
    update: Function
    precompute: Function | None
    place: Place

    def __init__(
        self,
        init: Function | None,
        update: Function,
        precompute: Function | None = None,
        place: Place = Place.ANYWHERE,
        **old: Any,
    ):
        if not isinstance(place, Place):
            raise TypeError(f"Rule: place must be a Place such as Place.LAST, got {place!r}")
        if old:
            precompute, place = renamed.rule_fields(old, precompute, place)
        vars(self).update(init=init, update=update, precompute=precompute, place=place)


class Inputs(NamedTuple):
    """What one of a rule's functions asks for.

    names: its inputs from the plumbing; extra: the caller's extra arguments; required,
    required_extra: those of them without a default; all_extra: whether it takes `**extra`.
    """

    names: frozenset[str]
    required: frozenset[str]
    extra: frozenset[str]
    required_extra: frozenset[str]
    all_extra: bool = False

    def of(self, extra: Extra) -> dict[str, Any]:
        """The given extra arguments that the function asks for."""
        if self.all_extra:
            return dict(extra)
        return {name: extra[name] for name in sorted(self.extra) if name in extra}

    def call(
        self,
        function: Function,
        available: Mapping[str, Any],
        extra: Extra | None = None,
    ) -> Any:
        """Call the function with the available inputs that it asks for and the extra arguments.

        An extra argument may share its name with an input that the function does not ask for.
        """
        named = {name: x for name, x in available.items() if name in self.names}
        if len(named) < len(self.names):
            old = self.names & renamed.INPUTS.keys()
            named |= {name: renamed.INPUTS[name](available) for name in old}
        return function(**{**(extra or {}), **named})


NOTHING = Inputs(frozenset(), frozenset(), frozenset(), frozenset())


def inputs_of(function: Function | None, allowed: Sequence[str], where: str) -> Inputs:
    """Read from its signature what a rule's function asks for; any name not allowed is an error."""
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


def as_rule(returned: object, where: str) -> Rule:
    """The rule that a definition returned, or one without a state from a bare update function."""
    if isinstance(returned, Rule):
        return returned
    if callable(returned):
        return Rule(None, returned)
    raise TypeError(
        f"{where} must return a Rule(init, update) or an update function, "
        f"got {type(returned).__name__}"
    )


def split_result(rule: Rule, result: Any, where: str) -> tuple[Updates, OptState]:
    """What `update` returned, as a pair (update, state)."""
    if rule.init is None:
        return result, EmptyState()
    if type(result) is not tuple or len(result) != 2:
        raise TypeError(
            f"{where}: update must return (update, state), because the rule has an init"
        )
    return result
