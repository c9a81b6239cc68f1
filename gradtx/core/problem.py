"""The problem that an update is a step of: the extra arguments that say it, in other terms too.

`value`, `grad`, `value_fn`, `obj_fn` and `grad_fn` are about the objective of the caller. A wrapper
whose inner transformation has another one (its negative, or one of other parameters) hands on
those of that one: `seen_as` makes them. What a function of the caller takes is read here as well.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from gradtx.core.value import show

PROBLEM = frozenset(("value", "grad", "value_fn", "obj_fn", "grad_fn"))

Change = Callable[[Any], Any]


def seen_as(
    extra: Mapping[str, Any],
    *,
    value: Change | None = None,
    grad: Change | None = None,
    params: Change | None = None,
    searched: Change | None = None,
) -> dict[str, Any]:
    """The extra arguments as they are about the same problem in other terms.

    value: what becomes of a value of the objective; grad: of a gradient; params: the caller's
    params from those in the other terms; searched: the same for `value_fn`, which is evaluated
    inside of loops and in the dtypes in which params are kept. None leaves as it is.
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


def negated(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the negative of the objective."""
    return seen_as(extra, value=_negative, grad=_negative)


def unsearchable(extra: Mapping[str, Any], where: str) -> dict[str, Any]:
    """With a `value_fn` that refuses to be called: the params do not make the step inside."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"{where} cannot hold a line search, which calls value_fn: the step that it tries is "
            "not the one that the parameters make"
        )

    return {name: refuse if name == "value_fn" and x else x for name, x in extra.items()}


def _applied(change: Change | None, x: Any) -> Any:
    return x if change is None else change(x)


def _of_function(function: Any, inwards: Change | None, outwards: Change | None) -> Any:
    """outwards(function(inwards(params), ...)), which takes what the function takes."""
    if inwards is None and outwards is None:
        return function

    @functools.wraps(function, updated=())
    def changed(params: Any, *args: Any, **kwargs: Any) -> Any:
        return _applied(outwards, function(_applied(inwards, params), *args, **kwargs))

    return changed


def _negative(x: Any) -> Any:
    return jax.tree.map(operator.neg, x)


class NegatedState(NamedTuple):
    """Stands before the state of a transformation that sees the negative of the objective."""


def is_negated(state: Any) -> bool:
    """Whether what lies in this state is about the negative of the objective."""
    return isinstance(state, tuple | list) and bool(state) and isinstance(state[0], NegatedState)


# -- what a function takes -------------------------------------------------------------------------


def accepted(function: Callable[..., Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """The extra arguments that a function takes."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return dict(extra)
    names = {p.name for p in parameters}
    return {name: x for name, x in extra.items() if name in names}


def known_to(function: Callable[..., Any], extra: dict[str, Any], who: str) -> dict[str, Any]:
    """The extra arguments that a user's function takes; one that it needs and that is not there
    is an error that says how to give it."""
    parameters = inspect.signature(function).parameters.values()
    needed = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    missing = [name for name in needed if name not in extra]
    if missing:
        given = ", ".join(f"{name}=..." for name in missing)
        raise TypeError(f"{who} {show(function)}: call update(grads, state, params, {given})")
    return accepted(function, extra)


def check_known(who: object, takes: Callable[[str], bool], extra: Mapping[str, Any]) -> None:
    """Refuse an extra argument that neither the objective of a search nor anything else takes.

    Without a search such arguments are ignored, so that one call serves every optimizer.
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
