"""Scale a loss so that float16 gradients do not vanish."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx import tree
from gradtx.core.counts import increment, start
from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import cast, compute_dtype, number_dtype, scalar_dtype, widen_tree
from gradtx.core.finite import all_finite, idle_zeros
from gradtx.core.holding import usually
from gradtx.core.hyperparameters import Positive
from gradtx.core.inner import Inner
from gradtx.core.origin import nodes_of, the_only
from gradtx.core.place import Place
from gradtx.core.rule import Rule
from gradtx.core.skipping import tells_steps, where_stays
from gradtx.core.state import Adapted, OptState, Params, Updates
from gradtx.core.transformation import TransformationLike

__all__ = ["DynamicLossScaleState", "dynamic_loss_scale", "loss_scale", "scale_loss"]


@tells_steps(where_stays("skipped", inside="inner_state"))
class DynamicLossScaleState(NamedTuple):
    """Three scalars. scale: the factor for the next loss; growth_count: finite steps since it last
    changed; skipped: steps skipped since the start."""

    scale: Adapted
    growth_count: jax.Array
    skipped: jax.Array
    inner_state: OptState


@per_tree
def dynamic_loss_scale(
    inner: TransformationLike,
    init_scale: Positive = 2.0**15,
    growth_interval: Positive = 2000,
    growth_factor: Positive = 2.0,
    backoff_factor: Positive = 0.5,
    *,
    min_scale: Positive = 1.0,
    max_scale: Positive = 2.0**24,
) -> Rule:
    """Divide the gradients of a scaled loss by the scale, and keep the scale as large as possible.

        g finite:   u = inner(g / scale)
                    scale <- min(scale * growth_factor, max_scale)
                             once every growth_interval finite steps in a row
        otherwise:  u = 0, and the inner state stays
                    scale <- max(scale * backoff_factor, min_scale)

    For float16, in which small gradients become 0; bfloat16 does not need it. Pass the gradients
    of `scale_loss(loss, opt_state)`. They are divided in float32 or wider, so that what is too
    small for float16 is not lost again. Put it first: whatever clips or decays belongs in `inner`.
    Among the extra arguments of update, `grad` and what `grad_fn` returns are scaled gradients
    too; `value`, `value_fn` and `obj_fn` are those of the unscaled loss.

    Args:
        init_scale: the first scale. One that is too large costs a few skipped steps, each of which
            shrinks it; one that is too small takes growth_interval steps for each growth.
        growth_interval: how many finite steps in a row it takes until the scale grows.
        growth_factor: what the scale is multiplied by when it grows.
        backoff_factor: what the scale is multiplied by after a gradient that is not finite; below
            1.
        min_scale: the smallest scale; 1 leaves the loss as it is.
        max_scale: the largest scale.

    State: the scale (float32), two counts (`growth_count` and `skipped`), and that of `inner`.

    Example:
        >>> tx = gradtx.dynamic_loss_scale(gradtx.sgd(0.5), init_scale=8.0)
        >>> state = tx.init(jnp.zeros(1))
        >>> for scaled_grad in (8.0, jnp.inf):
        ...     updates, state = tx.update(jnp.array([scaled_grad]), state)
        ...     print(updates, state.scale, state.skipped)
        [-0.5] 8.0 0
        [0.] 4.0 1

    See also: `scale_loss`, `loss_scale`, `finite_guard`.

    References: Micikevicius et al., 2018, https://arxiv.org/abs/1710.03740
    """

    def init(inner: Inner) -> DynamicLossScaleState:
        scale = jnp.asarray(init_scale, scalar_dtype())
        return DynamicLossScaleState(scale, start(), start(), inner.init())

    def update(
        updates: Updates, needed: Updates, state: DynamicLossScaleState, inner: Inner
    ) -> tuple[Updates, DynamicLossScaleState]:
        def unscaled(grads: Updates) -> Updates:
            return jax.tree.map(lambda g: g / cast(state.scale, g.real.dtype), widen_tree(grads))

        def stored(params: Params) -> Params:
            return tree.cast_like(params, inner.params)

        def idle(inner_state: OptState) -> Updates:
            return idle_zeros(updates, state.skipped)

        grads = unscaled(needed)
        finite = all_finite(grads)
        run = partial(inner.seeing(grad=unscaled, searched=stored), grads)
        u, inner_state = usually(finite, run, idle, state.inner_state)
        count = increment(state.growth_count)
        grow = cast(count, number_dtype(growth_interval)) >= growth_interval
        larger = jnp.minimum(state.scale * growth_factor, max_scale)
        smaller = jnp.maximum(state.scale * backoff_factor, min_scale)
        return u, DynamicLossScaleState(
            scale=jnp.where(finite, jnp.where(grow, larger, state.scale), smaller),
            growth_count=jnp.where(finite & ~grow, count, 0),
            skipped=jnp.where(finite, state.skipped, increment(state.skipped)),
            inner_state=inner_state,
        )

    return Rule(init, update, place=inner.place & Place.LAST)


def scale_loss(loss: ArrayLike, opt_state: OptState) -> jax.Array:
    """Multiply a loss by the scale of `dynamic_loss_scale`, in float32 or wider.

        grads = jax.grad(lambda p: scale_loss(loss_fn(p), opt_state))(params)

    Differentiate this in place of the loss itself, and pass the gradients to `tx.update` as they
    are.

    Args:
        loss: the loss, a scalar of any floating dtype.
        opt_state: the optimizer's state; the scale may be anywhere in it.

    Raises: ValueError if the state does not hold exactly one `DynamicLossScaleState`.

    Example:
        >>> tx = gradtx.dynamic_loss_scale(gradtx.sgd(0.1), init_scale=1024.0)
        >>> gradtx.scale_loss(jnp.float16(2.0), tx.init(jnp.zeros(1)))
        Array(2048., dtype=float32)

    See also: `loss_scale`.
    """
    loss = jnp.asarray(loss)
    loss = cast(loss, compute_dtype(loss.dtype))
    return loss * cast(loss_scale(opt_state), loss.dtype)


def loss_scale(opt_state: OptState) -> jax.Array:
    """Read the scale for the next loss from the state of `dynamic_loss_scale`.

    Args:
        opt_state: the optimizer's state; the scale may be anywhere in it.

    Raises: ValueError if the state does not hold exactly one `DynamicLossScaleState`.

    Example:
        >>> tx = gradtx.chain(gradtx.dynamic_loss_scale(gradtx.adam(0.1), init_scale=1024.0))
        >>> gradtx.loss_scale(tx.init(jnp.zeros(1)))
        Array(1024., dtype=float32)

    See also: `scale_loss`.
    """
    found = nodes_of(opt_state, lambda x: isinstance(x, DynamicLossScaleState))
    of = "an optimizer made with dynamic_loss_scale(...)"
    scale: jax.Array = the_only(found, "loss_scale", "DynamicLossScaleState", of).scale
    return scale
