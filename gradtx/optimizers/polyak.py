"""SGD with Polyak's step size."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.combinators.stateless import identity
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import NonNegative, Real
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.polyak import Variant, scale_by_polyak
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["polyak_sgd"]


@recipe
def polyak_sgd(
    max_learning_rate: NonNegative = 1.0,
    scaling: NonNegative = 1.0,
    f_min: Real = 0.0,
    eps: NonNegative = 0.0,
    variant: Variant = "sps",
) -> GradientTransformation:
    """SGD with Polyak's step size, times `scaling`: update needs the loss, `value=loss`.

    Loizou et al., 2021, https://arxiv.org/abs/2002.10542
    """
    # Nested like an SGD, so that the count of a scheduled scaling is where Optax has it.
    step = chain(
        scale_by_polyak(f_min, max_learning_rate, eps, variant), scale_by_learning_rate(scaling)
    )
    return chain(step, identity())
