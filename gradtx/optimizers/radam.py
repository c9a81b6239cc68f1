"""Rectified Adam."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.radam import scale_by_radam
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["radam"]


@recipe
def radam(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    threshold: NonNegative = 5.0,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """Rectified Adam. Liu et al., 2020, https://arxiv.org/abs/1908.03265"""
    return chain(
        scale_by_radam(b1, b2, eps, eps_root, threshold, nesterov=nesterov),
        scale_by_learning_rate(learning_rate),
    )
