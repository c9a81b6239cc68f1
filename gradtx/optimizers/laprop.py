"""LaProp."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.mask import MaskLike
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.laprop import scale_by_laprop
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["laprop"]


@recipe
def laprop(
    learning_rate: NonNegative = 4e-4,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-15,
    weight_decay: NonNegative = 0.0,
    mask: MaskLike = None,
    *,
    amsgrad: bool = False,
    cautious_weight_decay: bool = False,
) -> GradientTransformation:
    """Divide gradients by their running root mean square first, and average them afterwards.

        nu <- b2 * nu + (1 - b2) * g^2
        mu <- b1 * mu + (1 - b1) * g / (sqrt(n) + eps),     n = nu / (1 - b2^t)
        u   = -learning_rate * (mu / (1 - b1^t) + weight_decay * param)

    With amsgrad the largest nu so far takes the place of nu in n.

    This is Adam in the other order. It stays stable for any pair of b1 and b2, where Adam needs b1
    below sqrt(b2): take it where gradients are noisy or the second moment should forget quickly.
    The weight decay is multiplied by the learning rate, as in `adamw`; the authors' code omits the
    rate.

    Args:
        others: as in `scale_by_laprop`

    State: mu and nu, 8 bytes a parameter; with amsgrad nu_max too, 12.

    Example:
        >>> params, grads = jnp.array([1.0, -2.0]), jnp.array([0.001, 500.0])
        >>> tx = gradtx.laprop(0.1)
        >>> updates, state = tx.update(grads, tx.init(params), params)
        >>> print(np.asarray(updates).round(4))
        [-0.1 -0.1]

    See also: `adamw`; `adopt`, which divides by the second moment of earlier gradients only.

    References: Ziyin et al., 2020, https://arxiv.org/abs/2002.04839
    """
    return chain(
        scale_by_laprop(b1, b2, eps, amsgrad=amsgrad),
        add_decayed_weights(weight_decay, mask, cautious=cautious_weight_decay),
        scale_by_learning_rate(learning_rate),
    )
