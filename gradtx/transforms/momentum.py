"""Momentum: sums and running means of gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.decorators import per_leaf
from gradtx.core.kinds import Decay, DType, Fraction, FractionOrOff, is_off
from gradtx.core.numerics import running_mean, zeros_like
from gradtx.core.origin import nodes_of, the_only
from gradtx.core.rule import Rule
from gradtx.core.state import Count, OptState, Params, Updates

__all__ = [
    "DampenedTraceState",
    "EmaState",
    "TraceState",
    "ema",
    "lookahead_point",
    "scale_by_momentum",
    "trace",
]


class TraceState(NamedTuple):
    """The momentum buffer v."""

    trace: Updates


class DampenedTraceState(NamedTuple):
    """The momentum buffer v, and the count by which the first gradient is known."""

    count: Count
    trace: Updates


class EmaState(NamedTuple):
    """The running mean of the updates."""

    count: Count
    ema: Updates


def _direction(grad: Any, v: Any, decay: Any, nesterov: bool) -> Any:
    """v, or g + decay * v with nesterov"""
    return grad + decay * v if nesterov else v


def _plain(decay: Any, nesterov: bool, dtype: Any = None) -> Rule:
    def init(param: Any) -> TraceState:
        return TraceState(zeros_like(param, dtype))

    def update(grad: Any, state: TraceState) -> Any:
        v = grad + decay * state.trace
        return _direction(grad, v, decay, nesterov), TraceState(v)

    return Rule(init, update)


def _dampened(decay: Any, nesterov: bool, dampening: Any) -> Rule:
    def init(param: Any, step: Any) -> DampenedTraceState:
        return DampenedTraceState(step.count, zeros_like(param))

    def update(grad: Any, state: DampenedTraceState, step: Any) -> Any:
        v = decay * state.trace + (1 - dampening) * grad
        v = jnp.where(step.count == 1, grad, v)
        return _direction(grad, v, decay, nesterov), DampenedTraceState(step.count, v)

    return Rule(init, update)


@per_leaf
def scale_by_momentum(
    decay: Fraction, *, nesterov: bool = False, dampening: FractionOrOff = 0.0
) -> Any:
    """Accumulate a decaying sum of gradients, the heavy ball.

        v <- decay * v + (1 - dampening) * g        (the first v is g)
        u  = v                                      u = g + decay * v with nesterov

    The step is -learning_rate * u. Polyak, 1964; Sutskever et al., 2013,
    https://proceedings.mlr.press/v28/sutskever13.html; dampening as in PyTorch.
    """
    if is_off(dampening):
        return _plain(decay, nesterov)
    return _dampened(decay, nesterov, dampening)


@per_leaf
def trace(decay: Fraction, nesterov: bool = False, accumulator_dtype: DType | None = None) -> Any:
    """Accumulate a decaying sum of gradients: Optax's name for momentum.

        v <- decay * v + g
        u  = v                                      u = g + decay * v with nesterov

    accumulator_dtype: in which v is stored; float32 or wider without it.
    """
    return _plain(decay, nesterov, accumulator_dtype)


@per_leaf
def ema(decay: Decay, debias: bool = True, accumulator_dtype: DType | None = None) -> Any:
    """Replace the updates by their exponential moving average.

        m <- decay * m + (1 - decay) * g
        u  = m / (1 - decay^t)                      u = m with debias=False

    accumulator_dtype: in which m is stored; float32 or wider without it.
    """

    def init(param: Any, step: Any) -> EmaState:
        return EmaState(step.count, zeros_like(param, accumulator_dtype))

    def update(grad: Any, state: EmaState, step: Any) -> Any:
        mean = running_mean(state.ema, grad, decay)
        return (step.debias(mean, decay) if debias else mean), EmaState(step.count, mean)

    return Rule(init, update)


def lookahead_point(params: Params, state: OptState, learning_rate: Any, momentum: Any) -> Params:
    """Where classical Nesterov momentum evaluates the gradient.

        theta - learning_rate * momentum * v

    state: any state that holds one momentum buffer v (`TraceState` or `DampenedTraceState`), as
    of `sgd(learning_rate, momentum)`. Taking the gradient at this point and passing it to that
    optimizer is Nesterov's method in its classical form.

    Raises: ValueError where the state holds no momentum buffer or several.
    """
    kinds = (TraceState, DampenedTraceState)
    found = nodes_of(state, lambda x: isinstance(x, kinds))
    of = "an optimizer with momentum, such as sgd(learning_rate, momentum)"
    buffer = the_only(found, "lookahead_point", "momentum buffer", of).trace
    return jax.tree.map(
        lambda p, v: (p - learning_rate * momentum * v).astype(p.dtype), params, buffer
    )
