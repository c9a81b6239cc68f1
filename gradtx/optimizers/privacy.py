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
    """Take SGD's steps, differentially private: on the noisy mean of clipped per-example gradients.

        a = (sum_i g_i * min(1, C / ||g_i||) + noise_multiplier * C * z) / B,       z ~ N(0, 1)
        u = -learning_rate * a                      after momentum as in `sgd`, if it is given

    with C = l2_norm_clip and, for each of the B examples, the norm over the whole tree. Gradients
    have shape (B, *parameter shape), as from `jax.vmap(jax.grad(loss), (None, 0))(params, batch)`;
    the updates have the shapes of the params.

    The parameters then reveal little about any single example. How little follows from
    noise_multiplier, the batch size and the number of steps; computing it is left to a privacy
    accountant. The guarantee is for this sum over one batch: averaging batches, or leaving some
    out, changes it.

    Args:
        l2_norm_clip: the largest norm of one example's gradient. Smaller needs less noise, but
            distorts more gradients
        noise_multiplier: the standard deviation of the noise in units of l2_norm_clip; larger is
            more private. 0 only clips
        seed: the seed of the random numbers: a whole number or a key of `jax.random`. For a real
            guarantee it has to be secret
        momentum: the decay of a running sum of gradients, as in `sgd`; None keeps no state

    State: a random key, and with momentum 4 bytes a parameter.

    Raises: ValueError, with the leaf's path, if there is no axis of examples or their numbers
    differ.

    Example:
        >>> tx = gradtx.dpsgd(1.0, l2_norm_clip=1.0, noise_multiplier=0.0, seed=0)
        >>> grads = jnp.array([[30.0, 40.0], [0.3, 0.4]])  # of two examples, the first too large
        >>> updates, state = jax.jit(tx.update)(grads, tx.init(jnp.zeros(2)))
        >>> print(np.asarray(updates).round(2))
        [-0.45 -0.6 ]

    See also: `differentially_private_aggregate`, to put before any optimizer.

    References: Abadi et al., 2016, https://arxiv.org/abs/1607.00133
    """
    momentum_and_rate = sgd(learning_rate, momentum, nesterov)
    return chain(
        differentially_private_aggregate(l2_norm_clip, noise_multiplier, seed),
        *momentum_and_rate.parts,
    )
