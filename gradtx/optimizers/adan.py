"""Adan."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.mask import MaskLike
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.adan import scale_by_adan
from gradtx.transforms.decay import decoupled_decay

__all__ = ["adan"]


@recipe
def adan(
    learning_rate: NonNegative,
    b1: Decay = 0.98,
    b2: Decay = 0.92,
    b3: Decay = 0.99,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: MaskLike = None,
    *,
    independent_decay: bool = False,
    cautious_weight_decay: bool = False,
) -> GradientTransformation:
    """Take Adam's steps with a look ahead, from the differences between successive gradients.

        d  = g - (the previous gradient)            (0 on the first step)
        m <- b1 * m + (1 - b1) * g
        v <- b2 * v + (1 - b2) * d
        n <- b3 * n + (1 - b3) * (g + b2 * d)^2
        a  = (m / (1 - b1^t) + b2 * v / (1 - b2^t)) / (sqrt(n / (1 - b3^t) + eps_root) + eps)
        u  = -learning_rate * (a + weight_decay * param)

    The paper's betas correspond to 1 - b1, 1 - b2 and 1 - b3. The authors' default decay is
    proximal, param / (1 + rate * decay); this is their `no_prox=True`.

    Args:
        b1: the decay of m, the running mean of gradients, which reaches back about 1 / (1 - b1)
            steps
        b2: the decay of v, the running mean of differences, and how far to look ahead along them; 0
            gives Adam
        b3: the decay of n, the running mean of squares, which reaches back about 1 / (1 - b3) steps
        eps_root: a number added under the square root, in addition to eps outside it. Above 0 it
            lets derivatives be taken through the optimizer: the root has none at 0
        mask: the parameters that decay: a tree of booleans (or a prefix of one), a function from
            the params to one, or a path pattern such as "kernel" or ~matching("bias|scale"); None
            means all

    State: m, v, n and the previous gradient, 16 bytes a parameter.

    Example:
        >>> tx = gradtx.adan(0.1)
        >>> state = tx.init(jnp.array([0.0, 0.0]))
        >>> for grads in ([1.0, 2.0], [1.0, 1.0]):  # constant; falling
        ...     updates, state = tx.update(jnp.array(grads), state, jnp.array([0.0, 0.0]))
        >>> print(np.asarray(updates).round(3))
        [-0.1   -0.072]

    See also: `nadamw`, which looks ahead along the momentum, with half the state.

    References: Xie et al., 2022, https://arxiv.org/abs/2208.06677
    """
    return chain(
        scale_by_adan(b1, b2, b3, eps, eps_root),
        *decoupled_decay(
            learning_rate, weight_decay, mask, independent_decay, cautious_weight_decay
        ),
    )
