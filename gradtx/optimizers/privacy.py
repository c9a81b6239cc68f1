"""SGD on differentially private gradients."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Fraction, NonNegative, RandomKey
from gradtx.core.transformation import GradientTransformation
from gradtx.optimizers.sgd import sgd
from gradtx.transforms.privacy import differentially_private_aggregate

__all__ = ["dpsgd"]


@recipe
def dpsgd(
    learning_rate: NonNegative,
    l2_norm_clip: NonNegative,
    noise_multiplier: NonNegative,
    seed: RandomKey,
    momentum: Fraction | None = None,
    nesterov: bool = False,
) -> GradientTransformation:
    """Differentially private SGD: on the noisy mean of clipped per-example gradients.

    The gradients have a leading axis of examples, see `differentially_private_aggregate`; seed: its
    key. Abadi et al., 2016, https://arxiv.org/abs/1607.00133
    """
    momentum_and_rate = sgd(learning_rate, momentum, nesterov)
    return chain(
        differentially_private_aggregate(l2_norm_clip, noise_multiplier, seed),
        *momentum_and_rate.parts,
    )
