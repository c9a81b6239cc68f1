"""Schedule-free learning: averaging in place of a decaying learning rate."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradtx import tree
from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import cast, complex_dtype, real_dtype_of
from gradtx.core.inner import Inner
from gradtx.core.kinds import DType, NonNegative, PositiveFraction
from gradtx.core.leaves import map_leaves
from gradtx.core.numerics import over_size
from gradtx.core.origin import nodes_of, the_only
from gradtx.core.rule import Rule
from gradtx.core.state import CountFromOne, OptState, Params, PastParams
from gradtx.core.transformation import GradientTransformation

__all__ = ["ScheduleFreeState", "schedule_free", "schedule_free_eval_params"]


class ScheduleFreeState(NamedTuple):
    """b1 of the last step; the sum of the weights of the average; the number of the next step,
    from 1; the largest learning rate so far; the base optimizer's state; and its iterate z."""

    b1: Any
    weight_sum: Any
    step_count: CountFromOne
    max_lr: Any
    base_optimizer_state: OptState
    z: PastParams


@per_tree
def schedule_free(
    base_optimizer: GradientTransformation,
    learning_rate: NonNegative,
    b1: PositiveFraction = 0.9,
    weight_lr_power: NonNegative = 2.0,
    state_dtype: DType | None = None,
) -> Any:
    """Average the iterates z of a base optimizer, and take the gradient between z and the average.

        z <- z + base_optimizer(g)
        w  = max(learning_rate so far)^weight_lr_power
        x <- (1 - c) x + c z            c = w / (sum of w so far), 0 while that is 0
        y <- b1 x + (1 - b1) z

    The params are y; the average x, with which to evaluate, is `schedule_free_eval_params(state,
    params)`. learning_rate is that of the base optimizer, as a number or as the same schedule, and
    both are evaluated at the same step. The base optimizer should have no momentum of its own.
    state_dtype: in which z is kept; float32 or wider without it. b1 is in (0, 1]: with 0, y would
    not tell where x is. The base optimizer sees y as its params, and a `value` there; it cannot
    hold a line search. Defazio et al., 2024, https://arxiv.org/abs/2405.15682
    """

    def init(params: Any, step: Any, base_optimizer: Inner) -> ScheduleFreeState:
        dtype = real_dtype_of(params)
        zero = jnp.zeros((), dtype)
        return ScheduleFreeState(
            b1=jnp.asarray(b1, dtype),
            weight_sum=zero,
            step_count=step.count,
            max_lr=jnp.zeros((), dtype),
            base_optimizer_state=base_optimizer.init(),
            z=map_leaves("schedule_free", lambda p: _copy(p, state_dtype), params),
        )

    def update(updates: Any, state: ScheduleFreeState, params: Any, base_optimizer: Inner) -> Any:
        max_lr = jnp.maximum(state.max_lr, learning_rate)
        weight = _power(max_lr, weight_lr_power)
        total = state.weight_sum + weight
        c = over_size(weight, total)
        inner = base_optimizer.without_search("schedule_free: base_optimizer")
        u, inner_state = inner(updates, state.base_optimizer_state)
        z = jax.tree.map(lambda z, u: _as_stored(z + u, state_dtype), state.z, u)
        # The step of z as it is stored, so that y is made of the z that is there next time.
        dz = tree.sub(z, state.z)
        # z - x, from y and z as they are: right also where something else moved the params.
        gap = jax.tree.map(lambda z, y: (z - y) / state.b1, state.z, params)

        def step(gap: Any, dz: Any) -> Any:
            """y' - y from x' - x = c (z' - x) and z' - z, without subtracting the params."""
            return b1 * c * (gap + dz) + (1 - b1) * dz - (b1 - state.b1) * gap

        return jax.tree.map(step, gap, dz), ScheduleFreeState(
            b1=jnp.asarray(b1, state.b1.dtype),
            weight_sum=total,
            step_count=state.step_count,
            max_lr=max_lr,
            base_optimizer_state=inner_state,
            z=z,
        )

    return Rule(init, update)


def schedule_free_eval_params(state: OptState, params: Params) -> Params:
    """The average x, with which a schedule-free model is evaluated, in the dtypes of params.

        x = (y - (1 - b1) z) / b1

    state: any state that holds one ScheduleFreeState; params: y, as training left them. Raises:
    ValueError where the state holds none or several.
    """
    found = nodes_of(state, lambda node: hasattr(node, "b1") and hasattr(node, "z"))
    of = "an optimizer made with schedule_free(...)"
    mine = the_only(found, "schedule_free_eval_params", "ScheduleFreeState", of)
    z, b1 = mine.z, mine.b1

    def evaluate(y: Any, z: Any) -> Any:
        dtype = jnp.promote_types(y.dtype, z.dtype)
        y, z = cast(y, dtype), cast(z, dtype)
        return (y - (1 - b1) * z) / b1

    return tree.cast_like(jax.tree.map(evaluate, params, z), params)


def _copy(param: Any, dtype: Any) -> Any:
    if dtype is not None and jnp.iscomplexobj(param):
        dtype = complex_dtype(dtype)
    return jnp.array(param, dtype, copy=True)


def _power(x: Any, power: Any) -> Any:
    """x^power with a derivative at x = 0."""
    positive = x > 0
    at_zero = jnp.where(jnp.asarray(power) == 0, jnp.ones_like(x), jnp.zeros_like(x))
    return jnp.where(positive, jnp.where(positive, x, 1) ** power, at_zero)


def _as_stored(x: Any, dtype: Any) -> Any:
    """x as it will be read from a state in `dtype`."""
    if dtype is None or jnp.iscomplexobj(x):
        return x
    info = jnp.finfo(dtype)  # type: ignore[no-untyped-call]
    # Not a cast there and back, which XLA may leave out.
    return lax.reduce_precision(x, info.nexp, info.nmant)
