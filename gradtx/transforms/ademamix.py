"""Two running means of the gradient, a fast one and a slow one: AdEMAMix."""

from __future__ import annotations

from typing import NamedTuple

from jax import Array

from gradtx.core.decorators import per_leaf
from gradtx.core.hyperparameters import Decay, DType, NonNegative
from gradtx.core.numerics import (
    abs_sq,
    divide_by_rms,
    real_full_like,
    running_mean,
    times,
    zeros_like,
)
from gradtx.core.rule import Rule
from gradtx.core.state import Count, Updates
from gradtx.core.step import Step

__all__ = [
    "ScaleByAdemamixState",
    "ScaleBySimplifiedAdEMAMixState",
    "scale_by_ademamix",
    "scale_by_simplified_ademamix",
]


class ScaleByAdemamixState(NamedTuple):
    """The fast (m1) and the slow (m2) running mean of the gradient, and the running mean of its
    square (nu, real); shaped like the parameter."""

    count: Count
    count_m2: Count
    m1: Updates
    m2: Updates
    nu: Updates


class ScaleBySimplifiedAdEMAMixState(NamedTuple):
    """The sum of gradients (m) and the running mean of squares (n, real); shaped like the
    parameter."""

    t: Count
    m: Updates
    n: Updates


@per_leaf
def scale_by_ademamix(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.9999,
    alpha: NonNegative = 6.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    *,
    nu_dtype: DType | None = None,
) -> Rule:
    """Scale by Adam's rule with a second, much slower running mean in its numerator.

        m1 <- b1 * m1 + (1 - b1) * g
        m2 <- b3 * m2 + (1 - b3) * g
        nu <- b2 * nu + (1 - b2) * g^2
        u   = (m1 / (1 - b1^t) + alpha * m2) / (sqrt(nu / (1 - b2^t) + eps_root) + eps)

    The fast mean follows the current gradients, and the slow one remembers thousands of steps. m2
    is not divided by 1 - b3^t, so its share grows as it fills: u grows to 1 + alpha times Adam's.

    Args:
        b3: the decay of the slow mean, which reaches back about 1 / (1 - b3) steps; it should be
            shorter than the run. Meant to be scheduled: raise it from b1 over the run, since the
            full value destabilises the beginning.
        alpha: the weight of the slow mean; 0 is Adam. Meant to be scheduled: raise it from 0.
        mu_dtype: the dtype in which m1 and m2 are stored; None keeps float32 or wider.

    State: m1, m2 and nu, 12 bytes a parameter.

    Example:
        >>> tx = gradtx.scale_by_ademamix(b3=0.5, alpha=1.0)
        >>> state = tx.init(jnp.zeros(()))
        >>> for _ in range(3):  # 1 + alpha * m2, where m2 is 0.5, 0.75, 0.875
        ...     u, state = tx.update(jnp.ones(()), state)
        ...     print(f"{u:.3f}")
        1.500
        1.750
        1.875

    See also: `ademamix`, `scale_by_simplified_ademamix`, `scale_by_adam`.

    References: Pagliardini et al., 2024, https://arxiv.org/abs/2409.03137
    """

    def init(param: Array) -> ScaleByAdemamixState:
        m1, m2 = zeros_like(param, mu_dtype), zeros_like(param, mu_dtype)
        nu = real_full_like(param, 0, nu_dtype)
        return ScaleByAdemamixState(count=None, count_m2=None, m1=m1, m2=m2, nu=nu)

    def update(
        grad: Array, state: ScaleByAdemamixState, step: Step
    ) -> tuple[Array, ScaleByAdemamixState]:
        m1 = running_mean(state.m1, grad, b1)
        m2 = running_mean(state.m2, grad, b3)
        nu = running_mean(state.nu, abs_sq(grad), b2)
        mixed = step.debias(m1, b1) + times(alpha, m2)
        u = divide_by_rms(mixed, step.debias(nu, b2), eps, eps_root)
        return u, state._replace(m1=m1, m2=m2, nu=nu)

    return Rule(init, update)


@per_leaf
def scale_by_simplified_ademamix(
    b1: Decay = 0.99,
    b2: Decay = 0.95,
    alpha: NonNegative = 0.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
) -> Rule:
    """Scale by AdEMAMix with a single sum of gradients in place of its two running means.

        m <- b1 * m + g
        n <- b2 * n + (1 - b2) * g^2
        u  = (m + alpha * g) / (sqrt(n / (1 - b2^t) + eps_root) + eps)

    m is a sum, up to 1 / (1 - b1) times as large as a gradient: the learning rate should be smaller
    by that factor.

    Args:
        b1: the factor on the sum of gradients at each step: it holds about the last 1 / (1 - b1) of
            them. Larger makes u longer and slower to turn.
        b2: the decay of the running mean of squared gradients, which reaches back about 1 / (1 -
            b2) steps.
        alpha: the additional weight of the current gradient. 0 is momentum as usual; larger, up to
            the order of 1 / (1 - b1), reacts faster to the latest gradient.

    State: m and n, 8 bytes a parameter.

    Example:
        >>> tx = gradtx.scale_by_simplified_ademamix(b1=0.5)
        >>> state = tx.init(jnp.zeros(()))
        >>> for _ in range(3):  # towards 1 / (1 - b1)
        ...     u, state = tx.update(jnp.ones(()), state)
        ...     print(f"{u:.2f}")
        1.00
        1.50
        1.75

    See also: `simplified_ademamix`, `scale_by_ademamix`.

    References: Morwani et al., 2025, https://arxiv.org/abs/2502.02431
    """

    def init(param: Array) -> ScaleBySimplifiedAdEMAMixState:
        return ScaleBySimplifiedAdEMAMixState(
            t=None, m=zeros_like(param), n=real_full_like(param, 0)
        )

    def update(
        grad: Array, state: ScaleBySimplifiedAdEMAMixState, step: Step
    ) -> tuple[Array, ScaleBySimplifiedAdEMAMixState]:
        m = times(b1, state.m) + grad
        n = running_mean(state.n, abs_sq(grad), b2)
        u = divide_by_rms(m + times(alpha, grad), step.debias(n, b2), eps, eps_root)
        return u, state._replace(m=m, n=n)

    return Rule(init, update)
