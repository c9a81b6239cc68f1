"""AdaGrad."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import NonNegative
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.second_moment import scale_by_rss

__all__ = ["adagrad"]


@recipe
def adagrad(
    learning_rate: NonNegative,
    initial_accumulator_value: NonNegative = 0.1,
    eps: NonNegative = 1e-7,
    *,
    eps_in_sqrt: bool = True,
) -> GradientTransformation:
    """AdaGrad: each gradient over the root of the sum of its squares so far. Duchi et al., 2011."""
    return chain(
        scale_by_rss(initial_accumulator_value, eps, eps_in_sqrt=eps_in_sqrt),
        scale_by_learning_rate(learning_rate),
    )
