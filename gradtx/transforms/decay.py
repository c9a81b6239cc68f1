"""Weight decay."""

from __future__ import annotations

from typing import Any

from jax import lax

from gradtx.combinators.masked import masked
from gradtx.core.decorators import per_leaf, recipe
from gradtx.core.kinds import NonNegative, NonNegativeFactor
from gradtx.core.numerics import is_zero, times

__all__ = ["add_decayed_weights"]


@per_leaf
def decay_weights(weight_decay: NonNegativeFactor) -> Any:
    """u = g + weight_decay * param"""
    if is_zero(weight_decay):
        return lambda grad, param: grad  # the parameters are not read
    return lambda grad, param: lax.add(grad, times(weight_decay, param))


@recipe
def add_decayed_weights(weight_decay: NonNegative = 0.0, mask: Any = None) -> Any:
    """Add the parameters, scaled.

        u = g + weight_decay * param                (where the mask selects)

    Before the moments of an optimizer this is L2 regularisation; between them and the learning
    rate it is decoupled decay. mask: as in `masked`. Loshchilov & Hutter, 2019,
    https://arxiv.org/abs/1711.05101
    """
    decayed = decay_weights(weight_decay)
    return decayed if mask is None else masked(decayed, mask)
