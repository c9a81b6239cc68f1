"""MADGRAD."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Fraction, NonNegative
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.madgrad import scale_by_madgrad

__all__ = ["madgrad"]


@recipe
def madgrad(
    learning_rate: NonNegative,
    momentum: Fraction = 0.9,
    weight_decay: NonNegative = 0.0,
    eps: NonNegative = 1e-6,
) -> GradientTransformation:
    """Momentumized, adaptive dual averaging; weight_decay is L2, added to the gradients.

    Defazio & Jelassi, 2021, https://arxiv.org/abs/2101.11075
    """
    return chain(add_decayed_weights(weight_decay), scale_by_madgrad(learning_rate, momentum, eps))
