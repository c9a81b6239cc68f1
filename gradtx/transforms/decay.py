"""Weight decay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jax import Array, lax

from gradtx.combinators.masked import masked
from gradtx.core.decorators import per_leaf, recipe
from gradtx.core.hyperparameters import NonNegative, NonNegativeFactor
from gradtx.core.numerics import is_zero, times
from gradtx.core.transformation import GradientTransformation

__all__ = ["add_decayed_weights"]


@per_leaf
def decay_weights(weight_decay: NonNegativeFactor) -> Callable[..., Array]:
    """u = g + weight_decay * param"""
    if is_zero(weight_decay):
        return lambda grad, param: grad  # without reading the parameters
    return lambda grad, param: lax.add(grad, times(weight_decay, param))


@recipe
def add_decayed_weights(
    weight_decay: NonNegative = 0.0, mask: Any = None
) -> GradientTransformation:
    """Add the parameters, scaled, to the updates.

        u = g + weight_decay * param                (where the mask selects)

    Placed before the moments of an optimizer this is L2 regularisation; between the moments and the
    learning rate it is decoupled decay. mask: as in `masked`. Loshchilov & Hutter, 2019,
    https://arxiv.org/abs/1711.05101
    """
    decayed = decay_weights(weight_decay)
    return decayed if mask is None else masked(decayed, mask)
