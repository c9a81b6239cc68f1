"""What PyTorch's optimizers have in common: maximize, weight decay, and the rate at the end."""

from __future__ import annotations

from jax import Array

from gradtx.combinators.chain import chain
from gradtx.core.hyperparameters import is_static_zero
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale, scale_by_learning_rate

Parts = list[GradientTransformation]


def gradient(maximize: bool, weight_decay: float | Array | None = None) -> Parts:
    """The gradient as PyTorch's optimizers see it: negated to maximize, then L2 is added."""
    return ([scale(-1)] if maximize else []) + decay(weight_decay)


def decay(weight_decay: float | Array | None) -> Parts:
    """weight_decay * w, added to what comes before; a literal 0, or None, leaves it out."""
    if weight_decay is None or is_static_zero(weight_decay):
        return []
    return [add_decayed_weights(weight_decay)]


def descent(
    *direction: GradientTransformation,
    lr: float | Array,
    weight_decay: float | Array,
    maximize: bool,
    decoupled: bool = False,
) -> GradientTransformation:
    """-lr times the direction, with weight decay before it (L2) or, decoupled, after it."""
    if decoupled:
        parts = [*gradient(maximize), *direction, *decay(weight_decay)]
    else:
        parts = [*gradient(maximize, weight_decay), *direction]
    return chain(*parts, scale_by_learning_rate(lr))
