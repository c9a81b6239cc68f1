"""RMSProp."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.combinators.stateless import identity
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, Fraction, NonNegative
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.momentum import trace
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.second_moment import scale_by_rms, scale_by_stddev

__all__ = ["rmsprop"]


@recipe
def rmsprop(
    learning_rate: NonNegative,
    decay: Decay = 0.9,
    eps: NonNegative = 1e-8,
    initial_scale: NonNegative = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Fraction | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
    *,
    learning_rate_in_momentum: bool = True,
) -> GradientTransformation:
    """RMSProp, plain or centered, optionally with momentum. Tieleman & Hinton, 2012.

    learning_rate_in_momentum: whether the momentum buffer holds steps, already multiplied by the
    learning rate (Optax), or directions (False, PyTorch). The two differ once the rate changes.
    """
    scale_by = scale_by_stddev if centered else scale_by_rms
    direction = scale_by(decay, eps, initial_scale, eps_in_sqrt, bias_correction)
    buffer = identity() if momentum is None else trace(momentum, nesterov)
    rate = scale_by_learning_rate(learning_rate)
    if learning_rate_in_momentum:
        return chain(direction, rate, buffer)
    return chain(direction, buffer, rate)
