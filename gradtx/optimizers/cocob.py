"""Coin betting."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import NonNegative, Positive
from gradtx.core.mask import MaskLike
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.cocob import scale_by_cocob
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["cocob"]


@recipe
def cocob(
    learning_rate: NonNegative = 1.0,
    alpha: NonNegative = 100.0,
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: MaskLike = None,
) -> GradientTransformation:
    """Bet, in every coordinate, a fraction of what following the gradients has won so far.

        g   = learning_rate * (grad + weight_decay * param)
        L  <- max(L, |g|)        G <- G + |g|        theta <- theta - g          (L starts at eps)
        R  <- max(R - g (param - x0), 0)
        u   = x0 + theta / (L max(G + L, alpha L)) (L + R) - param

    x0 are the params given to init. This is continuous coin betting, without a learning rate to
    tune: steps start small, 1 / alpha, and grow while the gradients keep their sign.

    Args:
        learning_rate: a factor on the gradients, not on the updates, which hardly depend on it
        alpha: the first step is 1 / alpha long. Larger is slower and safer to start
        eps: the initial value of L, the largest gradient so far: it keeps the divisor away from 0
        weight_decay: L2 regularisation: this fraction of each parameter is added to its gradient,
            before anything else. 0 switches it off
        mask: the parameters that decay: a tree of booleans (or a prefix of one), a function from
            the params to one, or a path pattern such as "kernel" or ~matching("bias|scale"); None
            means all

    State: x0, theta, L, G and R, 20 bytes a parameter.

    Example:
        >>> params = jnp.array([0.0, 0.0])
        >>> tx = gradtx.cocob()
        >>> state = tx.init(params)
        >>> for _ in range(3):
        ...     params, state = gradtx.step(tx, jnp.array([0.001, -50.0]), state, params)
        ...     print(np.asarray(params).round(4))
        [-0.01  0.01]
        [-0.0202  0.0202]
        [-0.0309  0.0309]

    See also: `dog`, `dowg` and `polyak_sgd`, also without a learning rate; `prodigy`.

    References: Orabona & Tommasi, 2017, algorithm 2, https://arxiv.org/abs/1705.07795
    """
    return chain(
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate, flip_sign=False),
        scale_by_cocob(alpha, eps),
    )
