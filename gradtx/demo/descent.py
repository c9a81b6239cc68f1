"""Follow an optimizer down a function of two variables, as one compiled scan."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

import gradtx
from gradtx import GradientTransformation, OptState
from gradtx.demo import naming
from gradtx.demo.errors import CommandError
from gradtx.demo.functions import Function
from gradtx.demo.optimizers import Family, family_of


class Walker(NamedTuple):
    """An optimizer whose path is drawn."""

    name: str
    family: Family
    build: Callable[[float, float], GradientTransformation]  # of learning rate, momentum decay
    # Its learning rate, or "written" in the construction, or None: what suits the function.
    rate: float | Literal["written"] | None = None


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

# Tried where nobody said which suits the function.
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


def walkers(texts: Sequence[str] | None) -> list[Walker]:
    """The walkers written so, or all: ``Adam``, ``adam:0.1``, any public name, a construction."""
    if texts is None:
        return list(WALKERS)
    if not texts:
        raise CommandError(f"no optimizer named; known: {', '.join(w.name for w in WALKERS)}")
    return [_walker(text) for text in dict.fromkeys(texts)]


def _walker(text: str) -> Walker:
    name, rate = naming.name_and_rate(text)
    own = {walker.name.lower(): walker for walker in WALKERS}
    if name.lower() in own:
        return own[name.lower()]._replace(rate=rate)
    written = naming.construction(text, "landscape", own)
    tx = naming.construct(written, GradientTransformation)
    if naming.is_construction(text) or rate is not None or "learning_rate" not in tx.arguments:
        return Walker(text, family_of(tx), lambda r, d: tx, rate="written")
    return Walker(text, family_of(tx), lambda r, d: tx.replace(learning_rate=r))


@dataclass(frozen=True)
class Descent:
    """The path of one optimizer down one function."""

    walker: Walker
    rate: float | None  # None where it has none, or where it is in the name
    points: np.ndarray  # [steps + 1, 2], the start first
    nus: np.ndarray | None  # [steps, 2]: the running mean of the squared gradient, if any


def descend(function: Function, walker: Walker, steps: int) -> Descent:
    """Follow one optimizer down one function."""
    start = jnp.asarray(function.start, jnp.float32)

    def path(rate: Any) -> tuple[Array, Array | None]:
        return _path(function, walker.build(rate, function.decay), start, steps)

    rate = walker.rate if walker.rate is not None else function.rates.get(walker.name)
    if rate is None:
        ends = jax.jit(jax.vmap(lambda r: function.value(path(r)[0][-1])))(jnp.asarray(RATES))
        rate = RATES[int(jnp.nanargmin(jnp.where(jnp.isfinite(ends), ends, jnp.inf)))]
    written = rate == "written"
    points, nus = jax.jit(lambda: path(rate))()
    return Descent(
        walker=walker,
        rate=None if written else float(rate),
        points=np.concatenate([start[None], points]),
        nus=None if nus is None else np.asarray(nus),
    )


def _path(
    function: Function, tx: GradientTransformation, start: Array, steps: int
) -> tuple[Array, Array | None]:
    """The points after every step, and the second moments."""

    def step(
        carry: tuple[Array, OptState], _: None
    ) -> tuple[tuple[Array, OptState], tuple[Array, Array | None]]:
        point, state = carry
        value, grad = jax.value_and_grad(function.value)(point)
        extra = {"value": value, "grad": grad, "value_fn": function.value, "obj_fn": function.value}
        updates, state = tx.update(grad, state, point, **extra)
        point = gradtx.apply_updates(point, updates)
        return (point, state), (point, second_moment(state))

    return lax.scan(step, (start, tx.init(start)), length=steps)[1]


def second_moment(state: OptState) -> Array | None:
    """The array in the field ``nu`` of an optimizer's state, or None."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if any(getattr(key, "name", None) == "nu" for key in path):
            return leaf
    return None


def descents(function: Function, steps: int, chosen: Sequence[Walker] = WALKERS) -> list[Descent]:
    """The paths of optimizers over a function."""
    found = []
    for walker in chosen:
        try:
            found.append(descend(function, walker, steps))
        except (TypeError, ValueError) as error:  # such as of one that is for matrices
            reason = " ".join(str(error).split())
            raise CommandError(f"{walker.name} on {function.name}: {reason}") from None
    return found
