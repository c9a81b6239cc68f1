"""Accumulate gradients over micro-batches."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gradtx.core.absent import drop_absent
from gradtx.core.counts import increment, start
from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import cast
from gradtx.core.finite import all_finite, idle_zeros
from gradtx.core.holding import either, now_and_then
from gradtx.core.hyperparameters import DType
from gradtx.core.inner import Inner
from gradtx.core.leaves import Leaves, aligned_arrays
from gradtx.core.numerics import zeros_like
from gradtx.core.place import Place
from gradtx.core.rule import Rule
from gradtx.core.schedule import AnySchedule, Schedule
from gradtx.core.state import OptState, Params, Updates
from gradtx.core.transformation import TransformationLike

__all__ = ["AccumulateState", "accumulate"]


class AccumulateState(NamedTuple):
    """How far the current cycle has come; the counts are int32 scalars.

    mini_step: micro-batches seen in this cycle; gradient_step: steps taken by the inner optimizer;
    acc_grads: the mean of this cycle's accepted gradients, shaped like the params (meaningless
    between cycles); accepted: how many gradients are in it; skipped: micro-batches dropped since
    the start because they held a NaN or an infinity.
    """

    mini_step: jax.Array
    gradient_step: jax.Array
    inner_opt_state: OptState
    acc_grads: Updates
    accepted: jax.Array
    skipped: jax.Array


@per_tree
def accumulate(
    inner: TransformationLike,
    every: AnySchedule | int,
    *,
    drop_nonfinite: bool = True,
    accumulator_dtype: DType | None = None,
) -> Rule:
    """Average the gradients of `every` micro-batches, then run the inner optimizer once.

        mean <- mean + (g - mean) / n               (n accepted gradients, this one included)
        u = inner(mean) on every `every`-th call, otherwise u = 0

    For batches that do not fit in memory at once. On the other calls the inner optimizer does not
    run and its state is not read. A micro-batch with a NaN or an infinity is left out of the mean
    and counted in `state.skipped`; a cycle in which none was accepted changes nothing. The inner
    optimizer sees the extra arguments of the cycle's last call only, so a `value` or `value_fn`
    should cover all of its micro-batches.

    Args:
        inner: the optimizer that takes the steps, gradtx's or Optax's. Its schedules count its own
            steps, one a cycle.
        every: the number of micro-batches in a cycle: a whole number >= 1, or a schedule of the
            inner optimizer's step, for batches that grow during training.
        drop_nonfinite: leave micro-batches with a NaN or an infinity out of the mean. False saves
            the pass over the gradients that looks for them.
        accumulator_dtype: the dtype of the mean; None means float32 or wider. bfloat16 halves its
            memory and adds a rounding error with each micro-batch.

    State: the mean, 4 bytes a parameter, four counts, and that of `inner`.

    Raises: ValueError for every < 1.

    Example:
        >>> params = jnp.array([1.0, 2.0])
        >>> tx = gradtx.accumulate(gradtx.sgd(1.0), every=2)
        >>> state = tx.init(params)
        >>> for grad in ([1.0, 3.0], [3.0, 5.0]):
        ...     updates, state = tx.update(jnp.array(grad), state, params)
        ...     print(updates)
        [0. 0.]
        [-2. -4.]

    See also: `multi_steps`.
    """
    check_every("accumulate: every", every)

    def init(params: Params, inner: Inner) -> AccumulateState:
        mean = first_mean(params, accumulator_dtype)
        return AccumulateState(start(), start(), inner.init(), mean, start(), start())

    def update(
        needed: Updates, state: AccumulateState, inner: Inner
    ) -> tuple[Updates, AccumulateState]:
        keep = all_finite(needed) if drop_nonfinite else jnp.asarray(True)
        accepted = jnp.where(keep, increment(state.accepted), state.accepted)
        mini_step = increment(state.mini_step)
        due = mini_step >= every_now(every, state.gradient_step)
        emit = due & (accepted > 0)
        u, inner_state, mean = cycle(inner, needed, state, running_mean(keep, accepted), emit)
        return u, AccumulateState(
            mini_step=jnp.where(due, 0, mini_step),
            gradient_step=jnp.where(emit, increment(state.gradient_step), state.gradient_step),
            inner_opt_state=inner_state,
            acc_grads=mean,
            accepted=jnp.where(due, 0, accepted),
            skipped=jnp.where(keep, state.skipped, increment(state.skipped)),
        )

    return Rule(init, update, place=inner.place & Place.LAST)


def first_mean(params: Params, dtype: DTypeLike | None) -> Updates:
    """The mean of no gradients: zeros in `dtype`."""
    return jax.tree.map(functools.partial(zeros_like, dtype=dtype), params)


def check_every(where: str, every: Schedule | int) -> None:
    """Refuse a cycle length that is not a whole number >= 1."""
    if isinstance(every, Schedule | jax.core.Tracer):
        return
    # NumPy, because JAX would trace these comparisons inside a traced function.
    number = np.asarray(every)
    whole = number.dtype.kind in "iuf" and bool(np.all(number == np.round(number)))
    if isinstance(every, bool) or not whole or not np.all(number >= 1):
        raise ValueError(f"{where} must be a whole number >= 1 or a schedule, got {every!r}")


def every_now(every: Schedule | int, gradient_step: jax.Array) -> jax.Array:
    """The number of micro-batches in this cycle, an int32 scalar."""
    number = every(gradient_step) if isinstance(every, Schedule) else every
    return jnp.round(jnp.asarray(number)).astype(np.int32)


# The new accumulator of a leaf, from the old one and the leaf's gradient.
Add = Callable[[jax.Array, jax.Array], jax.Array]


def running_mean(keep: jax.Array, n: jax.Array) -> Add:
    """Add the n-th gradient of a cycle to the mean, which stays as it is unless `keep` holds."""
    number = jnp.maximum(n, 1)

    def add(mean: jax.Array, g: jax.Array) -> jax.Array:
        before = jnp.where(n == 1, 0, mean)  # the first gradient replaces the last cycle's mean
        weight = 1 / cast(number, mean.real.dtype)
        return jnp.where(keep, before + weight * (g - before), mean)

    return add


def cycle(
    inner: Inner, updates: Updates, state: Any, add: Add, emit: jax.Array
) -> tuple[Updates, OptState, Updates]:
    """Add a gradient to the mean and, where `emit` holds, run the inner optimizer on the mean.

    Returns the update, the inner state and the new mean; `state` is the wrapper's own, an
    `AccumulateState` or a `MultiStepsState`.

    The mean is computed outside the branches, where XLA updates it in place. Nobody needs it once
    the inner optimizer has read it, since the next cycle's first gradient replaces it. So the
    inner update leaves its branch in the mean's buffer, and emitting takes no memory of its own.
    An accumulator in a narrower dtype would round the update, and is not lent in this way. A step
    that adds the update to the params itself needs no memory for it.
    """
    leaves = Leaves.of(updates)
    kept = aligned_arrays(leaves, state.acc_grads, "accumulate: the state's acc_grads")

    def added() -> Updates:
        pairs = zip(leaves.values, kept, strict=True)
        return leaves.tree(None if g is None else add(cast(old, g.dtype), g) for g, old in pairs)

    mean = jax.tree.map(
        lambda m, old: cast(m, old.dtype), added(), drop_absent(updates, state.acc_grads)
    )

    def accumulator(mean: Updates) -> Updates:
        # The mean of a leaf without a gradient stays as it was.
        pairs = zip(Leaves.of(mean).values, kept, strict=True)
        return leaves.tree(old if m is None else m for m, old in pairs)

    if inner.applies:
        # The inner optimizer gets the unrounded mean, also where the accumulator is narrower.
        applied, inner_state = inner.emit_if(emit, added(), tuple, state.inner_opt_state)
        return applied, inner_state, accumulator(mean)

    lent = jax.tree.map(lambda g, m: m.dtype == g.dtype, updates, mean)

    def step(held: tuple[Updates, OptState]) -> tuple[Updates, tuple[Updates, OptState]]:
        mean, inner_state = held
        # The inner optimizer gets the unrounded mean of a leaf whose accumulator is narrower.
        grads = mean if all(jax.tree.leaves(lent)) else _choose(lent, mean, added())
        u, inner_state = inner(grads, inner_state)
        return _unless(lent, u), (_choose(lent, u, mean), inner_state)

    def idle(held: tuple[Updates, OptState]) -> Updates:
        return idle_zeros(_unless(lent, updates), state.mini_step)

    run = now_and_then if all(jax.tree.leaves(lent)) else either
    apart, (left, inner_state) = run(emit, step, idle, (mean, state.inner_opt_state))
    u = jax.tree.map(lambda flag, x, y: jnp.where(emit, x, 0) if flag else y, lent, left, apart)
    return u, inner_state, accumulator(left)


def _choose(flags: Updates, a: Updates, b: Updates) -> Updates:
    """The leaves of a where the leaf's flag is true, and those of b elsewhere."""
    return jax.tree.map(lambda flag, x, y: x if flag else y, flags, a, b)


def _unless(flags: Updates, tree: Updates) -> Updates:
    """The leaves whose flag is false, and nothing in place of the others."""
    return jax.tree.map(lambda flag, x: () if flag else x, flags, tree)
