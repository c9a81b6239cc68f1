"""Descent along signs: sign SGD, Signum and Lion."""

from __future__ import annotations

from typing import Any

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, DType, NonNegative
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.momentum import ema
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.sign import scale_by_lion, scale_by_sign

__all__ = ["lion", "sign_sgd", "signum"]


@recipe
def sign_sgd(learning_rate: NonNegative) -> GradientTransformation:
    """Descent along the sign of the gradient. Bernstein et al., 2018, https://arxiv.org/abs/1802.04434"""
    return chain(scale_by_sign(), scale_by_learning_rate(learning_rate))


@recipe
def signum(
    learning_rate: NonNegative, beta: Decay = 0.9, accumulator_dtype: DType | None = None
) -> GradientTransformation:
    """Descent along the sign of a running mean of gradients. Bernstein et al., 2018."""
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
    mask: Any = None,
) -> GradientTransformation:
    """Lion with decoupled weight decay. Chen et al., 2023, https://arxiv.org/abs/2302.06675

    mask: the parameters that decay, as in `masked`.
    """
    return chain(
        scale_by_lion(b1, b2, mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
