"""An average of the parameters, kept beside them to evaluate with."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core import counts
from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import bind_numbers, cast, compute_dtype, real_dtype_of
from gradtx.core.holding import now_and_then
from gradtx.core.hyperparameters import Decay, NonNegativeInt, PositiveInt, kind_of
from gradtx.core.inner import Inner
from gradtx.core.leaves import Leaves, align, at, describe, map_leaves
from gradtx.core.mask import MaskedNode
from gradtx.core.numerics import quotient, times
from gradtx.core.origin import is_like, nodes_of, the_only
from gradtx.core.place import Place
from gradtx.core.rule import Rule
from gradtx.core.schedule import AnySchedule, Schedule
from gradtx.core.skipping import always_steps, took_step
from gradtx.core.state import OptState, Params, PastParams, Updates
from gradtx.core.transformation import TransformationLike

__all__ = ["AveragedState", "averaged", "averaged_params"]


class AveragedState(NamedTuple):
    """The parameters after the last step come with the next call of update; until then the state
    holds only their weight.

    step: steps taken so far, an int32 scalar; weight_sum: the sum of all weights, theirs included;
    weight: their share of the average, 0 if they are not part of it (both scalars); average: that
    of all before them, shaped like the params, in float32 or wider; and the inner state.
    """

    step: jax.Array
    weight_sum: jax.Array
    weight: jax.Array
    average: PastParams
    inner_state: OptState


@per_tree
def averaged(
    inner: TransformationLike,
    decay: AnySchedule | float | None = None,
    start: NonNegativeInt = 0,
    every: PositiveInt = 1,
    *,
    debias: bool = True,
) -> Rule:
    """Keep an average of the parameters beside them; the updates are those of the inner optimizer.

        x <- (1 - c) x + c p                        p: the parameters after a step
        c  = 1 / n                                  decay=None, n of them so far
        c  = (1 - decay) / (1 - decay^n)            otherwise; with a schedule, 1 less the product
                                                    of the decays in the denominator
        c  = 1 - decay, and 1 for the first p       debias=False

    Evaluate with x, which `averaged_params(state, params)` computes. The noise of single steps
    averages out in it, as it does when the learning rate goes down.

    The parameters are averaged as they are: each call adds those that it is given to the average,
    whatever came after the updates (the rest of a chain, rounding, a projection), and
    `averaged_params` adds those that the last step led to. Put it inside `master_weights` to
    average the float32 copy.

    Only steps count. Inside or outside of `accumulate`, `multi_steps`, `finite_guard`,
    `apply_if_finite`, `dynamic_loss_scale` or `sam`, a call that takes no step is not averaged, and
    costs nothing. (Calls that `conditionally_mask` leaves out count unless it is the outer one.)

    Args:
        decay: the decay of an exponential moving average, in [0, 1), or a schedule of the steps
            taken: x reaches back about 1 / (1 - decay) steps; 0.999 to 0.9999 are usual. None is
            the mean of all (Polyak), for the end of a run: give it a start.
        start: how many steps are taken before the first that is averaged.
        every: average only every `every`-th step after that, such as the last of an epoch. The
            decay is that between two averaged steps.
        debias: divide by the sum of the weights, so that an early average is a mean of the few
            parameters it has seen; otherwise it starts as the first ones, which keep a large
            weight for long.

    State: x, 4 bytes a parameter, a count, two scalars and that of `inner`.

    Raises: ValueError for a decay that is not in [0, 1).

    Example:
        >>> tx = gradtx.averaged(gradtx.sgd(1.0))
        >>> params = jnp.array([0.0])
        >>> state = tx.init(params)
        >>> for grad in (-1.0, -2.0, -3.0):
        ...     params, state = gradtx.step(tx, jnp.array([grad]), state, params)
        ...     print(params, gradtx.averaged_params(state, params))
        [1.] [1.]
        [3.] [2.]
        [6.] [3.3333335]

    See also: `averaged_params`; `incremental_update`, for an average outside of the optimizer;
    `schedule_free`, which takes gradients near its average; `lookahead`.

    References: Polyak & Juditsky, 1992, https://doi.org/10.1137/0330046; Izmailov et al., 2018,
    https://arxiv.org/abs/1803.05407
    """
    if decay is not None and not isinstance(decay, Schedule):
        kind_of(Decay).convert("averaged: decay", decay)

    def init(params: Params, inner: Inner) -> AveragedState:
        nothing = np.zeros((), real_dtype_of(params))
        average = map_leaves("averaged", partial(jnp.array, copy=True), params)
        scalars = counts.start(), jnp.asarray(nothing), jnp.array(nothing)
        return AveragedState(*scalars, average, inner.init())

    def update(
        unwidened: Updates, state: AveragedState, params: Params, inner: Inner
    ) -> tuple[Updates, AveragedState]:
        def take_in(average: Params) -> tuple[tuple[()], Params]:
            return (), jax.tree.map(partial(_mixed, state.weight), average, params)

        if every == 1 and always_steps(state.inner_state):
            _, average = take_in(state.average)  # in the loop that updates the params
        else:
            _, average = now_and_then(state.weight > 0, take_in, lambda _: (), state.average)
        grads = _after(average, unwidened, state.step)
        updates, inner_state = inner.emit(grads, state.inner_state)
        taken = took_step(state.inner_state, inner_state)
        step = jnp.where(taken, counts.increment(state.step), state.step)
        due = taken & (step > start) & ((step - start) % every == 0)
        before = state.weight_sum
        kept, new = _weights(decay, state.step, before.dtype)
        new = new if debias else jnp.where(before > 0, new, 1)
        total = kept * before + new
        return updates, AveragedState(
            step=step,
            weight_sum=jnp.where(due, total, before),
            weight=jnp.where(due, quotient(new, total), 0),
            average=average,
            inner_state=inner_state,
        )

    return Rule(init, update, place=inner.place & Place.LAST)


def _after(average: Params, grads: Updates, count: jax.Array) -> Updates:
    """The gradients; on CPU, what is computed from them has to wait for the average.

    Both read the parameters, which are then updated in place: XLA:CPU would copy them first. It
    removes a barrier, but not a select whose condition it cannot decide: `count`, an integer
    scalar, is never negative.
    """

    def waiting(g: jax.Array, x: jax.Array) -> jax.Array:
        if x.size == 0:
            return g
        never = (count < 0) & (lax.slice(x.real.ravel(), (0,), (1,)).squeeze() > 0)
        return jnp.where(never, jnp.zeros_like(g), g)

    return lax.platform_dependent(
        grads, average, cpu=partial(jax.tree.map, waiting), default=lambda grads, _: grads
    )


def _weights(
    decay: Schedule | float | None, steps: jax.Array, dtype: np.dtype
) -> tuple[jax.Array, jax.Array]:
    """What the sum of earlier weights is multiplied by, and the weight of the next parameters."""
    if decay is None:
        return jnp.ones((), dtype), jnp.ones((), dtype)
    number = decay(steps) if isinstance(decay, Schedule) else decay
    number = bind_numbers(number, dtype, "averaged: decay")
    return jnp.asarray(number, dtype), jnp.asarray(1 - number, dtype)


def _mixed(weight: jax.Array, average: jax.Array, param: jax.Array) -> jax.Array:
    """(1 - weight) average + weight param"""
    # Exactly the parameter where that is all there is.
    before = jnp.where(weight == 1, jnp.zeros_like(average), average)
    return before + times(weight, param - before)


def averaged_params(state: OptState, params: Params) -> Params:
    """Compute the average of the parameters that `averaged` keeps, in the dtypes of params.

    Until the first are averaged, and where a mask hides a leaf from `averaged`, it returns params.

    Args:
        state: the optimizer's state, with one `AveragedState` anywhere in it.
        params: the parameters as the last step left them, which are a part of the average.

    Raises: ValueError if the state holds no `AveragedState` or several, or, with the leaf's path,
    if params are not shaped like the average.

    Example:
        >>> tx = gradtx.chain(gradtx.clip(1.0), gradtx.averaged(gradtx.sgd(0.5), decay=0.9))
        >>> params = {"w": jnp.array([1.0])}
        >>> state = tx.init(params)
        >>> for _ in range(2):
        ...     params, state = gradtx.step(tx, params, state, params)
        >>> average = gradtx.averaged_params(state, params)
        >>> print(params["w"], average["w"])
        [0.25] [0.36842105]

    See also: `averaged`.
    """
    found = nodes_of(state, lambda x: is_like(x, AveragedState))
    of = "an optimizer made with averaged(...)"
    mine = the_only(found, "averaged_params", "AveragedState", of)
    leaves = Leaves.of(params)
    averages = align(leaves, mine.average, "averaged_params: the average", "params")

    def evaluate(path: str, param: Any, average: Any) -> Any:
        if param is None or average is None or isinstance(average, MaskedNode):
            return param
        if np.shape(param) != np.shape(average):
            raise ValueError(
                f"averaged_params: {at(path)}: params {describe(param)} are not shaped like the "
                f"average, {describe(average)}: pass the params that the optimizer updates"
            )
        param = jnp.asarray(param)
        wide = cast(param, compute_dtype(param.dtype, average.dtype))
        newest = _mixed(cast(mine.weight, wide.real.dtype), cast(average, wide.dtype), wide)
        return cast(jnp.where(mine.weight_sum > 0, newest, wide), param.dtype)

    triples = zip(leaves.paths, leaves.values, averages, strict=True)
    return leaves.tree(evaluate(*triple) for triple in triples)
