"""Occasional steps: a function that is due on few updates, and whose state is held in between."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.typing import ArrayLike

from gradtx.core.state import OptState

Run = Callable[[OptState], tuple[Any, OptState]]
Idle = Callable[[OptState], Any]
# The traced arrays that a function reads besides its state, and the function of both.
Consts = list[jax.Array]
Closed = Callable[[OptState, Consts], Any]


def now_and_then(due: ArrayLike, run: Run, idle: Idle, state: OptState) -> tuple[Any, OptState]:
    """run(state), a pair (output, new state), if due, otherwise (idle(state), state).

    For a function that is due on few steps and has a large state. due: a boolean scalar. idle:
    makes an output of the same shapes and dtypes as run's.

    On CPU and TPU it is a conditional, whose branches update the state in place or leave it. XLA
    for GPU copies whatever a conditional passes through, once going in and once coming out, but
    updates a loop's carry in place. There it is a loop of at most one iteration, whose initial
    carry is the result of an idle step. A loop has no reverse-mode derivative, so this one has the
    derivatives of the conditional, in both modes. Functions with effects, which a custom derivative
    does not allow, always get the conditional.

    Where nearly every step is due, as under a guard, or where the output is as large as the state,
    a conditional (`either`) is better on GPU too: the loop needs memory for the output, whereas XLA
    turns elementwise branches, if both compute something, into selects in the kernel that follows.
    """
    (runs, beside, effects), (idles, others, more) = _traced(run, state), _traced(idle, state)
    if effects or more:
        return either(due, run, idle, state)
    loop, conditional = partial(at_most_one_turn, runs, idles), partial(_conditional, runs, idles)
    operands = (jnp.asarray(due), state, beside, others)
    return lax.platform_dependent(*operands, cuda=loop, rocm=loop, default=conditional)


def either(due: ArrayLike, run: Run, idle: Idle, state: OptState) -> tuple[Any, OptState]:
    """`now_and_then` as a conditional on every platform."""
    return lax.cond(due, run, lambda old: (idle(old), old), state)


def _conditional(
    run: Closed, idle: Closed, due: jax.Array, state: OptState, beside: Consts, others: Consts
) -> tuple[Any, OptState]:
    return either(due, lambda old: run(old, beside), lambda old: idle(old, others), state)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def at_most_one_turn(
    run: Closed, idle: Closed, due: jax.Array, state: OptState, beside: Consts, others: Consts
) -> tuple[Any, OptState]:
    """`now_and_then` as a loop. beside, others: the traced constants of run and of idle."""

    def turn(carry: Any) -> Any:
        goes_on, (_, old) = carry
        return jnp.zeros_like(goes_on), run(old, beside)

    return lax.while_loop(lambda carry: carry[0], turn, (due, (idle(state, others), state)))[1]


@at_most_one_turn.defjvp
def _derivative(
    run: Closed, idle: Closed, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[Any, Any]:
    return jax.jvp(partial(_conditional, run, idle), primals, tangents)


def _traced(function: Run | Idle, state: OptState) -> tuple[Closed, Consts, Collection[Any]]:
    """The function, traced once for both forms; the traced arrays of its closure, which become its
    second argument, since a custom derivative applies to arguments only; and its effects."""
    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(state)
    is_traced = [isinstance(x, jax.core.Tracer) for x in jaxpr.consts]
    beside = [x for x, traced in zip(jaxpr.consts, is_traced, strict=True) if traced]

    def call(state: OptState, beside: Consts) -> Any:
        given = iter(beside)
        pairs = zip(jaxpr.consts, is_traced, strict=True)
        consts = [next(given) if traced else x for x, traced in pairs]
        results = jaxpr_as_fun(ClosedJaxpr(jaxpr.jaxpr, consts))(*jax.tree.leaves(state))
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return call, beside, jaxpr.effects
