"""Transformations that run only on some steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.counts import increment, start
from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import cast, is_inexact, number_dtype
from gradtx.core.finite import all_finite, all_zero, idle_zeros, untouched, zero_if_finite
from gradtx.core.holding import usually
from gradtx.core.hyperparameters import NonNegative
from gradtx.core.inner import Inner
from gradtx.core.place import Place
from gradtx.core.problem import known_to
from gradtx.core.rule import Rule
from gradtx.core.skipping import tells_steps, where_stays
from gradtx.core.state import OptState, Updates
from gradtx.core.transformation import TransformationLike

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
    """The inner state; step: the calls of update so far, an int32 scalar."""

    inner_state: OptState
    step: jax.Array


class ConditionallyMaskState(NamedTuple):
    """step: the calls of update so far, an int32 scalar; the inner state."""

    step: jax.Array
    inner_state: OptState


@tells_steps(where_stays("total_notfinite", inside="inner_state"))
class ApplyIfFiniteState(NamedTuple):
    """Gradients with a NaN or an infinity. notfinite_count: how many came in a row up to now;
    last_finite: whether the last gradient was finite; total_notfinite: how many since the start."""

    notfinite_count: jax.Array
    last_finite: jax.Array
    total_notfinite: jax.Array
    inner_state: OptState


@tells_steps(where_stays("skipped", inside="inner_state"))
class FiniteGuardState(NamedTuple):
    """skipped: steps skipped since the start; in_a_row: steps skipped since the last that was
    taken. Both are int32 scalars."""

    skipped: jax.Array
    in_a_row: jax.Array
    inner_state: OptState


@per_tree
def conditionally_transform(
    inner: TransformationLike,
    should_transform_fn: Callable[..., jax.Array | bool],
    forward_extra_args: bool = False,
) -> Rule:
    """Transform the updates on the steps where a condition holds, and pass them on unchanged on
    others.

        u = inner(g) where should_transform_fn(step) holds, otherwise u = g

    On the other steps the inner state stays as it is, and the inner transformation does not run
    (on GPU and TPU it does if it works element by element: then a select is cheaper).

    Args:
        should_transform_fn: a function from the step, which is the number of earlier calls of
            update, to one boolean.
        forward_extra_args: also pass should_transform_fn the extra arguments of update that it has
            parameters for, by name.

    State: a count and that of `inner`.

    Raises: TypeError if should_transform_fn does not return one boolean.

    Example:
        >>> tx = gradtx.conditionally_transform(gradtx.scale(0.1), lambda step: step < 1)
        >>> grad = jnp.array([1.0])
        >>> state = tx.init(grad)
        >>> for _ in range(2):
        ...     updates, state = tx.update(grad, state)
        ...     print(updates)
        [0.1]
        [1.]

    See also: `conditionally_mask`, whose updates are 0 on the other steps.
    """

    def init(inner: Inner) -> ConditionallyTransformState:
        return ConditionallyTransformState(inner.init(), start())

    def update(
        updates: Updates, state: ConditionallyTransformState, inner: Inner, **extra: Any
    ) -> tuple[Updates, ConditionallyTransformState]:
        due = _is_due(should_transform_fn, state.step, extra if forward_extra_args else {})
        run, idle = partial(inner, updates), lambda _: untouched(updates, state.step)
        u, inner_state = usually(due, run, idle, state.inner_state)
        return u, ConditionallyTransformState(inner_state, increment(state.step))

    return Rule(init, update, place=inner.place & Place.LAST)


@per_tree
def conditionally_mask(
    inner: TransformationLike,
    should_transform_fn: Callable[..., jax.Array | bool],
    forward_extra_args: bool = False,
) -> Rule:
    """Update the parameters on the steps where a condition holds, and leave them alone on others.

        u = inner(g) where should_transform_fn(step) holds, otherwise u = 0

    On the other steps the inner state stays as it is, and the inner transformation does not run
    (on GPU and TPU it does if it works element by element: then a select is cheaper).

    Args:
        should_transform_fn: a function from the step, which is the number of earlier calls of
            update, to one boolean.
        forward_extra_args: also pass should_transform_fn the extra arguments of update that it has
            parameters for, by name.

    State: a count and that of `inner`.

    Raises: TypeError if should_transform_fn does not return one boolean.

    Example:
        >>> tx = gradtx.conditionally_mask(gradtx.sgd(0.1), lambda step: step % 2 == 1)
        >>> grad = jnp.array([1.0])
        >>> state = tx.init(grad)
        >>> for _ in range(2):
        ...     updates, state = tx.update(grad, state)
        ...     print(updates)
        [0.]
        [-0.1]

    See also: `conditionally_transform`, `accumulate`.
    """

    def init(inner: Inner) -> ConditionallyMaskState:
        return ConditionallyMaskState(start(), inner.init())

    def update(
        updates: Updates,
        needed: Updates,
        state: ConditionallyMaskState,
        inner: Inner,
        **extra: Any,
    ) -> tuple[Updates, ConditionallyMaskState]:
        due = _is_due(should_transform_fn, state.step, extra if forward_extra_args else {})
        zeros = partial(idle_zeros, updates, state.step)
        u, inner_state = inner.emit_if(due, needed, zeros, state.inner_state)
        return u, ConditionallyMaskState(increment(state.step), inner_state)

    return Rule(init, update, place=inner.place & Place.LAST)


@per_tree
def apply_if_finite(inner: TransformationLike, max_consecutive_errors: NonNegative) -> Rule:
    """Skip steps whose gradient holds a NaN or an infinity, up to a number of them in a row.

        u = inner(g), but u = 0 and the inner state stays where g is not finite

    After max_consecutive_errors such gradients in a row it gives up and lets them through until
    the next finite one, so that a run that is broken for good shows it. What the inner
    transformation makes of a finite gradient is not checked: `finite_guard` does check it, and
    never gives up. Gradients that the inner transformation ignores, such as those of frozen
    leaves, do not count.

    Args:
        max_consecutive_errors: how many gradients in a row may be skipped. With 0 none is, and the
            state only counts them.

    State: two counts (`notfinite_count` in a row, `total_notfinite`), a flag and that of `inner`.

    Example:
        >>> tx = gradtx.apply_if_finite(gradtx.sgd(0.1), max_consecutive_errors=1)
        >>> state = tx.init(jnp.zeros(2))
        >>> for _ in range(2):
        ...     updates, state = tx.update(jnp.array([1.0, jnp.nan]), state)
        ...     print(updates, state.notfinite_count)
        [0. 0.] 1
        [-0.1  nan] 2

    See also: `finite_guard`, `accumulate`.
    """

    def init(inner: Inner) -> ApplyIfFiniteState:
        return ApplyIfFiniteState(start(), jnp.asarray(True), start(), inner.init())

    def update(
        updates: Updates, needed: Updates, state: ApplyIfFiniteState, inner: Inner
    ) -> tuple[Updates, ApplyIfFiniteState]:
        finite = all_finite(needed)
        in_a_row = jnp.where(finite, 0, increment(state.notfinite_count))
        errors = cast(in_a_row, number_dtype(max_consecutive_errors))
        due = finite | (errors > max_consecutive_errors)
        zeros = partial(idle_zeros, updates, in_a_row)
        u, inner_state = inner.emit_if(due, needed, zeros, state.inner_state)
        total = jnp.where(finite, state.total_notfinite, increment(state.total_notfinite))
        return u, ApplyIfFiniteState(in_a_row, finite, total, inner_state)

    return Rule(init, update, place=inner.place & Place.LAST)


@per_tree
def finite_guard(inner: TransformationLike, *, check_result: bool = True) -> Rule:
    """Skip every step in which a NaN or an infinity appears, so that updates and state stay finite.

        u = inner(g), but u = 0 and the inner state stays where g, u or the new state is not finite

    It never gives up. On a gradient that is not finite the inner transformation changes nothing.
    After a finite one its result is checked: the step is undone if the update is not finite, or if
    an element of the state that was finite no longer is. Without that check, one finite gradient
    of 1e20 would end a run of Adam: its square, an infinity in float32, stays in the running mean
    and makes every later step 0. Gradients that the inner transformation ignores, such as those of
    frozen leaves, do not count.

    Args:
        check_result: also check the update and the state that `inner` makes of a finite gradient.
            False saves that pass over both.

    State: two counts, `skipped` since the start and `in_a_row` since the last step taken, and that
    of `inner`.

    Example:
        >>> tx = gradtx.finite_guard(gradtx.adam(0.1))
        >>> state = tx.init(jnp.zeros(2))
        >>> for grad in ([1.0, 1e20], [1.0, 1.0]):
        ...     updates, state = tx.update(jnp.array(grad), state)
        ...     print(updates.round(1), state.skipped)
        [0. 0.] 1
        [-0.1 -0.1] 1

    See also: `apply_if_finite`, `dynamic_loss_scale`.
    """

    def init(inner: Inner) -> FiniteGuardState:
        return FiniteGuardState(start(), start(), inner.init())

    def update(
        updates: Updates, needed: Updates, state: FiniteGuardState, inner: Inner
    ) -> tuple[Updates, FiniteGuardState]:
        finite = all_finite(needed)

        def run(old: OptState) -> tuple[tuple[Updates, jax.Array], OptState]:
            u, new = inner(needed, old)
            if not check_result:
                return (u, finite), new
            ok = all_finite(u) & _stays_finite(old, new)
            u = jax.tree.map(lambda x: jnp.where(ok, x, jnp.zeros_like(x)), u)
            return (u, ok), jax.tree.map(lambda x, y: jnp.where(ok, x, y), new, old)

        def skip(_: OptState) -> tuple[Updates, jax.Array]:
            return idle_zeros(updates, state.skipped), finite

        (u, ok), inner_state = usually(finite, run, skip, state.inner_state)
        return u, FiniteGuardState(
            skipped=jnp.where(ok, state.skipped, increment(state.skipped)),
            in_a_row=jnp.where(ok, 0, increment(state.in_a_row)),
            inner_state=inner_state,
        )

    return Rule(init, update, place=inner.place & Place.LAST)


def _is_due(condition: Callable[..., Any], step: jax.Array, extra: dict[str, Any]) -> jax.Array:
    """Whether the user's condition holds at this step."""
    due = condition(step, **known_to(condition, extra, "should_transform_fn"))
    if np.shape(due) != () or jnp.asarray(due).dtype != np.bool_:
        raise TypeError(
            "should_transform_fn must return one boolean, got "
            f"{jnp.asarray(due).dtype} of shape {np.shape(due)}"
        )
    return due


def _stays_finite(old: OptState, new: OptState) -> jax.Array:
    """Whether no element stopped being finite; some states hold infinities from the start."""
    pairs = zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True)
    return all_zero(
        [jnp.where(jnp.isfinite(x), zero_if_finite(y), 0) for x, y in pairs if is_inexact(y)]
    )
