"""Distance over gradients."""

from __future__ import annotations

from typing import Any

from gradtx.combinators.chain import chain
from gradtx.combinators.stateless import identity
from gradtx.core.decorators import recipe
from gradtx.core.kinds import NonNegative
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
) -> Any:
    """SGD whose step is the distance from the start over the gradients so far.

    init_step: how long the first step is, see `scale_by_dog`; ("heuristic", 1e-4) for models with
    batch normalisation. The params must move: steps below their precision (bfloat16 with the
    default) leave the distance at its first value. Ivgi et al., 2023,
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
) -> Any:
    """SGD whose step is the squared distance from the start over the gradients, weighted by it.

    Khaled et al., 2023, https://arxiv.org/abs/2305.16284
    """
    return chain(
        identity() if weight_decay is None else add_decayed_weights(weight_decay, mask),
        scale_by_dowg(init_estim_sq_dist, eps),
        scale_by_learning_rate(learning_rate),
    )
