"""ADOPT."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, DType, NonNegative
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.adopt import fourth_root, scale_by_adopt
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["adopt"]


@recipe
def adopt(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.9999,
    eps: NonNegative = 1e-6,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: NonNegative = fourth_root,
    nu_dtype: DType | None = None,
) -> GradientTransformation:
    """ADOPT. Taniguchi et al., 2024, https://arxiv.org/abs/2411.02853"""
    return chain(
        scale_by_adopt(
            b1,
            b2,
            eps,
            mu_dtype,
            nesterov=nesterov,
            use_clipping=use_clipping,
            clip_value_fn=clip_value_fn,
            nu_dtype=nu_dtype,
        ),
        scale_by_learning_rate(learning_rate),
    )
