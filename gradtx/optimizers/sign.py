"""Descent along signs: sign SGD, Signum and Lion."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, DType, NonNegative
from gradtx.core.mask import MaskLike
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.decay import decoupled_decay
from gradtx.transforms.momentum import ema
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.sign import scale_by_lion, scale_by_sign

__all__ = ["lion", "sign_sgd", "signum"]


@recipe
def sign_sgd(learning_rate: NonNegative) -> GradientTransformation:
    """Step against the sign of the gradient.

        u = -learning_rate * sign(g)

    Every element moves by learning_rate, or not at all where g = 0; for a complex g the sign is its
    phase, g / |g|. Only the signs of gradients have to be communicated.

    State: none.

    Example:
        >>> tx = gradtx.sign_sgd(0.5)
        >>> grads = jnp.array([100.0, -0.001, 0.0])
        >>> updates, state = tx.update(grads, tx.init(grads))
        >>> print(updates)
        [-0.5  0.5 -0. ]

    See also: `signum`, with momentum; `lion`; `rprop`, with a step size per element.

    References: Bernstein et al., 2018, https://arxiv.org/abs/1802.04434
    """
    return chain(scale_by_sign(), scale_by_learning_rate(learning_rate))


@recipe
def signum(
    learning_rate: NonNegative, beta: Decay = 0.9, accumulator_dtype: DType | None = None
) -> GradientTransformation:
    """Step against the sign of the running mean of gradients.

        m <- beta * m + (1 - beta) * g
        u  = -learning_rate * sign(m)

    Args:
        beta: the decay of the running mean of gradients, which reaches back about 1 / (1 - beta)
            steps. A larger one averages out more noise; 0 gives `sign_sgd`
        accumulator_dtype: the dtype in which the running mean is kept; None keeps float32 (float64
            for float64 parameters). `store` narrows any optimizer's state

    State: m, 4 bytes a parameter.

    Example:
        >>> tx = gradtx.signum(0.5)
        >>> state = tx.init(jnp.array([0.0]))
        >>> for grad in (3.0, -0.1, -0.1):  # the mean stays positive
        ...     updates, state = tx.update(jnp.array([grad]), state)
        >>> print(updates)
        [-0.5]

    See also: `sign_sgd`; `lion`, with two decays and weight decay.

    References: Bernstein et al., 2018, https://arxiv.org/abs/1802.04434
    """
    return chain(
        ema(beta, debias=False, accumulator_dtype=accumulator_dtype),
        scale_by_sign(),
        scale_by_learning_rate(learning_rate),
    )


@recipe
def lion(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    mu_dtype: DType | None = None,
    weight_decay: NonNegative = 1e-3,
    mask: MaskLike = None,
    *,
    independent_decay: bool = False,
    cautious_weight_decay: bool = False,
) -> GradientTransformation:
    """Step against the sign of a running mean that is interpolated towards the gradient.

        c   = b1 * mu + (1 - b1) * g
        mu <- b2 * mu + (1 - b2) * g
        u   = -learning_rate * (sign(c) + weight_decay * param)

    It has half of Adam's state. Every element moves by learning_rate, more than in most of Adam's
    steps: take a rate 3 to 10 times smaller than for AdamW, and a weight decay larger by the same
    factor.

    Args:
        b1: the weight of the mean relative to the newest gradient in c: smaller turns sooner
        b2: the decay of the running mean of gradients, which reaches back about 1 / (1 - b2) steps.
            Larger is smoother
        mask: the parameters that decay: a tree of booleans (or a prefix of one), a function from
            the params to one, or a path pattern such as "kernel" or ~matching("bias|scale"); None
            means all

    State: mu, 4 bytes a parameter.

    Example:
        >>> params = jnp.array([10.0, 10.0, 10.0])
        >>> grads = jnp.array([100.0, -0.001, 0.0])
        >>> tx = gradtx.lion(0.5, weight_decay=0.01)
        >>> updates, state = tx.update(grads, tx.init(params), params)
        >>> print(np.asarray(updates).round(3))
        [-0.55  0.45 -0.05]

    See also: `signum`, `adamw`.

    References: Chen et al., 2023, https://arxiv.org/abs/2302.06675
    """
    return chain(
        scale_by_lion(b1, b2, mu_dtype),
        *decoupled_decay(
            learning_rate, weight_decay, mask, independent_decay, cautious_weight_decay
        ),
    )
