"""Coin betting."""

from __future__ import annotations

from typing import Any

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import NonNegative, Positive
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
    mask: Any = None,
) -> GradientTransformation:
    """Continuous coin betting, without a learning rate to tune. https://arxiv.org/abs/1705.07795

    learning_rate scales the gradients, not the updates; weight_decay is L2, added to the gradients.
    """
    return chain(
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate, flip_sign=False),
        scale_by_cocob(alpha, eps),
    )
