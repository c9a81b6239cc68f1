"""Distance over gradients."""

from __future__ import annotations

from typing import Any

from gradtx.combinators.chain import chain
from gradtx.combinators.stateless import identity
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import NonNegative
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.distance import scale_by_dog, scale_by_dowg
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["dog", "dowg"]


@recipe
def dog(
    learning_rate: NonNegative = 1.0,
    init_step: tuple[str, float] = ("heuristic", 1e-6),
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative | None = None,
    mask: Any = None,
) -> GradientTransformation:
    """SGD whose learning rate is the distance from the start over the norm of all gradients so far.

    init_step: the size of the first step, see `scale_by_dog`; use ("heuristic", 1e-4) for models
    with batch normalisation. The params must move: steps below their precision, as in bfloat16 with
    the default, leave the distance at its initial value. Ivgi et al., 2023,
    https://arxiv.org/abs/2302.12022
    """
    return chain(
        identity() if weight_decay is None else add_decayed_weights(weight_decay, mask),
        scale_by_dog(init_step, eps),
        scale_by_learning_rate(learning_rate),
    )


@recipe
def dowg(
    learning_rate: NonNegative = 1.0,
    init_estim_sq_dist: NonNegative | None = None,
    eps: NonNegative = 1e-4,
    weight_decay: NonNegative | None = None,
    mask: Any = None,
) -> GradientTransformation:
    """DoG with gradients that are weighted by the distance from the start.

    Khaled et al., 2023, https://arxiv.org/abs/2305.16284
    """
    return chain(
        identity() if weight_decay is None else add_decayed_weights(weight_decay, mask),
        scale_by_dowg(init_estim_sq_dist, eps),
        scale_by_learning_rate(learning_rate),
    )
