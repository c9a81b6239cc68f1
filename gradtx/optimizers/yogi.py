"""Yogi."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.yogi import scale_by_yogi

__all__ = ["yogi"]


@recipe
def yogi(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-3,
) -> GradientTransformation:
    """Take Adam's steps with a second moment that shrinks as slowly as it grows.

        mu <- b1 * mu + (1 - b1) * g
        nu <- nu - (1 - b2) * sign(nu - g^2) * g^2
        u   = -learning_rate * m / (sqrt(nu / (1 - b2^t)) + eps),       m = mu / (1 - b1^t)

    mu and nu start at 1e-6, and the bias correction is Adam's, as in the authors' implementation.
    Where gradients suddenly become small, Adam's nu falls by a constant factor a step and its steps
    soon become long; here nu falls by no more than (1 - b2) * g^2.

    Args:
        b2: nu changes by (1 - b2) g^2 in each step: a larger b2 changes it more slowly
        eps: a small number added to the denominator, larger than Adam's by default. It shortens
            steps where gradients are much smaller than 1e-3: lower it (1e-8) there

    State: mu and nu, 8 bytes a parameter.

    Example:
        >>> for make in (gradtx.adam, gradtx.yogi):
        ...     tx = make(1.0, b2=0.9)
        ...     state = tx.init(jnp.array([0.0]))
        ...     for grad in [10.0] + [1.0] * 9:
        ...         updates, state = tx.update(jnp.array([grad]), state)
        ...     print(np.asarray(state[0].nu).round(1))
        [4.5]
        [9.1]

    See also: `adam`, `amsgrad`.

    References: Zaheer et al., 2018,
    https://papers.nips.cc/paper/8186-adaptive-methods-for-nonconvex-optimization
    """
    return chain(scale_by_yogi(b1, b2, eps), scale_by_learning_rate(learning_rate))
