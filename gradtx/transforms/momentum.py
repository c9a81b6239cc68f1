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
    """The momentum buffer v, shaped like the parameter; the count identifies the first step."""

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

    The step is -learning_rate * u. Gradients that agree add up, to 1 / (1 - decay) times one of
    them, and those that alternate cancel.

    Args:
        decay: the factor on the sum at each step: 0.9 adds up about the last ten gradients. Larger
            is faster along steady gradients and slower to turn; 1 never forgets.
        nesterov: look ahead: u is what v becomes if the next gradient equals this one.
        dampening: how much is taken off the weight of each new gradient, as in PyTorch: dampening
            equal to decay makes v a running mean.

    State: v, 4 bytes a parameter.

    Example:
        >>> tx = gradtx.scale_by_momentum(0.5)
        >>> state = tx.init(jnp.zeros(2))
        >>> for grads in (jnp.array([1.0, 1.0]), jnp.array([1.0, -1.0]), jnp.array([1.0, 1.0])):
        ...     updates, state = tx.update(grads, state)
        >>> print(updates)  # steady gradients, and gradients that alternate
        [1.75 0.75]

    See also: `sgd`, `trace`, `ema`, `lookahead_point`.

    References: Polyak, 1964; Sutskever et al., 2013,
    https://proceedings.mlr.press/v28/sutskever13.html
    """
    if is_static_zero(dampening):
        return _plain(decay, nesterov)
    return _dampened(decay, nesterov, dampening)


@per_leaf
def trace(decay: Fraction, nesterov: bool = False, accumulator_dtype: DType | None = None) -> Rule:
    """Accumulate a decaying sum of gradients: momentum, under Optax's name.

        v <- decay * v + g
        u  = v                                      u = g + decay * v with nesterov

    Args:
        decay: the factor on the sum at each step: 0.9 adds up about the last ten gradients. Larger
            is faster along steady gradients and slower to turn; 1 never forgets.
        nesterov: look ahead: u is what v becomes if the next gradient equals this one.
        accumulator_dtype: the dtype in which v is stored; None keeps float32 or wider.

    State: v, 4 bytes a parameter.

    Example:
        >>> tx = gradtx.trace(0.5)
        >>> state = tx.init(jnp.zeros(()))
        >>> for g in (1.0, 0.0, 0.0):  # what remains of a single gradient
        ...     u, state = tx.update(jnp.array(g), state)
        ...     print(u)
        1.0
        0.5
        0.25

    See also: `scale_by_momentum`, `ema`, `sgd`.
    """
    return _plain(decay, nesterov, accumulator_dtype)


@per_leaf
def ema(decay: Decay, debias: bool = True, accumulator_dtype: DType | None = None) -> Rule:
    """Replace the updates by their exponential moving average.

        m <- decay * m + (1 - decay) * g
        u  = m / (1 - decay^t)                      u = m with debias=False

    In contrast to `trace` the result is as large as a gradient, whatever the decay.

    Args:
        decay: the decay of the running mean, which reaches back about 1 / (1 - decay) steps. Larger
            is smoother and slower to turn; 0 leaves the updates as they are.
        accumulator_dtype: the dtype in which m is stored; None keeps float32 or wider.

    State: m, 4 bytes a parameter.

    Example:
        >>> tx = gradtx.ema(0.5)
        >>> updates, state = tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))
        >>> print(updates, state.ema)
        [4.] [2.]

    See also: `trace`, `scale_by_momentum`, `measure_with_ema`.
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
    """Compute the point at which classical Nesterov momentum evaluates the gradient.

        theta - learning_rate * momentum * v

    Evaluating the gradient at this point and passing it to an optimizer with momentum is Nesterov's
    method in its classical form.

    Args:
        params: the parameters theta, a pytree of arrays.
        state: any state with exactly one momentum buffer v (`TraceState` or `DampenedTraceState`),
            such as that of `sgd(learning_rate, momentum)`.
        learning_rate: the learning rate of that optimizer.
        momentum: its momentum, the decay of v.

    Raises: ValueError if the state holds no momentum buffer, or several.

    Example:
        >>> tx = gradtx.sgd(0.5, momentum=0.5)
        >>> params = jnp.array([1.0])
        >>> updates, state = tx.update(jnp.array([2.0]), tx.init(params), params)
        >>> params = gradtx.apply_updates(params, updates)  # 0.0, with v = 2
        >>> print(gradtx.lookahead_point(params, state, 0.5, 0.5))
        [-0.5]

    See also: `sgd`, `scale_by_momentum`.
    """
    kinds = (TraceState, DampenedTraceState)
    found = nodes_of(state, lambda x: isinstance(x, kinds))
    of = "an optimizer with momentum, such as sgd(learning_rate, momentum)"
    buffer = the_only(found, "lookahead_point", "momentum buffer", of).trace
    return jax.tree.map(
        lambda p, v: (p - learning_rate * momentum * v).astype(p.dtype), params, buffer
    )
