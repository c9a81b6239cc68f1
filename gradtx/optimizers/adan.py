"""Adan."""

from __future__ import annotations

from typing import Any

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.adan import scale_by_adan
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["adan"]


@recipe
def adan(
    learning_rate: NonNegative,
    b1: Decay = 0.98,
    b2: Decay = 0.92,
    b3: Decay = 0.99,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
) -> GradientTransformation:
    """Adan with decoupled weight decay. Xie et al., 2022, https://arxiv.org/abs/2208.06677

    mask: the parameters that decay, as in `masked`. The authors' default decay is proximal,
    param / (1 + rate * decay); this is their `no_prox=True`.
    """
    return chain(
        scale_by_adan(b1, b2, b3, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
