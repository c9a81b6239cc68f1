"""A step that is taken now and then, and the state that is held in between."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from gradtx.core.state import OptState


def now_and_then(
    due: Any, run: Callable[[OptState], Any], idle: Callable[[OptState], Any], state: OptState
) -> Any:
    """run(state), a pair of an output and the new state, where it is due; otherwise
    (idle(state), state). For what is due on few steps, and a state that is large.

    On CPU and TPU it is a conditional, whose branches update the state in place or leave it. XLA
    for GPU copies whatever a conditional hands through, once on its way in and once on its way out,
    and updates in place what a loop carries. There it is a loop of at most one turn, which begins
    with what an idle step leaves behind. A loop has no derivative in reverse, so the loop has those
    of the conditional, in both modes. Effects stay in a conditional: a custom derivative allows
    none.

    Where nearly every step is due, as under a guard, or where the output is as large as the state,
    a conditional is better on GPU too: the loop needs memory for the output, and of elementwise
    branches, if both compute something, XLA makes selects in the kernel of what comes behind.
    """
    (runs, beside, effects), (idles, others, more) = _traced(run, state), _traced(idle, state)
    if effects or more:
        return either(due, run, idle, state)
    loop, conditional = partial(at_most_one_turn, runs, idles), partial(_conditional, runs, idles)
    operands = (jnp.asarray(due), state, beside, others)
    return lax.platform_dependent(*operands, cuda=loop, rocm=loop, default=conditional)


def either(
    due: Any, run: Callable[[OptState], Any], idle: Callable[[OptState], Any], state: OptState
) -> Any:
    """The same as a conditional, everywhere."""
    return lax.cond(due, run, lambda old: (idle(old), old), state)


def _conditional(run: Any, idle: Any, due: Any, state: Any, beside: Any, others: Any) -> Any:
    return either(due, lambda old: run(old, beside), lambda old: idle(old, others), state)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def at_most_one_turn(run: Any, idle: Any, due: Any, state: Any, beside: Any, others: Any) -> Any:
    """`now_and_then` as a loop. beside, others: what the functions read beside the state."""

    def turn(carry: Any) -> Any:
        goes_on, (_, old) = carry
        return jnp.zeros_like(goes_on), run(old, beside)

    return lax.while_loop(lambda carry: carry[0], turn, (due, (idle(state, others), state)))[1]


@at_most_one_turn.defjvp
def _derivative(run: Any, idle: Any, primals: Any, tangents: Any) -> Any:
    return jax.jvp(partial(_conditional, run, idle), primals, tangents)


def _traced(function: Callable[[Any], Any], state: Any) -> tuple[Any, list[Any], Any]:
    """The function, traced once for both forms; the traced arrays of its closure, which become its
    second argument, since a custom derivative sees arguments only; and its effects."""
    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(state)
    is_traced = [isinstance(x, jax.core.Tracer) for x in jaxpr.consts]
    beside = [x for x, traced in zip(jaxpr.consts, is_traced, strict=True) if traced]

    def call(state: Any, beside: Any) -> Any:
        given = iter(beside)
        pairs = zip(jaxpr.consts, is_traced, strict=True)
        consts = [next(given) if traced else x for x, traced in pairs]
        results = jaxpr_as_fun(ClosedJaxpr(jaxpr.jaxpr, consts))(*jax.tree.leaves(state))
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return call, beside, jaxpr.effects
