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
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["add_decayed_weights"]


def decayed(
    update: Array, param: Array, weight_decay: Scalar, cautious: bool, sign: int = 1
) -> Array:
    """update + sign * weight_decay * param, where sign * update * param >= 0 if cautious"""
    decay = times(sign * weight_decay, param)
    if cautious:
        agree = sign * jnp.real(update * jnp.conj(param)) >= 0
        decay = jnp.where(agree, decay, jnp.zeros_like(decay))
    return lax.add(update, decay)


@per_leaf
def decay_weights(
    weight_decay: NonNegativeFactor, *, cautious: bool = False, flip_sign: bool = False
) -> Callable[..., Array]:
    """u = g + weight_decay * param, where g * param >= 0 if cautious; with flip_sign the updates
    point downhill, and so does the decay"""
    if is_zero(weight_decay):
        return lambda grad, param: grad  # the compiled program does not read them
    sign = -1 if flip_sign else 1
    return lambda grad, param: decayed(grad, param, weight_decay, cautious, sign)


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
            never works against the gradient. It is meant for decoupled decay, after the moments,
            where the learning rate flips the sign later.

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


def decoupled_decay(
    learning_rate: NonNegative,
    weight_decay: NonNegative,
    mask: MaskLike | None,
    independent: bool,
    cautious: bool = False,
) -> tuple[GradientTransformation, GradientTransformation]:
    """The last links of an optimizer: the learning rate and decoupled weight decay.

    u = -learning_rate * (g + weight_decay * param)
    u = -learning_rate * g - weight_decay * param               independent
    """
    rate = scale_by_learning_rate(learning_rate)
    if not independent:
        return add_decayed_weights(weight_decay, mask, cautious=cautious), rate
    decay = decay_weights(weight_decay, cautious=cautious, flip_sign=True)
    return rate, decay if mask is None else masked(decay, mask)
