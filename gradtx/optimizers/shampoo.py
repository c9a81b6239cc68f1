"""Shampoo with decoupled weight decay."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, DType, Fraction, NonNegative, Positive, PositiveInt
from gradtx.core.mask import MaskLike
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.decay import decoupled_decay
from gradtx.transforms.shampoo import Grafting, scale_by_shampoo

__all__ = ["shampoo"]


@recipe
def shampoo(
    learning_rate: NonNegative = 1e-2,
    b1: Decay = 0.9,
    b2: Fraction = 0.999,
    b3: Decay | None = None,
    eps: Positive = 1e-12,
    weight_decay: NonNegative = 0.0,
    mask: MaskLike | None = None,
    *,
    precondition_frequency: PositiveInt = 1,
    start_preconditioning_step: PositiveInt | None = None,
    grafting: Grafting | None = "adam",
    grafting_b2: Decay = 0.999,
    grafting_eps: NonNegative = 1e-8,
    max_preconditioner_dim: PositiveInt = 1024,
    exponent: Positive | None = None,
    merge_small_dims: bool = True,
    kl: bool = False,
    factor_dtype: DType | None = None,
    independent_decay: bool = False,
    cautious_weight_decay: bool = False,
) -> GradientTransformation:
    """Multiply gradients along each axis by an inverse root of its running Gram matrix.

        mu  <- b1 * mu + (1 - b1) * g
        m    = (b3 * mu_before + (1 - b3) * g) / (1 - b3 * b1^(t-1))
        F_a <- b2 * F_a + (1 - b2) * gram_a(g)            each axis a; F_a + gram_a(g) with b2 = 1
        R_a <- (F_a / (1 - b2^t) + eps I)^(-p)            p = exponent, 1 / (2 axes), when due
        d    = R_1 m R_2                                                    (for a matrix)
        u    = -learning_rate * (d * |n| / |d| + weight_decay * param)

    where n is the step of the grafting method on m. `scale_by_shampoo` describes the details.

    It needs fewer steps than Adam. By default it takes the length of each from Adam, so that Adam's
    learning rates fit. Steps with new roots decompose every factor, so raise precondition_frequency
    where matrices are large.

    Args:
        others: as in `scale_by_shampoo`

    State: mu and nu, 8 bytes a parameter, and for each axis of a block of length n two matrices of
    n x n: for a square matrix that is one block 24 bytes a parameter in all.

    Raises: ValueError for any other grafting, and unless the frequencies and
    max_preconditioner_dim are whole numbers >= 1.

    Example:
        >>> params = jnp.diag(jnp.array([100.0, 1.0]))
        >>> tx = gradtx.shampoo(0.1, merge_small_dims=False)
        >>> updates, state = tx.update(params, tx.init(params), params)
        >>> print(np.diag(updates).round(2))  # each direction has the same weight
        [-0.1 -0.1]

    See also: `scale_by_shampoo`, `soap`, `muon`.

    References: Gupta et al., 2018, https://arxiv.org/abs/1802.09568; Shi et al., 2023,
    https://arxiv.org/abs/2309.06497
    """
    return chain(
        scale_by_shampoo(
            b1,
            b2,
            b3,
            eps,
            precondition_frequency=precondition_frequency,
            start_preconditioning_step=start_preconditioning_step,
            grafting=grafting,
            grafting_b2=grafting_b2,
            grafting_eps=grafting_eps,
            max_preconditioner_dim=max_preconditioner_dim,
            exponent=exponent,
            merge_small_dims=merge_small_dims,
            kl=kl,
            factor_dtype=factor_dtype,
        ),
        *decoupled_decay(
            learning_rate, weight_decay, mask, independent_decay, cautious_weight_decay
        ),
    )
