"""Rprop."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import AtLeastOne, Fraction, NonNegative
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.rprop import scale_by_rprop
from gradtx.transforms.scaling import scale

__all__ = ["rprop"]


@recipe
def rprop(
    learning_rate: NonNegative,
    eta_minus: Fraction = 0.5,
    eta_plus: AtLeastOne = 1.2,
    min_step_size: NonNegative = 1e-6,
    max_step_size: NonNegative = 50.0,
) -> GradientTransformation:
    """Resilient propagation, for full-batch gradients. Riedmiller & Braun, 1993.

    learning_rate: the initial step size of every parameter, https://doi.org/10.1109/ICNN.1993.298623
    """
    return chain(
        scale_by_rprop(learning_rate, eta_minus, eta_plus, min_step_size, max_step_size),
        scale(-1.0),
    )
