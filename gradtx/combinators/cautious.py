"""Drop the elements of an update that disagree with the gradient."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import cast
from gradtx.core.hyperparameters import NonNegative
from gradtx.core.inner import Inner
from gradtx.core.rule import Rule
from gradtx.core.state import OptState, Updates
from gradtx.core.transformation import TransformationLike

__all__ = ["CautiousState", "cautious"]


class CautiousState(NamedTuple):
    """The state of the inner transformation."""

    inner_state: OptState


@per_tree
def cautious(
    inner: TransformationLike,
    floor: NonNegative = 1e-3,
    *,
    normalizer: Literal["clamped", "added", "none"] = "clamped",
    descends: bool = True,
) -> Rule:
    """Keep only the elements of an update that point downhill, scaled up to make up for the rest.

        m = [u g < 0]        u <- u m / max(mean(m), floor)        u = inner(g), leaf by leaf

    An optimizer with momentum moves some parameters against the current gradient, and this leaves
    them where they are. With descends=False it takes updates that still point uphill. This keeps
    decoupled weight decay, which need not agree with the gradient, out of the mask:

        chain(cautious(scale_by_adam(), descends=False), add_decayed_weights(0.1), scale(-1e-3))

    Args:
        floor: the smallest share of kept elements that is made up for: updates grow by at most 1 /
            floor. A larger one bounds the steps of leaves in which nearly nothing agrees.
        normalizer: "clamped" is the formula above, from the authors' code; "added" is that of the
            paper's Algorithm 1, u m / (mean(m) + floor); "none" is u m.
        descends: whether the updates of `inner` point downhill, as those of a whole optimizer do.
            False is for one whose updates still point uphill, such as `scale_by_adam`: m = [u g >
            0].

    State: that of `inner`.

    Raises: ValueError for another normalizer.

    Example:
        >>> params = jnp.zeros(2)
        >>> tx = gradtx.cautious(gradtx.sgd(1.0, momentum=0.9))
        >>> state = tx.init(params)
        >>> for grad in ([1.0, 1.0], [-0.5, 1.0]):
        ...     updates, state = tx.update(jnp.array(grad), state, params)
        ...     print(updates.round(2))
        [-1. -1.]
        [ 0.  -3.8]

    References: Liang et al., 2024, https://arxiv.org/abs/2411.16085
    """

    def init(inner: Inner) -> CautiousState:
        return CautiousState(inner.init())

    def keep(u: jax.Array, grad: jax.Array) -> jax.Array:
        product = jnp.real(u * jnp.conj(grad))
        agrees = product < 0 if descends else product > 0
        kept = jnp.where(agrees, u, jnp.zeros_like(u))
        if normalizer == "none" or u.size == 0:
            return kept
        fraction = jnp.mean(agrees, dtype=u.real.dtype)
        bound = cast(floor, fraction.dtype)
        divisor = jnp.maximum(fraction, bound) if normalizer == "clamped" else fraction + bound
        # Where nothing is kept, avoid 0 / 0.
        divisor = jnp.where(divisor > 0, divisor, jnp.ones_like(divisor))
        return kept / cast(divisor, u.dtype)

    def update(
        updates: Updates, state: CautiousState, inner: Inner
    ) -> tuple[Updates, CautiousState]:
        u, inner_state = inner(updates, state.inner_state)
        return jax.tree.map(keep, u, updates), CautiousState(inner_state)

    return Rule(init, update)
