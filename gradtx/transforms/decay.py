"""Weight decay."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax

from gradtx.combinators.masked import masked
from gradtx.core.decorators import per_leaf, recipe
from gradtx.core.dtypes import Scalar
from gradtx.core.hyperparameters import NonNegative, NonNegativeFactor
from gradtx.core.mask import MaskLike
from gradtx.core.numerics import is_zero, times
from gradtx.core.transformation import GradientTransformation

__all__ = ["add_decayed_weights"]


def decayed(update: Array, param: Array, weight_decay: Scalar, cautious: bool) -> Array:
    """update + weight_decay * param, where update * param >= 0 if cautious"""
    decay = times(weight_decay, param)
    if cautious:
        agree = jnp.real(update * jnp.conj(param)) >= 0
        decay = jnp.where(agree, decay, jnp.zeros_like(decay))
    return lax.add(update, decay)


@per_leaf
def decay_weights(
    weight_decay: NonNegativeFactor, *, cautious: bool = False
) -> Callable[..., Array]:
    """u = g + weight_decay * param, where g * param >= 0 if cautious"""
    if is_zero(weight_decay):
        return lambda grad, param: grad  # without reading the parameters
    return lambda grad, param: decayed(grad, param, weight_decay, cautious)


@recipe
def add_decayed_weights(
    weight_decay: NonNegative = 0.0, mask: MaskLike | None = None, *, cautious: bool = False
) -> GradientTransformation:
    """Add a multiple of the parameters to the updates.

        u = g + weight_decay * param                (where the mask selects)
        u = g + weight_decay * param where g * param >= 0, else g           cautious=True

    Placed before the moments of an optimizer this is L2 regularisation; between the moments and the
    learning rate it is decoupled decay.

    Args:
        weight_decay: how much of each parameter is added. Larger pulls parameters harder towards 0,
            0 leaves the updates alone; the learning rate that follows multiplies it too.
        mask: the parameters that decay: a tree of booleans (or a prefix of one), a function from
            the params to one, or a path pattern such as "kernel" or ~matching("bias|scale"); None
            means all.
        cautious: let an element decay only where the update, too, brings it nearer to 0: decay then
            never works against the gradient. It is for decoupled decay, behind the moments, where
            the learning rate turns the sign later.

    State: none.

    Example:
        >>> tx = gradtx.add_decayed_weights(0.1, mask="kernel")
        >>> params = {"kernel": jnp.array([10.0]), "bias": jnp.array([10.0])}
        >>> grads = {"kernel": jnp.array([3.0]), "bias": jnp.array([3.0])}
        >>> updates, _ = tx.update(grads, tx.init(params), params)
        >>> print(updates["kernel"], updates["bias"])
        [4.] [3.]

    See also: `adamw`, `masked`, `matching`.

    References: Loshchilov & Hutter, 2019, https://arxiv.org/abs/1711.05101; cautious: Chen et al.,
    2025, https://arxiv.org/abs/2510.12402
    """
    decay = decay_weights(weight_decay, cautious=cautious)
    return decay if mask is None else masked(decay, mask)
