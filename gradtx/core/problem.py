"""The extra arguments that describe the objective, and their translation for an inner
transformation.

`value`, `grad`, `value_fn`, `obj_fn` and `grad_fn` are about the caller's objective. A wrapper
whose inner transformation has another objective (the negative, or one of other parameters) passes
it translated arguments, made by `seen_as`. This file also finds out which extra arguments a
caller's function takes.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from gradtx.core.printing import show
from gradtx.core.state import Updates

PROBLEM = frozenset(("value", "grad", "value_fn", "obj_fn", "grad_fn"))

# The caller's extra arguments of `update`, by name.
Extra = Mapping[str, Any]
# Translates a value, a gradient or params.
Change = Callable[[Any], Any]


def seen_as(
    extra: Extra,
    *,
    value: Change | None = None,
    grad: Change | None = None,
    params: Change | None = None,
    searched: Change | None = None,
) -> dict[str, Any]:
    """The extra arguments, translated from the caller's objective to the inner transformation's.

    value: translates a value of the objective. grad: translates a gradient. params: makes the
    caller's params from the inner ones. searched: the same for `value_fn`, which is evaluated
    inside loops and in the stored dtypes of the params; it defaults to params. None leaves things
    unchanged.
    """

    def changed(name: str, x: Any) -> Any:
        if x is None:
            return None
        if name == "value":
            return _applied(value, x)
        if name == "grad":
            return _applied(grad, x)
        if name == "value_fn":
            return _of_function(x, searched or params, value)
        if name == "obj_fn":
            return _of_function(x, params, value)
        return _of_function(x, params, grad) if name == "grad_fn" else x

    return {name: changed(name, x) for name, x in extra.items()}


def negated(extra: Extra) -> dict[str, Any]:
    """The extra arguments for the negative of the objective."""
    return seen_as(extra, value=_negative, grad=_negative)


def unsearchable(extra: Extra, where: str) -> dict[str, Any]:
    """The extra arguments with a `value_fn` that raises when it is called: a line search would try
    a step other than the one that the parameters take."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"{where} cannot hold a line search, which calls value_fn: the step that it "
            "would try is not the step that the parameters take"
        )

    return {name: refuse if name == "value_fn" and x else x for name, x in extra.items()}


def _applied(change: Change | None, x: Any) -> Any:
    return x if change is None else change(x)


def _of_function(
    function: Callable[..., Any], inwards: Change | None, outwards: Change | None
) -> Callable[..., Any]:
    """outwards(function(inwards(params), ...)), with the function's own signature."""
    if inwards is None and outwards is None:
        return function

    @functools.wraps(function, updated=())
    def changed(params: Any, *args: Any, **kwargs: Any) -> Any:
        return _applied(outwards, function(_applied(inwards, params), *args, **kwargs))

    return changed


def _negative(x: Updates) -> Updates:
    return jax.tree.map(operator.neg, x)


class NegatedState(NamedTuple):
    """The first entry of a state, to mark that its transformation has the negative objective."""


def is_negated(state: object) -> bool:
    """Whether this is the state of a transformation of the negative objective."""
    return isinstance(state, tuple | list) and bool(state) and isinstance(state[0], NegatedState)


# -- the extra arguments that a function takes -----------------------------------------------------


def accepted(function: Callable[..., Any], extra: Extra) -> dict[str, Any]:
    """The extra arguments that a function takes."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return dict(extra)
    names = {p.name for p in parameters}
    return {name: x for name, x in extra.items() if name in names}


def known_to(function: Callable[..., Any], extra: Extra, who: str) -> dict[str, Any]:
    """The extra arguments that a user's function takes; a missing one that it requires is an error
    that says how to pass it."""
    parameters = inspect.signature(function).parameters.values()
    needed = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    missing = [name for name in needed if name not in extra]
    if missing:
        given = ", ".join(f"{name}=..." for name in missing)
        raise TypeError(f"{who} {show(function)}: call update(grads, state, params, {given})")
    return accepted(function, extra)


def check_known(who: object, takes: Callable[[str], bool], extra: Extra) -> None:
    """Refuse an extra argument that neither a line search's `value_fn` nor anything else takes.

    Without a line search such arguments are ignored, so that one call serves every optimizer.
    """
    value_fn = extra.get("value_fn")
    if value_fn is None or not takes("value_fn"):
        return
    unknown = [name for name in extra if name not in PROBLEM and not takes(name)]
    if unknown:
        parameters = tuple(inspect.signature(value_fn).parameters)
        near = difflib.get_close_matches(unknown[0], [*parameters[1:], *sorted(PROBLEM)], 1)
        raise TypeError(
            f"{who}: nothing takes the extra argument {unknown[0]!r}, nor does value_fn, which "
            f"is {show(value_fn)}({', '.join(parameters)})"
            + (f"; did you mean {near[0]!r}?" if near else "")
        )
