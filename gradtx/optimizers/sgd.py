"""Stochastic gradient descent."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.combinators.stateless import identity
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import DType, Fraction, NonNegative
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.momentum import trace
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["sgd"]


@recipe
def sgd(
    learning_rate: NonNegative,
    momentum: Fraction | None = None,
    nesterov: bool = False,
    accumulator_dtype: DType | None = None,
) -> GradientTransformation:
    """Stochastic gradient descent, optionally with momentum. Sutskever et al., 2013."""
    return chain(
        identity() if momentum is None else trace(momentum, nesterov, accumulator_dtype),
        scale_by_learning_rate(learning_rate),
    )
