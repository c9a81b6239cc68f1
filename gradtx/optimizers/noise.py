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
    """Take SGD's steps on gradients with normal noise, whose variance decreases over time.

        u = -learning_rate * (g + sqrt(eta / t^gamma) * z),         z ~ N(0, 1) for every element

    The noise helps very deep networks out of poor starting points, and fades as training goes on.

    Args:
        eta: the variance of the noise on the first step; 0 gives SGD
        gamma: how fast the variance falls: 0 keeps it, larger is faster
        key: the seed of the random numbers: a whole number or a key of `jax.random`; None means 0.
            The noise of a leaf depends only on it, the step and the leaf's path
        seed: an older name of key

    State: a random key; none for the parameters.

    Raises: ValueError if both key and seed are given.

    Example:
        >>> tx = gradtx.noisy_sgd(0.1, eta=0.04, key=1)
        >>> grads = jnp.ones(1000)
        >>> updates, state = jax.jit(tx.update)(grads, tx.init(grads))
        >>> print(np.asarray(updates).mean().round(1), np.asarray(updates).std().round(2))
        -0.1 0.02

    See also: `add_noise`, to put before any optimizer; `dpsgd`, whose noise protects examples.

    References: Neelakantan et al., 2015, https://arxiv.org/abs/1511.06807
    """
    return chain(add_noise(eta, gamma, key, seed=seed), scale_by_learning_rate(learning_rate))
