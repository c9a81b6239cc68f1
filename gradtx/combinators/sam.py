"""Sharpness-aware minimization: the gradient is taken where the loss nearby is high."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx import tree
from gradtx.core.absent import given, kept
from gradtx.core.counts import increment, start
from gradtx.core.decorators import per_tree
from gradtx.core.inner import Inner
from gradtx.core.kinds import PositiveInt
from gradtx.core.origin import in_classes_of
from gradtx.core.place import Place
from gradtx.core.rule import Rule
from gradtx.core.state import HoldsParams, OptState, Params
from gradtx.core.transformation import GradientTransformation

__all__ = ["SAMState", "sam"]


class SAMState(NamedTuple):
    """Steps since the last one of the outer optimizer, the states of both optimizers, and the
    params from which the adversarial steps set out (None in opaque mode)."""

    steps_since_sync: Any
    opt_state: OptState
    adv_state: OptState
    cache: Annotated[Params | None, HoldsParams()]


@per_tree
def sam(
    optimizer: GradientTransformation,
    adv_optimizer: GradientTransformation,
    sync_period: PositiveInt = 2,
    reset_state: bool = True,
    opaque_mode: bool = False,
    batch_axis_name: str | None = None,
) -> Any:
    """Climb with one optimizer, then step with another from where the climb began.

        x <- x - adv_optimizer(g(x))            sync_period - 1 times, from x = c
        u  = optimizer(g(x)), applied to c

    SAM itself is sam(sgd(0.01), chain(normalize(), sgd(rho))). Each of these lines is one call of
    update, whose gradient is that of the params as they are; the climb is undone by the last call.
    With opaque_mode one call does all of it: update then needs grad_fn(params, i), which is called
    with the params of the i-th climbing step, in float32 or wider. batch_axis_name: the mapped axis
    over which those gradients are averaged. reset_state: begin every climb with a fresh
    adv_optimizer. The loss of the optimizer is the one at the end of the same climb; adv_optimizer,
    and the optimizer in opaque mode, cannot hold a line search. `stochastic_rounding`, `kahan` or
    `master_weights` belongs into `optimizer`.

    Raises: ValueError for sync_period < 1 and for a rounding adv_optimizer. Foret et al., 2021, https://arxiv.org/abs/2010.01412
    """
    if Place.LAST in adv_optimizer.place:
        raise ValueError(
            f"sam: {adv_optimizer} rounds the parameter, and the climb is undone: put it last in "
            "the optimizer of sam"
        )

    def init(params: Any, optimizer: Inner, adv_optimizer: Inner) -> SAMState:
        cache = None if opaque_mode else jax.tree.map(jnp.copy, params)
        return SAMState(start(), optimizer.init(), adv_optimizer.at(params).init(), cache)

    def fresh(old: OptState, params: Any) -> OptState:
        return in_classes_of(old, adv_optimizer.init(params))

    def transparent(
        updates: Any, state: SAMState, params: Any, optimizer: Inner, adv_optimizer: Inner
    ) -> Any:
        old = given(updates, state.cache, "sam: the state's cache")
        origin = tree.where(state.steps_since_sync == 0, params, old)
        cache = kept(updates, state.cache, origin)
        stored_params = optimizer.params

        def from_origin(c: Params, ends: Any = (params, origin)) -> Params:
            """The end of the same climb from c, where the loss is that of SAM at c."""
            return tree.add(c, tree.sub(*ends))

        def searched(c: Params) -> Params:
            ends = lax.stop_gradient((params, origin))
            return tree.cast_like(from_origin(c, ends), stored_params)

        def climb(opt_state: OptState, adv_state: OptState) -> Any:
            climber = adv_optimizer.at(params).without_search("sam: adv_optimizer")
            u, adv_state = climber(updates, adv_state)
            return jax.tree.map(jnp.negative, u), opt_state, adv_state

        def step(opt_state: OptState, adv_state: OptState) -> Any:
            # The numbers of the origin are ones that the parameters have had.
            at_origin = optimizer.at(tree.cast_like(origin, stored_params))
            seeing = at_origin.seeing(params=from_origin, searched=searched)
            u, opt_state = seeing(updates, opt_state)
            u = jax.tree.map(lambda c, p, u: c - p + u, origin, params, u)
            return u, opt_state, fresh(adv_state, cache) if reset_state else adv_state

        last = state.steps_since_sync == sync_period - 1
        u, opt_state, adv_state = lax.cond(last, step, climb, state.opt_state, state.adv_state)
        since = increment(state.steps_since_sync) % np.int32(sync_period)
        return u, SAMState(since, opt_state, adv_state, cache)

    def opaque(
        updates: Any,
        state: SAMState,
        params: Any,
        optimizer: Inner,
        adv_optimizer: Inner,
        *,
        grad_fn: Any,
    ) -> Any:
        optimizer, climber = (
            inner.without_search("sam: with opaque_mode, an optimizer of it")
            for inner in (optimizer, adv_optimizer)
        )
        grads, x, adv_state = updates, params, state.adv_state
        for i in range(sync_period - 1):
            u, adv_state = climber.at(x)(grads, adv_state)
            x = tree.sub(x, u)
            grads = given(updates, grad_fn(x, i), "sam: what grad_fn returned")
            if batch_axis_name is not None:
                grads = lax.pmean(grads, batch_axis_name)  # type: ignore[no-untyped-call]
        if reset_state:
            new = fresh(state.adv_state, params)
            # With absent gradients the params here are not all: the old state was a fresh one too.
            old: Any = jax.tree.structure(state.adv_state)
            same = jax.tree.structure(new) == old
            adv_state = new if same else state.adv_state
        u, opt_state = optimizer(grads, state.opt_state)
        return u, SAMState(state.steps_since_sync, opt_state, adv_state, None)

    return Rule(init, opaque if opaque_mode else transparent, place=optimizer.place & Place.LAST)
