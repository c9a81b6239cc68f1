"""AdEMAMix with decoupled weight decay, and its simplified form."""

from __future__ import annotations

from typing import Any

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, DType, NonNegative
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.ademamix import scale_by_ademamix, scale_by_simplified_ademamix
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

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
    mask: Any = None,
    *,
    nu_dtype: DType | None = None,
) -> GradientTransformation:
    """AdEMAMix. Pagliardini et al., 2024, https://arxiv.org/abs/2409.03137

    mask: the parameters that decay, as in `masked`.
    """
    return chain(
        scale_by_ademamix(b1, b2, b3, alpha, eps, eps_root, mu_dtype, nu_dtype=nu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
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
    mask: Any = None,
) -> GradientTransformation:
    """Simplified AdEMAMix. Morwani et al., 2025, https://arxiv.org/abs/2502.02431

    mask: the parameters that decay, as in `masked`.
    """
    return chain(
        scale_by_simplified_ademamix(b1, b2, alpha, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
