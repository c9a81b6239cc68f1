"""Accumulating gradients over micro-batches."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.absent import given
from gradtx.core.counts import increment, start
from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import cast
from gradtx.core.finite import all_finite, idle_zeros
from gradtx.core.holding import either, now_and_then
from gradtx.core.inner import Inner
from gradtx.core.kinds import DType
from gradtx.core.leaves import Leaves, aligned_arrays
from gradtx.core.numerics import zeros_like
from gradtx.core.place import Place
from gradtx.core.rule import Rule
from gradtx.core.schedule import Schedule
from gradtx.core.state import OptState, Updates
from gradtx.core.transformation import GradientTransformation

__all__ = ["AccumulateState", "accumulate"]


class AccumulateState(NamedTuple):
    """Where in its cycle an accumulation is.

    mini_step: micro-batches of this cycle so far; gradient_step: steps of the inner optimizer;
    acc_grads: the mean of the accepted gradients of this cycle, without a meaning between cycles;
    accepted: how many those are; skipped: how many micro-batches were ever dropped because of a NaN
    or an infinity.
    """

    mini_step: Any
    gradient_step: Any
    inner_opt_state: OptState
    acc_grads: Updates
    accepted: Any
    skipped: Any


@per_tree
def accumulate(
    inner: GradientTransformation,
    every: Schedule | int,
    *,
    drop_nonfinite: bool = True,
    accumulator_dtype: DType | None = None,
) -> Any:
    """Average the gradients of `every` micro-batches and run the inner optimizer on the last.

        mean <- mean + (g - mean) / n               (n accepted gradients, this one included)
        u = inner(mean) on every `every`-th call, otherwise u = 0

    The inner optimizer does not run, and its state is not read, on the other calls. A micro-batch
    with a NaN or an infinity is left out of the mean and counted (`state.skipped`); a cycle without
    an accepted one leaves everything as it is. every: a whole number >= 1, or a schedule of the
    inner optimizer's step. drop_nonfinite=False saves the pass over the gradients that looks for
    them. Extra arguments reach the inner optimizer from the last call of a cycle: a `value` or a
    `value_fn` should be of all its micro-batches. accumulator_dtype: in which the mean is kept;
    float32 or wider without it.

    Raises: ValueError for every < 1.
    """
    check_every("accumulate: every", every)

    def init(params: Any, inner: Inner) -> AccumulateState:
        mean = first_mean(params, accumulator_dtype)
        return AccumulateState(start(), start(), inner.init(), mean, start(), start())

    def update(needed: Any, state: AccumulateState, inner: Inner) -> Any:
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


def first_mean(params: Any, dtype: Any) -> Updates:
    """No gradient yet, in `dtype`."""
    return jax.tree.map(functools.partial(zeros_like, dtype=dtype), params)


def check_every(where: str, every: Any) -> None:
    """Refuse a cycle of no micro-batches."""
    if isinstance(every, Schedule | jax.core.Tracer):
        return
    # NumPy, not JAX: inside a traced function its comparisons would be traced too.
    number = np.asarray(every)
    whole = number.dtype.kind in "iuf" and bool(np.all(number == np.round(number)))
    if isinstance(every, bool) or not whole or not np.all(number >= 1):
        raise ValueError(f"{where} must be a whole number >= 1 or a schedule, got {every!r}")


def every_now(every: Any, gradient_step: Any) -> Any:
    """How many micro-batches this cycle has."""
    number = every(gradient_step) if isinstance(every, Schedule) else every
    return jnp.round(jnp.asarray(number)).astype(np.int32)


def running_mean(keep: Any, n: Any) -> Callable[[Any, Any], Any]:
    """The mean of n gradients, from the mean of those before and the last; the old one if it is
    not to be kept."""
    number = jnp.maximum(n, 1)

    def add(mean: Any, g: Any) -> Any:
        before = jnp.where(n == 1, 0, mean)  # what the last cycle left behind
        weight = 1 / cast(number, mean.real.dtype)
        return jnp.where(keep, before + weight * (g - before), mean)

    return add


def cycle(
    inner: Inner, updates: Updates, state: Any, add: Callable[[Any, Any], Any], emit: Any
) -> tuple[Updates, OptState, Updates]:
    """Add a gradient to the mean and, if it is due, run the inner optimizer on it.

    The mean is taken outside of the branches, where XLA updates it in place. Once the inner
    optimizer has read it, it is not needed: the next cycle's first gradient replaces it. So the
    inner update leaves its branch in the place of the mean, and a step needs no memory of its own;
    an accumulator in a narrower dtype, which would round the update, stays as it is.
    """
    leaves = Leaves.of(updates)
    kept = aligned_arrays(leaves, state.acc_grads, "accumulate: the state's acc_grads")

    def added() -> Updates:
        pairs = zip(leaves.values, kept, strict=True)
        return leaves.tree(None if g is None else add(cast(old, g.dtype), g) for g, old in pairs)

    mean = jax.tree.map(lambda m, old: cast(m, old.dtype), added(), given(updates, state.acc_grads))
    lent = jax.tree.map(lambda g, m: m.dtype == g.dtype, updates, mean)

    def step(held: tuple[Updates, OptState]) -> Any:
        mean, inner_state = held
        # What an accumulator in a narrower dtype would round is not rounded on its way on.
        grads = mean if all(jax.tree.leaves(lent)) else _choose(lent, mean, added())
        u, inner_state = inner(grads, inner_state)
        return _unless(lent, u), (_choose(lent, u, mean), inner_state)

    def idle(held: tuple[Updates, OptState]) -> Any:
        return idle_zeros(_unless(lent, updates), state.mini_step)

    run = now_and_then if all(jax.tree.leaves(lent)) else either
    apart, (left, inner_state) = run(emit, step, idle, (mean, state.inner_opt_state))
    u = jax.tree.map(lambda flag, x, y: jnp.where(emit, x, 0) if flag else y, lent, left, apart)
    new = Leaves.of(left).values
    # What the mean of an absent gradient was, it stays.
    acc = leaves.tree(old if m is None else m for m, old in zip(new, kept, strict=True))
    return u, inner_state, acc


def _choose(flags: Any, a: Updates, b: Updates) -> Updates:
    """The leaves of a where the flag of the leaf is true, otherwise those of b."""
    return jax.tree.map(lambda flag, x, y: x if flag else y, flags, a, b)


def _unless(flags: Any, tree: Updates) -> Updates:
    """The leaves where the flag of the leaf is false, otherwise nothing."""
    return jax.tree.map(lambda flag, x: () if flag else x, flags, tree)
