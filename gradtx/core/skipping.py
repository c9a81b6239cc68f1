"""Which calls of update take a step: a wrapper that skips some says which in its state.

`accumulate` takes a step on one call of many, `finite_guard` on none with a NaN. Whatever counts
steps around them has to know, and finds out from the states before and after a call. So it sees
through whatever is in between, and through the states of other libraries too.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from gradtx.core.origin import nodes_of
from gradtx.core.state import OptState, StateClass, is_named_tuple

# Whether a step was taken; True if that is known while tracing.
Taken = bool | jax.Array
# Tells this for one class of states, from the states before and after a call.
Tells = Callable[[Any, Any], Taken]
S = TypeVar("S", bound=StateClass)

_TELLS: dict[tuple[str, frozenset[str]], Tells] = {}


def tells_steps(tells: Tells) -> Callable[[S], S]:
    """Decorate a class of states that show whether a call of update took a step.

    tells(old, new) says whether it did, including the transformations inside, for which it asks
    `took_step` with their states.
    """

    def decorate(state_class: S) -> S:
        _TELLS[_names(state_class)] = tells
        return state_class

    return decorate


def where_rises(count: str, inside: str) -> Tells:
    """A step was taken if a count of steps rose, and one was taken inside; both name fields."""
    return lambda old, new: _changed(count, old, new) & _inside(inside, old, new)


def where_stays(count: str, inside: str) -> Tells:
    """A step was taken if a count of skipped calls stayed the same and one was taken inside."""
    return lambda old, new: ~_changed(count, old, new) & _inside(inside, old, new)


def _changed(field: str, old: Any, new: Any) -> jax.Array:
    changed: jax.Array = jnp.asarray(getattr(new, field) != getattr(old, field))
    return changed


def _inside(field: str, old: Any, new: Any) -> Taken:
    return took_step(getattr(old, field), getattr(new, field))


def took_step(old: OptState, new: OptState) -> Taken:
    """Whether the call of update that made the new state from the old one took a step, in which the
    parameters may have moved. It is True, not an array, if every call takes one."""
    before, after = nodes_of(old, _is_telling), nodes_of(new, _is_telling)
    pairs = zip(before, after, strict=True)
    return every(_TELLS[_names(type(x))](x, y) for x, y in pairs)


def always_steps(state: OptState) -> bool:
    """Whether every call of update takes a step, as far as the state tells."""
    return took_step(state, state) is True


def every(flags: Iterable[Taken]) -> Taken:
    """Whether all flags hold."""
    return functools.reduce(operator.and_, flags, True)


def some(flags: Iterable[Taken]) -> Taken:
    """Whether any flag holds, or there are no flags."""
    known = list(flags)
    return not known or any(x is True for x in known) or functools.reduce(operator.or_, known)


def _is_telling(x: Any) -> bool:
    return is_named_tuple(x) and _names(type(x)) in _TELLS


def _names(state_class: StateClass) -> tuple[str, frozenset[str]]:
    """The names by which a class is recognised, even if it is another library's."""
    return state_class.__name__, frozenset(state_class._fields)
