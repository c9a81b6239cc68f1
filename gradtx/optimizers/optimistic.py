"""Optimistic gradient descent, for games; alone and after Adam."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, DType, NonNegative, Real
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.adam import scale_by_adam
from gradtx.transforms.optimistic import scale_by_optimistic_gradient
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["optimistic_adam", "optimistic_adam_v2", "optimistic_gradient_descent"]


@recipe
def optimistic_gradient_descent(
    learning_rate: NonNegative, alpha: Real = 1.0, beta: Real = 1.0
) -> GradientTransformation:
    """Descend along gradients that are extrapolated by their last change.

        u = -learning_rate * ((alpha + beta) * g - beta * (the previous gradient))

    and u = -learning_rate * alpha * g on the first step. It is for games, where several losses are
    minimised at once: plain gradient descent may circle around their equilibrium for ever, whereas
    this converges, because it acts on what the other players are about to do.

    Args:
        alpha: the weight of the gradient
        beta: how far to extrapolate: 1 expects the last change of the gradient to repeat, 0 gives
            gradient descent

    State: the previous gradient, 4 bytes a parameter.

    Example:
        >>> tx = gradtx.optimistic_gradient_descent(0.1)
        >>> state = tx.init(jnp.array([0.0]))
        >>> for grad in (1.0, 3.0, 3.0):
        ...     updates, state = tx.update(jnp.array([grad]), state)
        ...     print(np.asarray(updates).round(2))
        [-0.1]
        [-0.5]
        [-0.3]

    See also: `optimistic_adam_v2`, the same after Adam.

    References: Mokhtari et al., 2019, https://arxiv.org/abs/1901.08511
    """
    return chain(
        scale_by_optimistic_gradient(alpha, beta),
        scale_by_learning_rate(learning_rate),
    )


@recipe
def optimistic_adam(
    learning_rate: NonNegative,
    optimism: Real | None = None,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = True,
    nu_dtype: DType | None = None,
) -> GradientTransformation:
    """Take Adam's steps, extrapolated by their last change, in the form of an earlier Optax.

        a = m / (sqrt(n + eps_root) + eps)                          as in `adam`
        u = -((learning_rate + optimism) * a - optimism * (the previous a))

    and u = -learning_rate * a on the first step. It is `optimistic_adam_v2` with alpha = 1 and beta
    = optimism / learning_rate; there the learning rate scales the whole step.

    Args:
        optimism: how far to extrapolate, in the units of the learning rate; None means the learning
            rate itself

    State: mu, nu and the previous a, 12 bytes a parameter.

    Example:
        >>> tx = gradtx.optimistic_adam(0.1, nesterov=False)
        >>> state = tx.init(jnp.array([0.0]))
        >>> for grad in (1.0, 0.0):
        ...     updates, state = tx.update(jnp.array([grad]), state)
        ...     print(np.asarray(updates).round(3))
        [-0.1]
        [-0.034]

    See also: `optimistic_adam_v2`, `adam`.

    References: Daskalakis et al., 2018, https://arxiv.org/abs/1711.00141
    """
    beta = learning_rate if optimism is None else optimism
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, nu_dtype=nu_dtype),
        scale_by_optimistic_gradient(learning_rate, beta),
        scale_by_learning_rate(1.0),
    )


@recipe
def optimistic_adam_v2(
    learning_rate: NonNegative,
    *,
    alpha: Real = 1.0,
    beta: Real = 1.0,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    nesterov: bool = True,
    nu_dtype: DType | None = None,
) -> GradientTransformation:
    """Take Adam's steps, extrapolated by their last change.

        a = m / (sqrt(n + eps_root) + eps)                          as in `adam`
        u = -learning_rate * ((alpha + beta) * a - beta * (the previous a))

    and u = -learning_rate * alpha * a on the first step. It is for games, such as the training of
    GANs, where Adam alone tends to circle around the equilibrium.

    Args:
        alpha: the weight of Adam's direction
        beta: how far to extrapolate: 1 expects the last change of the direction to repeat, 0 gives
            Adam

    State: mu, nu and the previous a, 12 bytes a parameter.

    Example:
        >>> for beta in (0.0, 1.0):
        ...     tx = gradtx.optimistic_adam_v2(0.1, beta=beta, nesterov=False)
        ...     state = tx.init(jnp.array([0.0]))
        ...     for grad in (1.0, 0.0):
        ...         updates, state = tx.update(jnp.array([grad]), state)
        ...     print(np.asarray(updates).round(3))
        [-0.067]
        [-0.034]

    See also: `optimistic_gradient_descent`, `adam`.

    References: Daskalakis et al., 2018, https://arxiv.org/abs/1711.00141
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, nu_dtype=nu_dtype),
        scale_by_optimistic_gradient(alpha, beta),
        scale_by_learning_rate(learning_rate),
    )
