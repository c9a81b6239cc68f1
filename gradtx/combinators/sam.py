"""Sharpness-aware minimization: take the gradient where the loss nearby is high."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx import tree
from gradtx.core.absent import drop_absent, restore_absent
from gradtx.core.counts import increment, start
from gradtx.core.decorators import per_tree
from gradtx.core.holding import one_of
from gradtx.core.hyperparameters import PositiveInt
from gradtx.core.inner import Inner
from gradtx.core.origin import in_classes_of
from gradtx.core.place import Place
from gradtx.core.rule import Rule
from gradtx.core.skipping import tells_steps, took_step
from gradtx.core.state import HoldsParams, OptState, Params, Updates
from gradtx.core.transformation import TransformationLike

__all__ = ["SAMState", "sam"]


@tells_steps(lambda old, new: (new.steps_since_sync == 0) & took_step(old.opt_state, new.opt_state))
class SAMState(NamedTuple):
    """steps_since_sync: calls of update since the climb began, an int32 scalar; the states of both
    optimizers; cache: the params from which the climb began, None in opaque mode."""

    steps_since_sync: jax.Array
    opt_state: OptState
    adv_state: OptState
    cache: Annotated[Params | None, HoldsParams()]


@per_tree
def sam(
    optimizer: TransformationLike,
    adv_optimizer: TransformationLike,
    sync_period: PositiveInt = 2,
    reset_state: bool = True,
    opaque_mode: bool = False,
    batch_axis_name: str | None = None,
) -> Rule:
    """Climb with one optimizer, then step with another from where the climb began.

        x <- x - adv_optimizer(g(x))            sync_period - 1 times, from x = c
        u  = optimizer(g(x)), applied to c

    SAM itself is sam(sgd(0.01), chain(normalize(), sgd(rho))). Each of these lines is one call of
    update, with the gradient at the params as they are then; the last call also undoes the climb.
    A step from where the loss nearby is high leads to flatter minima, at the cost of sync_period
    gradients. `stochastic_rounding`, `kahan` and `master_weights` belong in `optimizer`.

    Args:
        optimizer: the optimizer that takes the steps, gradtx's or Optax's. With a line search in
            it, which opaque_mode does not allow, the loss that it sees is the one at the end of
            the same climb.
        adv_optimizer: the optimizer that climbs: its updates are subtracted. Its learning rate is
            the radius rho. It cannot hold a line search.
        sync_period: how many gradients a step takes: the climb and the step itself. 2 is SAM; 1
            does not climb.
        reset_state: begin every climb with a fresh state of adv_optimizer.
        opaque_mode: do all of it in one call of update, which needs grad_fn(params, i): the
            gradient at the params of the i-th climbing step, which are in float32 or wider.
        batch_axis_name: the mapped axis over which the gradients of grad_fn are averaged.

    State: the parameters where the climb began, 4 bytes each (none in opaque mode), a count and
    those of both optimizers.

    Raises: ValueError for sync_period < 1 and for an adv_optimizer that rounds.

    Example:
        >>> tx = gradtx.sam(gradtx.sgd(0.5), gradtx.chain(gradtx.normalize(), gradtx.sgd(0.25)))
        >>> params = jnp.array([1.0])
        >>> state = tx.init(params)
        >>> for _ in range(2):  # the gradient of x^2 is 2 x
        ...     params, state = gradtx.step(tx, 2 * params, state, params)
        ...     print(params)
        [1.25]
        [-0.25]

    References: Foret et al., 2021, https://arxiv.org/abs/2010.01412
    """
    if Place.LAST in adv_optimizer.place:
        raise ValueError(
            f"sam: {adv_optimizer} rounds the parameter, and the climb is undone: put it last in "
            "the optimizer of sam"
        )
    place = optimizer.place & Place.LAST
    if opaque_mode:
        return _in_one_call(sync_period, reset_state, batch_axis_name, place)
    return _in_several_calls(sync_period, reset_state, place)


def _fresh(adv_optimizer: Inner, old: OptState, params: Params) -> OptState:
    """The climbing optimizer's first state at these params, in the classes of the old one."""
    return in_classes_of(old, adv_optimizer.at(params).init())


# The states of both optimizers.
Held = tuple[OptState, OptState]


# -- a call of update for each step ----------------------------------------------------------------


