"""MADGRAD."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Fraction, NonNegative
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.madgrad import scale_by_madgrad

__all__ = ["madgrad"]


@recipe
def madgrad(
    learning_rate: NonNegative,
    momentum: Fraction = 0.9,
    weight_decay: NonNegative = 0.0,
    eps: NonNegative = 1e-6,
) -> GradientTransformation:
    """Average all gradients since the beginning, divided by the cube root of their squares, with
    momentum.

        g       = grad + weight_decay * param
        weight  = (learning_rate + eps) sqrt(t)
        nu     <- nu + weight g^2       s <- s + weight g
        z       = x0 - s / (cbrt(nu) + eps)
        u       = (1 - momentum) (z - param)

    x0 are the params given to init; z = x0 where nu and eps are 0. This is dual averaging: the
    params follow a point z that is computed from all gradients so far, not from the last step, so
    nothing else should move them.

    Args:
        momentum: how slowly the params follow z: 0 jumps there, 0.9 goes a tenth of the way
        weight_decay: L2 regularisation: this fraction of each parameter is added to its gradient,
            before anything else. 0 switches it off. Take less than with SGD or Adam, or 0
        eps: a small number added to the cube root, and to the learning rate

    State: nu, s and x0, 12 bytes a parameter.

    Example:
        >>> params = jnp.array([5.0])
        >>> tx = gradtx.madgrad(0.1, momentum=0.5)
        >>> state = tx.init(params)
        >>> for _ in range(3):
        ...     params, state = gradtx.step(tx, jnp.array([2.0]), state, params)
        ...     print(np.asarray(params).round(3))
        [4.864]
        [4.688]
        [4.494]

    See also: `adagrad`, with a square root; `schedule_free_sgd`, which also averages.

    References: Defazio & Jelassi, 2021, https://arxiv.org/abs/2101.11075
    """
    return chain(add_decayed_weights(weight_decay), scale_by_madgrad(learning_rate, momentum, eps))
