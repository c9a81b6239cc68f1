"""Yogi."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.yogi import scale_by_yogi

__all__ = ["yogi"]


@recipe
def yogi(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-3,
) -> GradientTransformation:
    """Yogi. Zaheer et al., 2018, https://papers.nips.cc/paper/8186-adaptive-methods-for-nonconvex-optimization"""
    return chain(scale_by_yogi(b1, b2, eps), scale_by_learning_rate(learning_rate))
