"""Adadelta."""

from __future__ import annotations

from typing import Any

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.adadelta import scale_by_adadelta
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["adadelta"]


@recipe
def adadelta(
    learning_rate: NonNegative | None = None,
    rho: Decay = 0.9,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegative = 0.0,
    weight_decay_mask: Any = None,
) -> GradientTransformation:
    """Adadelta, after L2 regularisation. Zeiler, 2012, https://arxiv.org/abs/1212.5701

    The learning rate defaults to 1, as in the paper. weight_decay_mask: the parameters that are
    regularised, as in `masked`.
    """
    return chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_adadelta(rho, eps),
        scale_by_learning_rate(1.0 if learning_rate is None else learning_rate),
    )
