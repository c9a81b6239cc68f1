"""Optax's interface to accumulation."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx import tree
from gradtx.combinators.accumulate import (
    Add,
    as_flag,
    check_every,
    cycle,
    every_now,
    first_mean,
    running_mean,
)
from gradtx.core.counts import increased, increment, start
from gradtx.core.definition import makes
from gradtx.core.hyperparameters import DType
from gradtx.core.inner import Inner
from gradtx.core.per_tree import TreeTransformation
from gradtx.core.place import Place
from gradtx.core.rule import Rule
from gradtx.core.schedule import AnySchedule
from gradtx.core.skipping import tells_steps, where_rises
from gradtx.core.state import OptState, Params, Updates
from gradtx.core.transformation import GradientTransformation, TransformationLike

__all__ = [
    "MultiSteps",
    "MultiStepsState",
    "ShouldSkipUpdateFunction",
    "multi_steps",
    "skip_large_updates",
    "skip_not_finite",
]


# A tree of arrays that says something about the last micro-batch.
SkipState = Any


@tells_steps(where_rises("gradient_step", inside="inner_opt_state"))
class MultiStepsState(NamedTuple):
    """mini_step: micro-batches accepted in this cycle; gradient_step: steps taken by the inner
    optimizer (both int32 scalars); acc_grads: the mean (or sum) so far, shaped like the params;
    skip_state: what should_skip_update_fn returned last."""

    mini_step: jax.Array
    gradient_step: jax.Array
    inner_opt_state: OptState
    acc_grads: Updates
    skip_state: SkipState = ()


class ShouldSkipUpdateFunction(Protocol):
    """Decides whether to leave out a micro-batch, and what to keep about it in the state."""

    def __call__(
        self, updates: Updates, gradient_step: jax.Array, params: Params | None
    ) -> tuple[jax.Array, SkipState]:
        """(a boolean scalar, a tree of arrays whose shapes stay the same)"""


def skip_not_finite(
    updates: Updates, gradient_step: jax.Array, params: Params | None
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Leave out a micro-batch with a NaN or an infinity, as should_skip_update_fn of `multi_steps`.

    Args:
        updates: the gradients of the micro-batch.
        gradient_step: how many steps the optimizer has taken; it makes no difference.
        params: the parameters; they make no difference.

    Returns: whether to skip, and the state: `should_skip` and `num_not_finite`, the number of
    elements that are not finite.

    Example:
        >>> skip, state = gradtx.skip_not_finite(jnp.array([1.0, jnp.nan, jnp.inf]), 0, None)
        >>> print(skip, state["num_not_finite"])
        True 2

    See also: `skip_large_updates`, `accumulate`, `finite_guard`.
    """
    counts = [jnp.sum(~jnp.isfinite(x), dtype=np.uint32) for x in jax.tree.leaves(updates)]
    small = [jnp.minimum(n, np.uint32(2**31 - 1)).astype(np.int32) for n in counts]
    number = functools.reduce(increased, small, jnp.zeros((), np.int32))
    return number > 0, {"should_skip": number > 0, "num_not_finite": number}


