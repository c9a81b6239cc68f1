"""Transformations that run on some steps only."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core.counts import increment, start
from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import cast, is_inexact, number_dtype
from gradtx.core.finite import all_finite, all_zero, idle_zeros, untouched, zero_if_finite
from gradtx.core.inner import Inner
from gradtx.core.kinds import NonNegative
from gradtx.core.place import Place
from gradtx.core.problem import known_to
from gradtx.core.rule import Rule
from gradtx.core.state import OptState
from gradtx.core.transformation import GradientTransformation

__all__ = [
    "ApplyIfFiniteState",
    "ConditionallyMaskState",
    "ConditionallyTransformState",
    "FiniteGuardState",
    "apply_if_finite",
    "conditionally_mask",
    "conditionally_transform",
    "finite_guard",
]


class ConditionallyTransformState(NamedTuple):
    """The inner state, and how often update was called."""

    inner_state: OptState
    step: Any


class ConditionallyMaskState(NamedTuple):
    """How often update was called, and the inner state."""

    step: Any
    inner_state: OptState


class ApplyIfFiniteState(NamedTuple):
    """notfinite_count: updates in a row with a NaN or an infinity; last_finite: whether the last
    one was without; total_notfinite: how many there ever were."""

    notfinite_count: Any
    last_finite: Any
    total_notfinite: Any
    inner_state: OptState


class FiniteGuardState(NamedTuple):
    """skipped: how many steps were ever skipped; in_a_row: how many of them since the last that
    was not."""

    skipped: Any
    in_a_row: Any
    inner_state: OptState


@per_tree
def conditionally_transform(
    inner: GradientTransformation,
    should_transform_fn: Callable[..., Any],
    forward_extra_args: bool = False,
) -> Any:
    """u = inner(g) where should_transform_fn(step) holds, otherwise u = g.

    On the other steps the inner transformation does not run and its state stays. step: how often
    update was called before. forward_extra_args: the extra arguments of update go to
    should_transform_fn as well. Raises: TypeError if that does not return one boolean.
    """

    def init(inner: Inner) -> ConditionallyTransformState:
        return ConditionallyTransformState(inner.init(), start())

    def update(updates: Any, state: Any, inner: Inner, **extra: Any) -> Any:
        due = _decide(should_transform_fn, state.step, extra if forward_extra_args else {})
        run = functools.partial(inner, updates)
        u, inner_state = lax.cond(
            due, run, lambda s: (untouched(updates, state.step), s), state.inner_state
        )
        return u, ConditionallyTransformState(inner_state, increment(state.step))

    return Rule(init, update, place=inner.place & Place.LAST)


@per_tree
def conditionally_mask(
    inner: GradientTransformation,
    should_transform_fn: Callable[..., Any],
    forward_extra_args: bool = False,
) -> Any:
    """u = inner(g) where should_transform_fn(step) holds, otherwise u = 0.

    Like `conditionally_transform` otherwise.
    """

    def init(inner: Inner) -> ConditionallyMaskState:
        return ConditionallyMaskState(start(), inner.init())

    def update(updates: Any, needed: Any, state: Any, inner: Inner, **extra: Any) -> Any:
        due = _decide(should_transform_fn, state.step, extra if forward_extra_args else {})
        run, hold = functools.partial(inner, needed), _holding(updates, state.step)
        u, inner_state = lax.cond(due, run, hold, state.inner_state)
        return u, ConditionallyMaskState(increment(state.step), inner_state)

    return Rule(init, update, place=inner.place & Place.LAST)


@per_tree
def apply_if_finite(inner: GradientTransformation, max_consecutive_errors: NonNegative) -> Any:
    """u = inner(g), but u = 0 with the inner state untouched where g holds a NaN or an infinity.

    After max_consecutive_errors such gradients in a row it gives up and lets them through, until
    a finite one comes: a run that is broken for good then shows it. It does not look at what the
    inner transformation makes of a finite gradient. `finite_guard` never gives up and looks.
    Gradients at which the inner transformation does not look, as of a frozen leaf, do not count.
    """

    def init(inner: Inner) -> ApplyIfFiniteState:
        return ApplyIfFiniteState(start(), jnp.asarray(True), start(), inner.init())

    def update(updates: Any, needed: Any, state: Any, inner: Inner) -> Any:
        finite = all_finite(needed)
        in_a_row = jnp.where(finite, 0, increment(state.notfinite_count))
        run, hold = functools.partial(inner, needed), _holding(updates, in_a_row)
        errors = cast(in_a_row, number_dtype(max_consecutive_errors))
        go = finite | (errors > max_consecutive_errors)
        u, inner_state = lax.cond(go, run, hold, state.inner_state)
        total = jnp.where(finite, state.total_notfinite, increment(state.total_notfinite))
        return u, ApplyIfFiniteState(in_a_row, finite, total, inner_state)

    return Rule(init, update, place=inner.place & Place.LAST)


@per_tree
def finite_guard(inner: GradientTransformation, *, check_result: bool = True) -> Any:
    """u = inner(g), but u = 0 with the inner state untouched where a NaN or an infinity appears.

    It never gives up: what leaves is always finite, and so is the state. A gradient that is not
    finite does not run the inner transformation at all. Of a finite one the result is looked at
    too: an update, or a new element of the state, that is not finite where the old one was undoes
    the step. Without it one finite gradient of 1e20 would end a run of Adam: its square, an
    infinity in float32, stays in the running mean and makes every later step 0. check_result=False
    leaves that pass out. `state.skipped` counts, `state.in_a_row` says how long it has lasted.
    Gradients at which the inner transformation does not look, as of a frozen leaf, do not count.
    """

    def init(inner: Inner) -> FiniteGuardState:
        return FiniteGuardState(start(), start(), inner.init())

    def update(updates: Any, needed: Any, state: Any, inner: Inner) -> Any:
        hold = _holding(updates, state.skipped)

        def run(old: OptState) -> Any:
            u, new = inner(needed, old)
            if not check_result:
                return u, new, finite
            ok = all_finite(u) & _stays_finite(old, new)
            u = jax.tree.map(lambda x: jnp.where(ok, x, jnp.zeros_like(x)), u)
            return u, jax.tree.map(lambda x, y: jnp.where(ok, x, y), new, old), ok

        def skip(old: OptState) -> Any:
            u, same = hold(old)
            if check_result:
                # A choice of one and the same, that it varies over a mesh as the other branch does.
                same = jax.tree.map(lambda x: jnp.where(finite, x, x), same)
            return u, same, finite

        finite = all_finite(needed)
        u, inner_state, ok = lax.cond(finite, run, skip, state.inner_state)
        return u, FiniteGuardState(
            skipped=jnp.where(ok, state.skipped, increment(state.skipped)),
            in_a_row=jnp.where(ok, 0, increment(state.in_a_row)),
            inner_state=inner_state,
        )

    return Rule(init, update, place=inner.place & Place.LAST)


def _decide(condition: Callable[..., Any], step: Any, extra: dict[str, Any]) -> Any:
    due = condition(step, **known_to(condition, extra, "should_transform_fn"))
    if np.shape(due) != () or jnp.asarray(due).dtype != np.bool_:
        raise TypeError(
            "should_transform_fn must return one boolean, got "
            f"{jnp.asarray(due).dtype} of shape {np.shape(due)}"
        )
    return due


def _holding(updates: Any, count: Any) -> Callable[..., Any]:
    """The branch in which nothing moves; `count` is an integer that is never negative."""
    return lambda state: (idle_zeros(updates, count), state)


def _stays_finite(old: OptState, new: OptState) -> Any:
    """Whether no element stopped being finite. Some states hold infinities from their start."""
    pairs = zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True)
    return all_zero(
        [jnp.where(jnp.isfinite(x), zero_if_finite(y), 0) for x, y in pairs if is_inexact(y)]
    )
