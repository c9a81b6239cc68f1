"""SOAP with decoupled weight decay."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, DType, NonNegative, PositiveInt
from gradtx.core.mask import MaskLike
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.decay import decoupled_decay
from gradtx.transforms.soap import scale_by_soap

__all__ = ["soap"]


@recipe
def soap(
    learning_rate: NonNegative = 3e-3,
    b1: Decay = 0.95,
    b2: Decay = 0.95,
    shampoo_beta: Decay | None = None,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.01,
    mask: MaskLike | None = None,
    *,
    precondition_frequency: PositiveInt = 10,
    max_precond_dim: PositiveInt = 10000,
    merge_dims: bool = False,
    precondition_1d: bool = False,
    normalize_grads: bool = False,
    correct_bias: bool = True,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
    factor_dtype: DType | None = None,
    independent_decay: bool = False,
    cautious_weight_decay: bool = False,
) -> GradientTransformation:
    """Run AdamW in the eigenbases of the running Gram matrices of each axis.

        g'  = Q_1^H g Q_2                                                   (for a matrix)
        mu <- b1 * mu + (1 - b1) * g'
        nu <- b2 * nu + (1 - b2) * |g'|^2
        u   = -learning_rate * (Q_1 d Q_2^H + weight_decay * param)
        d   = mu / (sqrt(nu) + eps) * sqrt(1 - b2^t) / (1 - b1^t)

        F_a <- s * F_a + (1 - s) * gram_a(g)                        s = shampoo_beta, each axis a
        Q_a <- qr(F_a Q_a), mu and nu into the new bases            every precondition_frequency-th

    It reaches the same loss in fewer steps than AdamW, in particular with large batches; each costs
    four more matrix products per matrix. The first update, which determines the bases, only decays
    the parameters.

    Args:
        max_precond_dim: axes that are longer are not rotated, such as the vocabulary of an
            embedding. Smaller saves memory and time.
        others: as in `scale_by_soap`

    State: mu and nu, 8 bytes a parameter, and for each axis of length n two matrices of n x n: for
    a square matrix 24 bytes a parameter in all.

    Raises: ValueError unless precondition_frequency and max_precond_dim are whole numbers >= 1.

    Example:
        >>> params = jnp.diag(jnp.array([1.0, -2.0]))
        >>> tx = gradtx.soap(0.1, weight_decay=0.0)
        >>> state = tx.init(params)
        >>> for _ in range(2):
        ...     updates, state = tx.update(params, state, params)
        >>> print(np.asarray(updates).round(2))
        [[-0.1 -0. ]
         [-0.   0.1]]

    See also: `scale_by_soap`, `adamw`, `muon`.

    References: Vyas et al., 2024, https://arxiv.org/abs/2409.11321
    """
    return chain(
        scale_by_soap(
            b1,
            b2,
            shampoo_beta,
            eps,
            precondition_frequency=precondition_frequency,
            max_precond_dim=max_precond_dim,
            merge_dims=merge_dims,
            precondition_1d=precondition_1d,
            normalize_grads=normalize_grads,
            correct_bias=correct_bias,
            mu_dtype=mu_dtype,
            nu_dtype=nu_dtype,
            factor_dtype=factor_dtype,
        ),
        *decoupled_decay(
            learning_rate, weight_decay, mask, independent_decay, cautious_weight_decay
        ),
    )
