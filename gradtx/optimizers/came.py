"""CAME."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.mask import MaskLike
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.came import scale_by_came
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["came"]


@recipe
def came(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.9999,
    eps: NonNegative = 1e-30,
    eps_instability: NonNegative = 1e-16,
    clip_threshold: NonNegative = 1.0,
    weight_decay: NonNegative = 0.0,
    mask: MaskLike = None,
    *,
    cautious_weight_decay: bool = False,
) -> GradientTransformation:
    """Take Adafactor's steps with momentum, and trust them less where they are unsteady.

        V  <- b2 * V + (1 - b2) * (g^2 + eps)                           factored
        s   = g / sqrt(V),      s = s * min(1, clip_threshold / rms(s))
        mu <- b1 * mu + (1 - b1) * s
        U  <- b3 * U + (1 - b3) * ((s - mu)^2 + eps_instability)        factored
        u   = -learning_rate * (mu / sqrt(U) + weight_decay * param)

    A factored mean keeps the means R over the last axis and C over the last but one; its elements
    are R * C / mean(R). Vectors and scalars keep the whole V and no U: their steps are mu.

    It is for large models: half of the state of AdamW. Since nothing is corrected for the start at
    0, the first steps of matrices are about 1 / sqrt(1 - b3) times as long as later ones; take a
    small rate (1e-4, 2e-4) with warm-up.

    Args:
        others: as in `scale_by_came`

    State: mu, 4 bytes a parameter; for matrices, the R and C of V and U, 8 bytes a row and a
    column; for vectors, V, 4 more bytes a parameter.

    Example:
        >>> gradtx.inspection.state_bytes_per_parameter(gradtx.came(2e-4))["of a matrix"]
        4.016

    See also: `adafactor`, without the residuals; `adam_mini`, `lion`, with as little state.

    References: Luo et al., 2023, https://arxiv.org/abs/2307.02047
    """
    return chain(
        scale_by_came(b1, b2, b3, eps, eps_instability, clip_threshold),
        add_decayed_weights(weight_decay, mask, cautious=cautious_weight_decay),
        scale_by_learning_rate(learning_rate),
    )
