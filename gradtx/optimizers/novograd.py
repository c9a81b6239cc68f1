"""NovoGrad."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, NonNegative, NonNegativeOrOff
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.novograd import scale_by_novograd
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["novograd"]


@recipe
def novograd(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.25,
    eps: NonNegative = 1e-6,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegativeOrOff = 0.0,
) -> GradientTransformation:
    """NovoGrad, with weight decay inside the momentum. Ginsburg et al., 2019, https://arxiv.org/abs/1905.11286"""
    return chain(
        scale_by_novograd(b1, b2, eps, eps_root, weight_decay),
        scale_by_learning_rate(learning_rate),
    )
