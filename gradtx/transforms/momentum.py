"""Momentum: sums and running means of gradients."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradtx.core.decorators import per_leaf
from gradtx.core.hyperparameters import Decay, DType, Fraction, FractionOrOff, is_static_zero
from gradtx.core.numerics import running_mean, zeros_like
from gradtx.core.origin import nodes_of, the_only
from gradtx.core.rule import Rule
from gradtx.core.state import Count, OptState, Params, Updates
from gradtx.core.step import Step

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
    """The momentum buffer v, shaped like the parameter."""

    trace: Updates


class DampenedTraceState(NamedTuple):
    """The momentum buffer v, shaped like the parameter; the count tells the first step."""

    count: Count
    trace: Updates


class EmaState(NamedTuple):
    """The running mean of the updates, shaped like the parameter."""

    count: Count
    ema: Updates


def _direction(grad: Array, v: Array, decay: float | Array, nesterov: bool) -> Array:
    """v, or g + decay * v with nesterov"""
    return grad + decay * v if nesterov else v


def _plain(decay: float | Array, nesterov: bool, dtype: DTypeLike | None = None) -> Rule:
    def init(param: Array) -> TraceState:
        return TraceState(zeros_like(param, dtype))

    def update(grad: Array, state: TraceState) -> tuple[Array, TraceState]:
        v = grad + decay * state.trace
        return _direction(grad, v, decay, nesterov), TraceState(v)

    return Rule(init, update)


def _dampened(decay: float | Array, nesterov: bool, dampening: float | Array) -> Rule:
    def init(param: Array) -> DampenedTraceState:
        return DampenedTraceState(count=None, trace=zeros_like(param))

    def update(
        grad: Array, state: DampenedTraceState, step: Step
    ) -> tuple[Array, DampenedTraceState]:
        v = decay * state.trace + (1 - dampening) * grad
        v = jnp.where(step.count == 1, grad, v)
        return _direction(grad, v, decay, nesterov), state._replace(trace=v)

    return Rule(init, update)


@per_leaf
def scale_by_momentum(
    decay: Fraction, *, nesterov: bool = False, dampening: FractionOrOff = 0.0
) -> Rule:
    """Accumulate a decaying sum of gradients: heavy-ball momentum.

        v <- decay * v + (1 - dampening) * g        (the first v is g)
        u  = v                                      u = g + decay * v with nesterov

    The step is -learning_rate * u. Polyak, 1964; Sutskever et al., 2013,
    https://proceedings.mlr.press/v28/sutskever13.html; dampening as in PyTorch.
    """
    if is_static_zero(dampening):
        return _plain(decay, nesterov)
    return _dampened(decay, nesterov, dampening)


@per_leaf
def trace(decay: Fraction, nesterov: bool = False, accumulator_dtype: DType | None = None) -> Rule:
    """Accumulate a decaying sum of gradients: momentum, under Optax's name.

        v <- decay * v + g
        u  = v                                      u = g + decay * v with nesterov

    accumulator_dtype: the dtype in which v is stored; float32 or wider by default.
    """
    return _plain(decay, nesterov, accumulator_dtype)


@per_leaf
def ema(decay: Decay, debias: bool = True, accumulator_dtype: DType | None = None) -> Rule:
    """Replace the updates by their exponential moving average.

        m <- decay * m + (1 - decay) * g
        u  = m / (1 - decay^t)                      u = m with debias=False

    accumulator_dtype: the dtype in which m is stored; float32 or wider by default.
    """

    def init(param: Array) -> EmaState:
        return EmaState(count=None, ema=zeros_like(param, accumulator_dtype))

    def update(grad: Array, state: EmaState, step: Step) -> tuple[Array, EmaState]:
        mean = running_mean(state.ema, grad, decay)
        return (step.debias(mean, decay) if debias else mean), state._replace(ema=mean)

    return Rule(init, update)


def lookahead_point(
    params: Params, state: OptState, learning_rate: float | Array, momentum: float | Array
) -> Params:
    """The point at which classical Nesterov momentum evaluates the gradient.

        theta - learning_rate * momentum * v

    state: any state with exactly one momentum buffer v (`TraceState` or `DampenedTraceState`), such
    as that of `sgd(learning_rate, momentum)`. Evaluating the gradient at this point and passing it
    to that optimizer is Nesterov's method in its classical form.

    Raises: ValueError if the state holds no momentum buffer, or several.
    """
    kinds = (TraceState, DampenedTraceState)
    found = nodes_of(state, lambda x: isinstance(x, kinds))
    of = "an optimizer with momentum, such as sgd(learning_rate, momentum)"
    buffer = the_only(found, "lookahead_point", "momentum buffer", of).trace
    return jax.tree.map(
        lambda p, v: (p - learning_rate * momentum * v).astype(p.dtype), params, buffer
    )
