"""Adamax, and with decoupled weight decay AdamaxW."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.mask import MaskLike
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.adamax import scale_by_adamax
from gradtx.transforms.decay import decoupled_decay
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["adamax", "adamaxw"]


@recipe
def adamax(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
) -> GradientTransformation:
    """Divide the running mean of the gradient by a decaying maximum of its magnitude.

        mu <- b1 * mu + (1 - b1) * g
        nu <- max(b2 * nu, |g| + eps)
        u   = -learning_rate * mu / (1 - b1^t) / nu

    This is Adam in the infinity norm: its divisor follows the largest gradient of the last 1 / (1 -
    b2) steps or so rather than their root mean square, and needs no bias correction.

    Args:
        b2: the decay of the maximum: a peak is forgotten after about 1 / (1 - b2) steps. Lower it
            if one large gradient shortens the steps for too long
        eps: a small number added to |g|, which keeps the divisor away from 0

    State: mu and nu, 8 bytes a parameter.

    Example:
        >>> tx = gradtx.adamax(0.1, b1=0.0, b2=0.5)
        >>> state = tx.init(jnp.array([0.0]))
        >>> for grad in (8.0, 1.0, 1.0, 1.0):
        ...     updates, state = tx.update(jnp.array([grad]), state)
        ...     print(np.asarray(updates).round(3), np.asarray(state[0].nu).round(3))
        [-0.1] [8.]
        [-0.025] [4.]
        [-0.05] [2.]
        [-0.1] [1.]

    See also: `adamaxw`, with weight decay; `adam`.

    References: Kingma & Ba, 2015, section 7.1, https://arxiv.org/abs/1412.6980
    """
    return chain(scale_by_adamax(b1, b2, eps), scale_by_learning_rate(learning_rate))


@recipe
def adamaxw(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 1e-4,
    mask: MaskLike = None,
    *,
    independent_decay: bool = False,
    cautious_weight_decay: bool = False,
) -> GradientTransformation:
    """Take Adamax's steps, and pull the parameters towards 0 independently of their gradients.

        mu <- b1 * mu + (1 - b1) * g
        nu <- max(b2 * nu, |g| + eps)
        u   = -learning_rate * (mu / (1 - b1^t) / nu + weight_decay * param)

    Args:
        b2: the decay of the maximum: a peak is forgotten after about 1 / (1 - b2) steps. Lower it
            if one large gradient shortens the steps for too long
        eps: a small number added to |g|, which keeps the divisor away from 0
        mask: the parameters that decay: a tree of booleans (or a prefix of one), a function from
            the params to one, or a path pattern such as "kernel" or ~matching("bias|scale"); None
            means all

    State: mu and nu, 8 bytes a parameter.

    Example:
        >>> params = {"kernel": jnp.array([20.0]), "bias": jnp.array([20.0])}
        >>> grads = {"kernel": jnp.array([0.3]), "bias": jnp.array([0.3])}
        >>> tx = gradtx.adamaxw(0.1, weight_decay=0.01, mask="kernel")
        >>> updates, state = tx.update(grads, tx.init(params), params)
        >>> print(np.asarray(updates["kernel"]).round(4), np.asarray(updates["bias"]).round(4))
        [-0.12] [-0.1]

    See also: `adamax`, without decay; `adamw`.

    References: Kingma & Ba, 2015, https://arxiv.org/abs/1412.6980; Loshchilov & Hutter, 2019,
    https://arxiv.org/abs/1711.05101
    """
    return chain(
        scale_by_adamax(b1, b2, eps),
        *decoupled_decay(
            learning_rate, weight_decay, mask, independent_decay, cautious_weight_decay
        ),
    )