def _in_several_calls(sync_period: int, reset_state: bool, place: Place) -> Rule:
    """Each call climbs once, and the last of a period steps from the origin, the cached params."""

    def init(params: Params, optimizer: Inner, adv_optimizer: Inner) -> SAMState:
        cache = jax.tree.map(jnp.copy, params)
        return SAMState(start(), optimizer.init(), adv_optimizer.at(params).init(), cache)

    def update(
        updates: Updates, state: SAMState, params: Params, optimizer: Inner, adv_optimizer: Inner
    ) -> tuple[Updates, SAMState]:
        old = drop_absent(updates, state.cache, "sam: the state's cache")
        origin = tree.where(state.steps_since_sync == 0, params, old)
        cache = restore_absent(updates, state.cache, origin)

        def climb(held: Held) -> tuple[Updates, Held]:
            opt_state, adv_state = held
            climber = adv_optimizer.at(params).without_search("sam: adv_optimizer")
            u, adv_state = climber(updates, adv_state)
            return jax.tree.map(jnp.negative, u), (opt_state, adv_state)

        def step(held: Held) -> tuple[Updates, Held]:
            opt_state, adv_state = held
            u, opt_state = _at_origin(optimizer, origin, params)(updates, opt_state)
            u = jax.tree.map(lambda c, p, u: c - p + u, origin, params, u)
            if reset_state:
                adv_state = _fresh(adv_optimizer, adv_state, cache)
            return u, (opt_state, adv_state)

        last = state.steps_since_sync == sync_period - 1
        held = (state.opt_state, state.adv_state)
        u, (opt_state, adv_state) = one_of(last, step, climb, held)
        since = increment(state.steps_since_sync) % np.int32(sync_period)
        return u, SAMState(since, opt_state, adv_state, cache)

    return Rule(init, update, place=place)


def _at_origin(optimizer: Inner, origin: Params, params: Params) -> Inner:
    """The optimizer at the origin of a climb that has come to `params`. The loss that it
    sees at some params is the caller's at the end of the same climb from there."""
    stored = optimizer.params

    def end_from(c: Params) -> Params:
        return tree.add(c, tree.sub(params, origin))

    def searched(c: Params) -> Params:
        climb = tree.sub(*lax.stop_gradient((params, origin)))
        return tree.cast_like(tree.add(c, climb), stored)

    # The cast is exact: the parameters have had these numbers.
    at_origin = optimizer.at(tree.cast_like(origin, stored))
    return at_origin.seeing(params=end_from, searched=searched)


# -- one call of update for all steps --------------------------------------------------------------


def _in_one_call(
    sync_period: int, reset_state: bool, batch_axis_name: str | None, place: Place
) -> Rule:
    """Each call climbs all the way, with gradients of the caller's `grad_fn`, and steps."""

    def init(params: Params, optimizer: Inner, adv_optimizer: Inner) -> SAMState:
        return SAMState(start(), optimizer.init(), adv_optimizer.at(params).init(), None)

    def update(
        updates: Updates,
        state: SAMState,
        params: Params,
        optimizer: Inner,
        adv_optimizer: Inner,
        *,
        grad_fn: Callable[[Params, int], Updates],
    ) -> tuple[Updates, SAMState]:
        optimizer, climber = (
            inner.without_search("sam: with opaque_mode, an optimizer of it")
            for inner in (optimizer, adv_optimizer)
        )
        grads, x, adv_state = updates, params, state.adv_state
        for i in range(sync_period - 1):
            u, adv_state = climber.at(x)(grads, adv_state)
            x = tree.sub(x, u)
            grads = drop_absent(updates, grad_fn(x, i), "sam: what grad_fn returned")
            if batch_axis_name is not None:
                grads = lax.pmean(grads, batch_axis_name)  # type: ignore[no-untyped-call]
        if reset_state:
            fresh = _fresh(adv_optimizer, state.adv_state, params)
            # If some gradients are absent so are params here, but the old state was fresh as well.
            same = jax.tree.structure(fresh) == jax.tree.structure(state.adv_state)  # type: ignore[operator]
            adv_state = fresh if same else state.adv_state
        u, opt_state = optimizer(grads, state.opt_state)
        return u, SAMState(state.steps_since_sync, opt_state, adv_state, None)

    return Rule(init, update, place=place)
