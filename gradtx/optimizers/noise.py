"""SGD with noise."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import NonNegative, RandomKey
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.noise import add_noise
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["noisy_sgd"]


@recipe
def noisy_sgd(
    learning_rate: NonNegative,
    eta: NonNegative = 0.01,
    gamma: NonNegative = 0.55,
    key: RandomKey | None = None,
    *,
    seed: RandomKey | None = None,
) -> GradientTransformation:
    """SGD on noisy gradients. Neelakantan et al., 2015, https://arxiv.org/abs/1511.06807

    key, seed: as in `add_noise`.
    """
    return chain(add_noise(eta, gamma, key, seed=seed), scale_by_learning_rate(learning_rate))