def skip_large_updates(
    updates: Updates, gradient_step: jax.Array, params: Params | None, max_squared_norm: ArrayLike
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Leave out a micro-batch with a large gradient, as should_skip_update_fn of `multi_steps`.

        skip unless sum of |g|^2 over all leaves < max_squared_norm

    The sum is taken in float32 or wider, and a micro-batch with a NaN is skipped too.

    Args:
        updates: the gradients of the micro-batch.
        gradient_step: how many steps the optimizer has taken; it makes no difference.
        params: the parameters; they make no difference.
        max_squared_norm: the bound on the sum of squares. Bind it beforehand:
            `functools.partial(skip_large_updates, max_squared_norm=100.0)`.

    Returns: whether to skip, and the state: `should_skip` and `norm_squared`.

    Example:
        >>> skip, state = gradtx.skip_large_updates(jnp.array([3.0, 4.0]), 0, None, 16.0)
        >>> print(skip, state["norm_squared"])
        True 25.0

    See also: `skip_not_finite`, `clip_by_global_norm`.
    """
    squared_norm = tree.norm(updates, squared=True)
    skip = ~(squared_norm < max_squared_norm)  # so that a NaN is skipped too
    return skip, {"should_skip": skip, "norm_squared": squared_norm}


def _never(
    updates: Updates, gradient_step: jax.Array, params: Params | None
) -> tuple[jax.Array, SkipState]:
    """Skip nothing."""
    return jnp.asarray(False), ()


class MultiSteps(TreeTransformation):
    """Accumulate gradients over several micro-batches, then run the optimizer once.

        acc <- acc + (g - acc) / n,     acc + g with use_grad_mean=False     (n gradients so far)
        u = opt(acc) when n = k, otherwise u = 0

    k is every_k_schedule: a whole number >= 1, or a schedule of the optimizer's step.
    should_skip_update_fn(updates, gradient_step, params) -> (skip, skip_state): a micro-batch for
    which skip holds changes nothing and does not count. accumulator_dtype: the dtype of acc.
    `accumulate` does the same, and by itself leaves out micro-batches with a NaN or an infinity.

    Raises: ValueError for k < 1.
    """

    _for_users = (
        *TreeTransformation._for_users,
        "gradient_transformation",
        "has_updated",
        "inner_opt",
    )

    def __new__(
        cls,
        opt: TransformationLike,
        every_k_schedule: AnySchedule | int,
        use_grad_mean: bool = True,
        should_skip_update_fn: ShouldSkipUpdateFunction | None = None,
        accumulator_dtype: DType = np.float32,
    ) -> Any:
        """A transformation like all others; `multi_steps` makes the same."""
        return multi_steps(
            opt, every_k_schedule, use_grad_mean, should_skip_update_fn, accumulator_dtype
        )

    @property
    def inner_opt(self) -> GradientTransformation:
        """The optimizer that runs once per cycle."""
        inner: GradientTransformation = self.arguments["opt"]
        return inner

    def gradient_transformation(self) -> GradientTransformation:
        """Itself; Optax's class, unlike this one, is not a transformation."""
        return self

    def has_updated(self, state: MultiStepsState) -> jax.Array:
        """Whether the last call of update completed a cycle."""
        return (state.mini_step == 0) & (state.gradient_step > 0)


@makes(MultiSteps)
def multi_steps(
    opt: TransformationLike,
    every_k_schedule: AnySchedule | int,
    use_grad_mean: bool = True,
    should_skip_update_fn: ShouldSkipUpdateFunction | None = None,
    accumulator_dtype: DType = np.float32,
) -> Rule:
    """Accumulate gradients over several micro-batches, then run the optimizer once.

        acc <- acc + (g - acc) / n,     acc + g with use_grad_mean=False     (n gradients so far)
        u = opt(acc) when n = k, otherwise u = 0

    It is Optax's `MultiSteps` as a function. `accumulate` does the same, and by itself leaves out
    micro-batches with a NaN or an infinity and takes weights. Like it, `update` takes flush=True,
    which ends the cycle with this call if it holds a gradient.

    Args:
        opt: the optimizer that takes a step after every k micro-batches, gradtx's or Optax's.
        every_k_schedule: k, a whole number >= 1, or a schedule of the optimizer's step.
        use_grad_mean: give the optimizer the mean of the gradients; False gives their sum.
        should_skip_update_fn: a function (updates, gradient_step, params) -> (skip, skip_state). A
            micro-batch for which skip holds changes nothing and does not count; skip_state is kept
            in the state. `skip_not_finite` and `skip_large_updates` are two such functions. None
            skips nothing.
        accumulator_dtype: the dtype of acc.

    State: acc, 4 bytes a parameter, two counts, skip_state and that of `opt`.

    Raises: ValueError for k < 1.

    Example:
        >>> tx = gradtx.multi_steps(gradtx.sgd(1.0), every_k_schedule=2, use_grad_mean=False)
        >>> state = tx.init(jnp.zeros(1))
        >>> for grad in (1.0, 3.0):
        ...     updates, state = tx.update(jnp.array([grad]), state)
        ...     print(updates, tx.has_updated(state))
        [0.] False
        [-4.] True

    See also: `accumulate`.
    """
    check_every("multi_steps: every_k_schedule", every_k_schedule)
    should_skip = should_skip_update_fn or _never

    def init(params: Params, opt: Inner) -> MultiStepsState:
        acc = first_mean(params, accumulator_dtype)
        _, skip_state = should_skip(tree.zeros_like(params), start(), params)
        return MultiStepsState(start(), start(), opt.init(), acc, skip_state)

    def update(
        needed: Updates,
        state: MultiStepsState,
        opt: Inner,
        params: Params | None = None,
        *,
        flush: ArrayLike = False,
    ) -> tuple[Updates, MultiStepsState]:
        skip, skip_state = should_skip(needed, state.gradient_step, params)
        if np.shape(skip) != () or jnp.asarray(skip).dtype != np.bool_:
            raise TypeError(
                "multi_steps: should_skip_update_fn must return (a boolean scalar, a state), "
                f"its first result has shape {np.shape(skip)}"
            )
        keep, before = ~skip, state.mini_step
        n = jnp.where(keep, increment(before), before)
        full = keep & (n >= every_now(every_k_schedule, state.gradient_step))
        emit = full | (as_flag(flush, "multi_steps: flush") & (n > 0))
        add = running_mean(keep, 1, before) if use_grad_mean else _sum(keep, before)
        u, inner_state, acc = cycle(opt, needed, state, add, emit)
        return u, MultiStepsState(
            mini_step=jnp.where(emit, 0, n),
            gradient_step=jnp.where(emit, increment(state.gradient_step), state.gradient_step),
            inner_opt_state=inner_state,
            acc_grads=acc,
            skip_state=skip_state,
        )

    return Rule(init, update, place=opt.place & Place.LAST)


def _sum(keep: jax.Array, before: jax.Array) -> Add:
    return lambda acc, g: jnp.where(keep, jnp.where(before == 0, 0, acc) + g, acc)
