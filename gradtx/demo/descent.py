"""Follow an optimizer down a function of two variables, as one compiled scan."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

import gradtx
from gradtx import GradientTransformation, OptState
from gradtx.demo.functions import Function
from gradtx.demo.optimizers import Family


class Walker(NamedTuple):
    """An optimizer whose path is drawn."""

    name: str
    family: Family
    build: Callable[[float, float], GradientTransformation]  # of learning rate, momentum decay


def _momentum(rate: float, decay: float, nesterov: bool = False) -> GradientTransformation:
    running_sum = gradtx.scale_by_momentum(decay, nesterov=nesterov)
    return gradtx.chain(running_sum, gradtx.scale_by_learning_rate(rate))


WALKERS = (
    Walker("SGD", Family.GRADIENT, lambda r, d: gradtx.sgd(r)),
    Walker("momentum", Family.GRADIENT, lambda r, d: _momentum(r, d)),
    Walker("Nesterov", Family.GRADIENT, lambda r, d: _momentum(r, d, nesterov=True)),
    Walker("AdaGrad", Family.SQUARE, lambda r, d: gradtx.adagrad(r)),
    Walker("RMSProp", Family.SQUARE, lambda r, d: gradtx.rmsprop(r)),
    Walker("Adam", Family.MOMENTS, lambda r, d: gradtx.adam(r)),
    Walker("AMSGrad", Family.MOMENTS, lambda r, d: gradtx.amsgrad(r)),
    Walker("AdamW", Family.MOMENTS, lambda r, d: gradtx.adamw(r, weight_decay=0.1)),
)


@dataclass(frozen=True)
class Descent:
    """The path of one optimizer down one function."""

    walker: Walker
    points: np.ndarray  # [steps + 1, 2], the start first
    nus: np.ndarray | None  # [steps, 2]: the running mean of the squared gradient, if any


def descend(function: Function, walker: Walker, steps: int) -> Descent:
    """Follow one optimizer down one function."""
    tx = walker.build(function.rates[walker.name], function.decay)

    def step(
        carry: tuple[Array, OptState], _: None
    ) -> tuple[tuple[Array, OptState], tuple[Array, Array | None]]:
        point, state = carry
        updates, state = tx.update(jax.grad(function.value)(point), state, point)
        point = gradtx.apply_updates(point, updates)
        return (point, state), (point, second_moment(state))

    @jax.jit
    def run(start: Array) -> tuple[Array, Array | None]:
        return lax.scan(step, (start, tx.init(start)), length=steps)[1]

    start = jnp.asarray(function.start, jnp.float32)
    points, nus = run(start)
    return Descent(
        walker=walker,
        points=np.concatenate([start[None], points]),
        nus=None if nus is None else np.asarray(nus),
    )


def second_moment(state: OptState) -> Array | None:
    """The array in the field ``nu`` of an optimizer's state, or None."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if any(getattr(key, "name", None) == "nu" for key in path):
            return leaf
    return None


def descents(function: Function, steps: int) -> list[Descent]:
    """The paths of all optimizers over a function."""
    return [descend(function, walker, steps) for walker in WALKERS]
