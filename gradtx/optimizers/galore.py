"""GaLore with decoupled weight decay."""

from __future__ import annotations

from typing import Any

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import NonNegative, PositiveInt, Real
from gradtx.core.transformation import GradientTransformation, TransformationLike
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.galore import scale_by_galore
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["galore"]


@recipe
def galore(
    learning_rate: NonNegative,
    rank: PositiveInt = 128,
    update_proj_gap: PositiveInt = 200,
    scale: Real = 1.0,
    base_optimizer: TransformationLike | None = None,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
    weight_dimension_numbers: Any = None,
) -> GradientTransformation:
    """Adam, or another optimizer, on low-rank gradients. Zhao et al., 2024, https://arxiv.org/abs/2403.03507

    mask: the parameters that decay, as in `masked`. All else as in `scale_by_galore`.
    """
    return chain(
        scale_by_galore(rank, update_proj_gap, scale, base_optimizer, weight_dimension_numbers),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
