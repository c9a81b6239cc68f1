"""Accumulate gradients over micro-batches."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from gradtx.core.absent import drop_absent
from gradtx.core.counts import increment, start
from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import Scalar, cast, real_dtype_of, scalar_dtype
from gradtx.core.finite import all_finite, idle_zeros
from gradtx.core.holding import either, now_and_then
from gradtx.core.hyperparameters import DType
from gradtx.core.inner import Inner
from gradtx.core.launches import SMALL, in_one_array
from gradtx.core.leaves import Leaves, aligned_arrays
from gradtx.core.numerics import number_beside, times, zeros_like
from gradtx.core.place import Place
from gradtx.core.rule import Rule
from gradtx.core.schedule import AnySchedule, Schedule
from gradtx.core.skipping import tells_steps, where_rises
from gradtx.core.state import OptState, Params, Updates
from gradtx.core.transformation import TransformationLike

__all__ = ["AccumulateState", "accumulate"]


@tells_steps(where_rises("gradient_step", inside="inner_opt_state"))
class AccumulateState(NamedTuple):
    """How far the current cycle has come; the counts are int32 scalars.

    mini_step: micro-batches seen in this cycle; gradient_step: steps taken by the inner optimizer;
    acc_grads: the mean of this cycle's accepted gradients, shaped like the params (meaningless
    between cycles); accepted: the sum of their weights, a float32 scalar (float64 for float64
    params): their number, unless weights were given; skipped: micro-batches dropped since the start
    because they held a NaN or an infinity.
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
    sums: bool = False,
    drop_nonfinite: bool = True,
    accumulator_dtype: DType | None = None,
) -> Rule:
    """Average the gradients of `every` micro-batches, then run the inner optimizer once.

        mean = (sum of weight * g) / (sum of weight)        over the cycle's accepted gradients
        mean = (sum of g) / (sum of weight)                 with sums=True
        u = inner(mean) on every `every`-th call, otherwise u = 0

    For batches that do not fit in memory at once. On the other calls the inner optimizer does not
    run and its state is not read. A micro-batch with a NaN or an infinity is left out of the mean
    and counted in `state.skipped`; a cycle in which none was accepted changes nothing.

    `update` and `gradtx.step` take two extra arguments, which may be arrays and differ from call to
    call. weight, >= 0, is what the micro-batch counts for, 1 if it is not given: give its number of
    tokens or examples where they differ, and the mean is that of one large batch. A micro-batch of
    weight 0 adds nothing, whatever its gradient holds. flush=True ends the cycle with this call, so
    that the last micro-batches of the data take a step too; if the cycle holds nothing, nothing
    changes. To flush when no gradient is left, pass any finite one with weight 0.

    The inner optimizer sees the other extra arguments of the cycle's last call only, so a `value`
    or `value_fn` should cover all of its micro-batches.

    Args:
        inner: the optimizer that takes the steps, gradtx's or Optax's. Its schedules count its own
            steps, one a cycle.
        every: the number of micro-batches in a cycle: a whole number >= 1, or a schedule of the
            inner optimizer's step, for batches that grow during training.
        sums: the gradients are sums over the tokens or examples of a micro-batch, as with a loss
            that is a sum, and weight is their number; otherwise they are means.
        drop_nonfinite: leave micro-batches with a NaN or an infinity out of the mean. False saves
            the pass over the gradients that looks for them.
        accumulator_dtype: the dtype of the mean; None means float32 or wider. bfloat16 halves its
            memory and adds a rounding error with each micro-batch.

    State: the mean, 4 bytes a parameter, three counts, the sum of weights, and that of `inner`.

    Raises: ValueError for every < 1, and in update for a negative weight (if it is known when the
    program is traced); TypeError for a weight that is no number or a flush that is no boolean.

    Example:
        >>> params = jnp.array([1.0, 2.0])
        >>> tx = gradtx.accumulate(gradtx.sgd(1.0), every=2)
        >>> state = tx.init(params)
        >>> for grad in ([1.0, 3.0], [3.0, 5.0]):
        ...     updates, state = tx.update(jnp.array(grad), state, params)
        ...     print(updates)
        [0. 0.]
        [-2. -4.]
        >>> for grad, tokens in ([1.0, 3.0], 300), ([3.0, 5.0], 100):
        ...     updates, state = tx.update(jnp.array(grad), state, params, weight=tokens)
        >>> print(updates)
        [-1.5 -3.5]

    See also: `multi_steps`, `averaged`.
    """
    check_every("accumulate: every", every)

    def init(params: Params, inner: Inner) -> AccumulateState:
        mean = first_mean(params, accumulator_dtype)
        nothing = jnp.zeros((), real_dtype_of(params))
        return AccumulateState(start(), start(), inner.init(), mean, nothing, start())

    def update(
        needed: Updates,
        state: AccumulateState,
        inner: Inner,
        *,
        weight: ArrayLike | None = None,
        flush: ArrayLike = False,
    ) -> tuple[Updates, AccumulateState]:
        own = _as_weight(weight, state.accepted.dtype)
        counts = own != 0  # true of a NaN too
        finite = all_finite((needed, own)) if drop_nonfinite else jnp.asarray(True)
        keep = counts & finite
        accepted = jnp.where(keep, state.accepted + own, state.accepted)
        mini_step = increment(state.mini_step)
        flushed = as_flag(flush, "accumulate: flush")
        due = (mini_step >= every_now(every, state.gradient_step)) | flushed
        emit = due & (accepted > 0)
        grads = _divided(needed, jnp.where(counts, own, 1)) if sums else needed
        add = running_mean(keep, own, state.accepted)
        if weight is not None:  # what is inside may accumulate too
            inner = inner.given(weight=accepted)
        u, inner_state, mean = cycle(inner, grads, state, add, emit)
        return u, AccumulateState(
            mini_step=jnp.where(due, 0, mini_step),
            gradient_step=jnp.where(emit, increment(state.gradient_step), state.gradient_step),
            inner_opt_state=inner_state,
            acc_grads=mean,
            accepted=jnp.where(due, 0, accepted),
            skipped=jnp.where(counts & ~finite, increment(state.skipped), state.skipped),
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


def running_mean(keep: jax.Array, weight: Scalar, so_far: jax.Array) -> Add:
    """Add a gradient to the mean of those so far, which stays as it is unless `keep` holds.

    weight: that of the gradient, not 0 if it is kept; so_far: the sum of the weights in the
    mean, 0 if nothing is in it yet.
    """
    total = cast(jnp.where(keep, so_far + weight, 1), scalar_dtype())
    share = number_beside(total, weight) / total
    of_large = tuple(cast(x, total.dtype) for x in (keep, so_far == 0, share))
    of_small = in_one_array(of_large) or of_large

    def add(mean: jax.Array, g: jax.Array) -> jax.Array:
        kept, first, share = of_small if mean.size <= SMALL else of_large
        # The first one replaces the last cycle's mean.
        before = jnp.where(first != 0, 0, mean)
        return jnp.where(kept != 0, before + times(share, g - before), mean)

    return add


def as_flag(x: ArrayLike, where: str) -> jax.Array:
    """A boolean scalar."""
    if np.shape(x) != () or jnp.asarray(x).dtype != np.bool_:
        raise TypeError(f"{where} must be True or False, or a boolean array of no axes, got {x!r}")
    return jnp.asarray(x)


def _as_weight(weight: ArrayLike | None, dtype: np.dtype) -> jax.Array:
    """The weight of a micro-batch as a scalar of this dtype: 1 if none was given."""
    given = 1 if weight is None else weight
    kind = np.dtype(getattr(given, "dtype", None) or np.asarray(given).dtype).kind
    if kind not in "iufV" or np.shape(given) != ():
        raise TypeError(
            f"accumulate: weight must be a number, or an array of no axes, got {weight!r}"
        )
    if not isinstance(given, jax.core.Tracer) and np.any(np.asarray(given, np.float64) < 0):
        raise ValueError(f"accumulate: weight must be >= 0, got {weight!r}")
    return cast(given, dtype)


def _divided(updates: Updates, number: jax.Array) -> Updates:
    return jax.tree.map(lambda g: g / cast(number, g.real.dtype), updates)


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
        # The inner optimizer gets the unrounded mean, even where the accumulator is narrower.
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
