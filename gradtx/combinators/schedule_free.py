"""Schedule-free learning: averaging instead of a decaying learning rate."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from gradtx import tree
from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import cast, complex_dtype, real_dtype_of
from gradtx.core.hyperparameters import DType, NonNegative, PositiveFraction
from gradtx.core.inner import Inner
from gradtx.core.leaves import map_leaves
from gradtx.core.numerics import over_size
from gradtx.core.origin import nodes_of, the_only
from gradtx.core.rule import Rule
from gradtx.core.state import CountFromOne, OptState, Params, PastParams, Updates
from gradtx.core.transformation import TransformationLike

__all__ = ["ScheduleFreeState", "schedule_free", "schedule_free_eval_params"]


class ScheduleFreeState(NamedTuple):
    """b1: that of the last step; weight_sum: the sum of the average's weights; step_count: the
    number of the next step, from 1; max_lr: the largest learning rate so far (all scalars); the
    base optimizer's state; z: its iterate."""

    b1: jax.Array
    weight_sum: jax.Array
    step_count: CountFromOne
    max_lr: jax.Array
    base_optimizer_state: OptState
    z: PastParams


@per_tree
def schedule_free(
    base_optimizer: TransformationLike,
    learning_rate: NonNegative,
    b1: PositiveFraction = 0.9,
    weight_lr_power: NonNegative = 2.0,
    state_dtype: DType | None = None,
) -> Rule:
    """Average the iterates z of a base optimizer, with gradients taken between z and the average.

        z <- z + base_optimizer(g)
        w  = max(learning_rate so far)^weight_lr_power
        x <- (1 - c) x + c z            c = w / (sum of w so far), 0 while that is 0
        y <- b1 x + (1 - b1) z

    The average takes the place of a learning rate that decays, so the run need not know where it
    ends. The params are y. Evaluate with the average x, which `schedule_free_eval_params(state,
    params)` computes.

    Args:
        base_optimizer: the optimizer whose iterates are averaged, gradtx's or Optax's. It should
            have no momentum of its own and cannot hold a line search; it sees y as its params, and
            a `value` taken there.
        learning_rate: that of the base optimizer, as the same number or schedule; both are
            evaluated at the same step. Here it only weights the average.
        b1: how close to the average the gradients are taken, in (0, 1], since with 0 y would not
            determine x. It plays the part of momentum: larger is smoother.
        weight_lr_power: how much less the steps of a warmup count in the average; with 0 all count
            alike.
        state_dtype: the dtype of z; None means float32 or wider.

    State: z, 4 bytes a parameter, a count, three scalars and that of base_optimizer.

    Example:
        >>> params = jnp.array([1.0])
        >>> tx = gradtx.schedule_free(gradtx.sgd(0.5), learning_rate=0.5, b1=0.5)
        >>> state = tx.init(params)
        >>> for _ in range(2):
        ...     params, state = gradtx.step(tx, jnp.array([1.0]), state, params)
        >>> print(params, gradtx.schedule_free_eval_params(state, params))
        [0.125] [0.25]

    See also: `schedule_free_eval_params`, `schedule_free_adamw`, `schedule_free_sgd`.

    References: Defazio et al., 2024, https://arxiv.org/abs/2405.15682
    """

    def init(params: Params, base_optimizer: Inner) -> ScheduleFreeState:
        dtype = real_dtype_of(params)
        return ScheduleFreeState(
            b1=jnp.asarray(b1, dtype),
            weight_sum=jnp.zeros((), dtype),
            step_count=None,
            max_lr=jnp.zeros((), dtype),
            base_optimizer_state=base_optimizer.init(),
            z=map_leaves("schedule_free", lambda p: _copy(p, state_dtype), params),
        )

    def update(
        updates: Updates, state: ScheduleFreeState, params: Params, base_optimizer: Inner
    ) -> tuple[Updates, ScheduleFreeState]:
        max_lr = jnp.maximum(state.max_lr, learning_rate)
        weight = _power(max_lr, weight_lr_power)
        total = state.weight_sum + weight
        c = over_size(weight, total)
        inner = base_optimizer.without_search("schedule_free: base_optimizer")
        u, inner_state = inner(updates, state.base_optimizer_state)
        z = jax.tree.map(lambda z, u: _as_stored(z + u, state_dtype), state.z, u)
        # The step of z as it is stored, so that y follows the z that the next step will read.
        dz = tree.sub(z, state.z)
        # z - x, from the actual y and z: right even if something else moved the params.
        gap = jax.tree.map(lambda z, y: (z - y) / state.b1, state.z, params)

        def step(gap: jax.Array, dz: jax.Array) -> jax.Array:
            """y' - y from x' - x = c (z' - x) and z' - z, without cancellation."""
            return b1 * c * (gap + dz) + (1 - b1) * dz - (b1 - state.b1) * gap

        return jax.tree.map(step, gap, dz), state._replace(
            b1=jnp.asarray(b1, state.b1.dtype),
            weight_sum=total,
            max_lr=max_lr,
            base_optimizer_state=inner_state,
            z=z,
        )

    return Rule(init, update)


def schedule_free_eval_params(state: OptState, params: Params) -> Params:
    """Compute the average x, with which to evaluate a schedule-free model, in the dtypes of params.

        x = (y - (1 - b1) z) / b1

    Args:
        state: the optimizer's state, with one `ScheduleFreeState` anywhere in it.
        params: y, the parameters as training left them.

    Raises: ValueError if the state holds none, or several.

    Example:
        >>> params = jnp.array([1.0])
        >>> tx = gradtx.schedule_free(gradtx.sgd(0.5), learning_rate=0.5, b1=0.5)
        >>> state = tx.init(params)
        >>> for _ in range(2):
        ...     params, state = gradtx.step(tx, jnp.array([1.0]), state, params)
        >>> print(params, gradtx.schedule_free_eval_params(state, params))
        [0.125] [0.25]

    See also: `schedule_free`.
    """
    found = nodes_of(state, lambda node: hasattr(node, "b1") and hasattr(node, "z"))
    of = "an optimizer made with schedule_free(...)"
    mine = the_only(found, "schedule_free_eval_params", "ScheduleFreeState", of)
    z, b1 = mine.z, mine.b1

    def evaluate(y: jax.Array, z: jax.Array) -> jax.Array:
        dtype = jnp.promote_types(y.dtype, z.dtype)
        y, z = cast(y, dtype), cast(z, dtype)
        return (y - (1 - b1) * z) / b1

    return tree.cast_like(jax.tree.map(evaluate, params, z), params)


def _copy(param: jax.Array, dtype: DTypeLike | None) -> jax.Array:
    if dtype is not None and jnp.iscomplexobj(param):
        dtype = complex_dtype(dtype)
    return jnp.array(param, dtype, copy=True)


def _power(x: jax.Array, power: ArrayLike) -> jax.Array:
    """x^power, x >= 0, with a finite derivative at x = 0."""
    positive = x > 0
    at_zero = jnp.where(jnp.asarray(power) == 0, jnp.ones_like(x), jnp.zeros_like(x))
    return jnp.where(positive, jnp.where(positive, x, 1) ** power, at_zero)


def _as_stored(x: jax.Array, dtype: DTypeLike | None) -> jax.Array:
    """x rounded as a state in `dtype` will round it."""
    if dtype is None or jnp.iscomplexobj(x):
        return x
    info = jnp.finfo(dtype)  # type: ignore[no-untyped-call]
    # Not a cast there and back, which XLA may remove.
    return lax.reduce_precision(x, info.nexp, info.nmant)
