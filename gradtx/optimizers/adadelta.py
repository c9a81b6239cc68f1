"""Adadelta."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.mask import MaskLike
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.adadelta import scale_by_adadelta
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["adadelta"]


@recipe
def adadelta(
    learning_rate: NonNegative | None = None,
    rho: Decay = 0.9,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegative = 0.0,
    weight_decay_mask: MaskLike = None,
) -> GradientTransformation:
    """Scale each gradient by the ratio of the RMS of past updates to the RMS of past gradients.

        g    = grad + weight_decay * param
        e_g <- rho * e_g + (1 - rho) * g^2
        d    = sqrt(e_x + eps) / sqrt(e_g + eps) * g
        e_x <- rho * e_x + (1 - rho) * d^2
        u    = -learning_rate * d

    The step has the units of the parameter and does not depend on the scale of the gradients, so
    there is no learning rate that must be tuned. Its length grows from about sqrt(eps / (1 - rho)),
    0.003 at the defaults.

    Args:
        learning_rate: a factor on every step; None means 1, as in the paper
        rho: the decay of both running means, which reach back about 1 / (1 - rho) steps. It also
            sets how fast the steps may grow
        eps: a number added under both square roots. It sets the length of the first steps: raise it
            if training is slow to start
        weight_decay: L2 regularisation: this fraction of each parameter is added to its gradient,
            before anything else. 0 switches it off

    State: e_g and e_x, 8 bytes a parameter.

    Example:
        >>> params = jnp.array([1.0, 1.0])
        >>> grads = jnp.array([0.1, 1000.0])
        >>> tx = gradtx.adadelta()
        >>> updates, state = tx.update(grads, tx.init(params), params)
        >>> print(np.asarray(updates).round(4))
        [-0.0032 -0.0032]

    See also: `rmsprop`, whose numerator is a learning rate; `adagrad`.

    References: Zeiler, 2012, https://arxiv.org/abs/1212.5701
    """
    return chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_adadelta(rho, eps),
        scale_by_learning_rate(1.0 if learning_rate is None else learning_rate),
    )
