"""LAMB, LARS and Fromage: steps in proportion to the size of the parameters."""

from __future__ import annotations

from typing import Any

from gradtx.combinators.chain import chain
from gradtx.combinators.masked import masked
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, Fraction, NonNegative
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.adam import scale_by_adam
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.momentum import trace
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.trust_ratio import (
    descend_on_sphere,
    scale_by_trust_ratio,
    shrink_to_sphere,
)

__all__ = ["fromage", "lamb", "lars"]


@recipe
def lamb(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
) -> GradientTransformation:
    """AdamW with a trust ratio, for large batches. You et al., 2019, https://arxiv.org/abs/1904.00962

    mask: the parameters that decay, as in `masked`.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_trust_ratio(),
        scale_by_learning_rate(learning_rate),
    )


@recipe
def lars(
    learning_rate: NonNegative,
    weight_decay: NonNegative = 0.0,
    weight_decay_mask: Any = True,
    trust_coefficient: NonNegative = 0.001,
    eps: NonNegative = 0.0,
    trust_ratio_mask: Any = True,
    momentum: Fraction = 0.9,
    nesterov: bool = False,
) -> GradientTransformation:
    """Momentum with a trust ratio, for large batches. You et al., 2017, https://arxiv.org/abs/1708.03888

    The momentum buffer includes the learning rate. weight_decay_mask, trust_ratio_mask: the
    parameters that decay, and those scaled by the trust ratio, as in `masked`.
    """
    return chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        masked(scale_by_trust_ratio(0.0, trust_coefficient, eps), trust_ratio_mask),
        scale_by_learning_rate(learning_rate),
        trace(momentum, nesterov),
    )


@recipe
def fromage(learning_rate: NonNegative, min_norm: NonNegative = 1e-6) -> GradientTransformation:
    """Steps of constant relative length that do not make the parameters grow.

    Bernstein et al., 2020, https://arxiv.org/abs/2002.03432
    """
    return chain(
        scale_by_trust_ratio(min_norm),
        descend_on_sphere(learning_rate),
        shrink_to_sphere(learning_rate),
    )
