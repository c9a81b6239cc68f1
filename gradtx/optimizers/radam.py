"""Rectified Adam."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.radam import scale_by_radam
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["radam"]


@recipe
def radam(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    threshold: NonNegative = 5.0,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """Take Adam's steps, but plain momentum while the second moment averages too few gradients.

        rho_inf = 2 / (1 - b2) - 1,         rho = rho_inf - 2 t b2^t / (1 - b2^t)
        r = sqrt((rho - 4) (rho - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho))
        a = r * m / (sqrt(nu / (1 - b2^t) + eps_root) + eps)        where rho >= threshold
        a = m                                                       before that, and where rho <= 4
        u = -learning_rate * a

    mu, nu and m are those of `adam`. r rises from near 0 to 1, which does what a warmup of the
    learning rate does for Adam. The first steps are proportional to the gradients: large ones may
    move the parameters far.

    Args:
        threshold: how many gradients nu has to average before it is used. 5 is reached at the sixth
            step if b2 = 0.999; larger waits longer

    State: mu and nu, 8 bytes a parameter.

    Example:
        >>> tx = gradtx.radam(0.1)
        >>> state = tx.init(jnp.array([0.0]))
        >>> update = jax.jit(tx.update)
        >>> for t in range(1, 7):
        ...     updates, state = update(jnp.array([10.0]), state)
        ...     print(t, np.asarray(updates).round(4))
        1 [-1.]
        2 [-1.]
        3 [-1.]
        4 [-1.]
        5 [-1.]
        6 [-0.0026]

    See also: `adam`.

    References: Liu et al., 2020, https://arxiv.org/abs/1908.03265
    """
    return chain(
        scale_by_radam(b1, b2, eps, eps_root, threshold, nesterov=nesterov),
        scale_by_learning_rate(learning_rate),
    )
