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
    """Gradient descent with extrapolated gradients. Mokhtari et al., 2019, https://arxiv.org/abs/1901.08511"""
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
    """Adam with extrapolation: `optimistic_adam_v2` as in an earlier Optax.

    optimism: beta times the learning rate; by default the learning rate itself. Daskalakis et al.,
    2018, https://arxiv.org/abs/1711.00141
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
    """Adam with extrapolated updates. Daskalakis et al., 2018, https://arxiv.org/abs/1711.00141"""
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, nu_dtype=nu_dtype),
        scale_by_optimistic_gradient(alpha, beta),
        scale_by_learning_rate(learning_rate),
    )
