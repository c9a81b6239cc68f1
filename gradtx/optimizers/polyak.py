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
    """Set SGD's rate from the gap between the loss and its lower bound: Polyak's step size.

        rate = min((value - f_min) / (||g||^2 + eps), max_learning_rate)
        u    = -scaling * rate * g

    The norm is of the whole tree; if it and eps are 0, u is 0. update needs the loss at params,
    `value=loss`. It needs no tuning where the lowest possible loss is known, such as 0 for models
    that can fit their data exactly.

    Args:
        max_learning_rate: the largest rate, which bounds the steps where gradients vanish before
            the loss does
        scaling: a factor on every step
        f_min: a lower bound on the loss. Steps are too long if it is too low, and training stops
            short of the minimum if it is too high
        eps: a small number added to the squared norm
        variant: if value is below f_min, "sps+" uses f_min instead and stands still, while "sps"
            steps uphill

    State: none.

    Raises: ValueError for any other variant, TypeError if update is called without value.

    Example:
        >>> params = jnp.array([3.0, 4.0])
        >>> tx = gradtx.polyak_sgd()
        >>> updates, state = tx.update(2 * params, tx.init(params), value=25.0)  # f(x) = <x, x>
        >>> print(updates)
        [-1.5 -2. ]

    See also: `momo`, with momentum; `scale_by_polyak`; `dog`.

    References: Loizou et al., 2021, https://arxiv.org/abs/2002.10542; sps+: Garrigos et al., 2023,
    https://arxiv.org/abs/2307.14528
    """
    # Nested like an SGD, so that the count of a scheduled scaling is where Optax has it.
    step = chain(
        scale_by_polyak(f_min, max_learning_rate, eps, variant), scale_by_learning_rate(scaling)
    )
    return chain(step, identity())
