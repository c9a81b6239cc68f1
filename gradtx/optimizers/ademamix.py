"""AdEMAMix with decoupled weight decay, and its simplified form."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, DType, NonNegative
from gradtx.core.mask import MaskLike
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.ademamix import scale_by_ademamix, scale_by_simplified_ademamix
from gradtx.transforms.decay import decoupled_decay

__all__ = ["ademamix", "simplified_ademamix"]


@recipe
def ademamix(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.9999,
    alpha: NonNegative = 5.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    weight_decay: NonNegative = 0.0,
    mask: MaskLike = None,
    *,
    nu_dtype: DType | None = None,
    independent_decay: bool = False,
    cautious_weight_decay: bool = False,
) -> GradientTransformation:
    """Take Adam's steps with a second, much slower running mean in the numerator.

        m1 <- b1 * m1 + (1 - b1) * g
        m2 <- b3 * m2 + (1 - b3) * g
        nu <- b2 * nu + (1 - b2) * g^2
        a   = (m1 / (1 - b1^t) + alpha * m2) / (sqrt(nu / (1 - b2^t) + eps_root) + eps)
        u   = -learning_rate * (a + weight_decay * param)

    It is for long runs: m2 keeps gradients of thousands of steps ago, while m1 follows the newest
    ones. b3 and alpha are meant to be scheduled, from b1 and 0 to their final values, since at the
    beginning old gradients mislead.

    Args:
        b3: the decay of m2, the slow running mean, which reaches back about 1 / (1 - b3) steps; fit
            it to the length of the run
        alpha: the weight of the slow mean; 0 gives Adam
        mu_dtype: the dtype in which m1 and m2 are kept; None keeps float32 (float64 for float64
            parameters). `store` narrows any optimizer's state
        mask: the parameters that decay: a tree of booleans (or a prefix of one), a function from
            the params to one, or a path pattern such as "kernel" or ~matching("bias|scale"); None
            means all

    State: m1, m2 and nu, 12 bytes a parameter.

    Example:
        >>> tx = gradtx.ademamix(0.1, b3=0.999)
        >>> params = jnp.array([0.0])
        >>> state = tx.init(params)
        >>> for grad in [1.0] + [0.0] * 99:
        ...     updates, state = tx.update(jnp.array([grad]), state, params)
        >>> print(np.asarray(state[0].m1).round(5), np.asarray(state[0].m2).round(5))
        [0.] [0.00091]

    See also: `simplified_ademamix`, with one mean; `adamw`.

    References: Pagliardini et al., 2024, https://arxiv.org/abs/2409.03137
    """
    return chain(
        scale_by_ademamix(b1, b2, b3, alpha, eps, eps_root, mu_dtype, nu_dtype=nu_dtype),
        *decoupled_decay(
            learning_rate, weight_decay, mask, independent_decay, cautious_weight_decay
        ),
    )


@recipe
def simplified_ademamix(
    learning_rate: NonNegative,
    b1: Decay = 0.99,
    b2: Decay = 0.95,
    alpha: NonNegative = 0.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    mask: MaskLike = None,
    *,
    independent_decay: bool = False,
    cautious_weight_decay: bool = False,
) -> GradientTransformation:
    """Take AdEMAMix's steps with a single sum of gradients in place of its two running means.

        m <- b1 * m + g
        n <- b2 * n + (1 - b2) * g^2
        a  = (m + alpha * g) / (sqrt(n / (1 - b2^t) + eps_root) + eps)
        u  = -learning_rate * (a + weight_decay * param)

    m is a sum, up to 1 / (1 - b1) times as large as a gradient: the learning rate should be smaller
    than Adam's by that factor.

    Args:
        b1: the decay of the sum of gradients, which adds up about 1 / (1 - b1) of them
        alpha: the weight of the newest gradient on top of the sum; larger for small batches, 0 for
            momentum alone
        mask: the parameters that decay: a tree of booleans (or a prefix of one), a function from
            the params to one, or a path pattern such as "kernel" or ~matching("bias|scale"); None
            means all

    State: m and n, 8 bytes a parameter.

    Example:
        >>> tx = gradtx.simplified_ademamix(0.01)
        >>> params = jnp.array([0.0])
        >>> state = tx.init(params)
        >>> for _ in range(3):
        ...     updates, state = tx.update(jnp.array([5.0]), state, params)
        ...     print(np.asarray(updates).round(4))
        [-0.01]
        [-0.0199]
        [-0.0297]

    See also: `ademamix`, `adamw`.

    References: Morwani et al., 2025, https://arxiv.org/abs/2502.02431
    """
    return chain(
        scale_by_simplified_ademamix(b1, b2, alpha, eps, eps_root),
        *decoupled_decay(
            learning_rate, weight_decay, mask, independent_decay, cautious_weight_decay
        ),
    )
