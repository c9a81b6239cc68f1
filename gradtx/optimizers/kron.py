"""PSGD with Kronecker preconditioners and decoupled weight decay."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import (
    Decay,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveFraction,
    PositiveInt,
    Seed,
)
from gradtx.core.mask import MaskLike
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.decay import decoupled_decay
from gradtx.transforms.kron import PROBABILITY, MemorySaveMode, Method, scale_by_kron

__all__ = ["kron"]


@recipe
def kron(
    learning_rate: NonNegative = 1e-3,
    b1: Decay = 0.9,
    weight_decay: NonNegative = 0.0,
    mask: MaskLike | None = None,
    *,
    method: Method = "kron",
    preconditioner_update_probability: PositiveFraction = PROBABILITY,
    precond_lr: Positive = 0.1,
    precond_init_scale: Positive = 1.0,
    max_size_triangular: PositiveInt = 8192,
    min_ndim_triangular: NonNegativeInt = 2,
    memory_save_mode: MemorySaveMode | None = None,
    momentum_into_precond_update: bool = True,
    seed: Seed = 0,
    independent_decay: bool = False,
    cautious_weight_decay: bool = False,
) -> GradientTransformation:
    """Whiten the momentum with one factor for each axis, fitted to the gradients.

        mu <- b1 * mu + (1 - b1) * g,         m = mu / (1 - b1^t)
        Q_a <- one step of a fit that makes Q_1 m Q_2^H white                    when it is due
        u  = -learning_rate * (Q_1^H Q_1 m Q_2^H Q_2 + weight_decay * param)   (for a matrix)

    This is PSGD. The fits, and how long a step may be, are described in `scale_by_kron`. It needs
    no decompositions and less memory than Shampoo and SOAP, and follows curvature that changes.

    Args:
        others: as in `scale_by_kron`

    State: mu, 4 bytes a parameter, and for each axis of length n a matrix of n x n or a vector: for
    a square matrix 12 bytes a parameter in all.

    Raises: ValueError for any other method or memory_save_mode.

    Example:
        >>> params = jnp.array([[100.0, 0.0], [0.0, 1.0]])
        >>> tx = gradtx.kron(0.1, memory_save_mode="one_diag")
        >>> [(q.shape) for q in tx.init(params)[0].preconditioners]
        [(2, 2), (2,)]

    See also: `scale_by_kron`, `shampoo`, `soap`.

    References: Li, 2018, https://arxiv.org/abs/1512.04202; Li, 2022,
    https://arxiv.org/abs/2211.04422
    """
    return chain(
        scale_by_kron(
            b1,
            method=method,
            preconditioner_update_probability=preconditioner_update_probability,
            precond_lr=precond_lr,
            precond_init_scale=precond_init_scale,
            max_size_triangular=max_size_triangular,
            min_ndim_triangular=min_ndim_triangular,
            memory_save_mode=memory_save_mode,
            momentum_into_precond_update=momentum_into_precond_update,
            seed=seed,
        ),
        *decoupled_decay(
            learning_rate, weight_decay, mask, independent_decay, cautious_weight_decay
        ),
    )
