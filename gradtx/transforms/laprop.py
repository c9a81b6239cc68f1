"""LaProp: gradients that are divided first and averaged afterwards."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from gradtx.core.decorators import per_leaf
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.numerics import abs_sq, divide_by_rms, real_full_like, running_mean, zeros_like
from gradtx.core.rule import Rule
from gradtx.core.step import Step
from gradtx.transforms.adam import ScaleByAdamState, ScaleByAmsgradState

__all__ = ["scale_by_laprop"]


@per_leaf
def scale_by_laprop(
    b1: Decay = 0.9, b2: Decay = 0.999, eps: NonNegative = 1e-15, *, amsgrad: bool = False
) -> Rule:
    """Average gradients that are first divided by their running root mean square.

        nu <- b2 * nu + (1 - b2) * g^2
        mu <- b1 * mu + (1 - b1) * g / (sqrt(n) + eps),     n = nu / (1 - b2^t)
        u   = mu / (1 - b1^t)

    With amsgrad the largest nu so far takes the place of nu in n. Each gradient is divided by the
    noise level of its own time, so that what an outlier adds to mu is bounded from the start. In
    Adam, which averages gradients as they are, an outlier outlives its share of the denominator
    unless b1 is well below b2.

    Args:
        b1: the decay of the running mean of divided gradients, which reaches back about 1 / (1 -
            b1) steps. Any b1 works with any b2
        amsgrad: divide by the root of the largest second moment so far, so that gradients which a
            large one has shortened stay short; 4 more bytes a parameter

    State: mu and nu, 8 bytes a parameter; with amsgrad nu_max too, 12.

    Example:
        >>> tx = gradtx.scale_by_laprop(b1=0.5)
        >>> state = tx.init(jnp.zeros(()))
        >>> for g in (0.01, 0.01, 100.0, 0.01):  # the outlier does not last
        ...     u, state = tx.update(jnp.array(g), state)
        ...     print(np.asarray(u).round(2))
        1.0
        1.0
        1.42
        0.66

    See also: `laprop`, `scale_by_adam`.

    References: Ziyin et al., 2020, https://arxiv.org/abs/2002.04839
    """

    def init(param: Array) -> ScaleByAdamState:
        return ScaleByAdamState(None, zeros_like(param), real_full_like(param, 0))

    def init_with_max(param: Array) -> ScaleByAmsgradState:
        return ScaleByAmsgradState(*init(param), nu_max=real_full_like(param, 0))

    def update(
        grad: Array, state: ScaleByAdamState | ScaleByAmsgradState, step: Step
    ) -> tuple[Array, ScaleByAdamState | ScaleByAmsgradState]:
        n = nu = running_mean(state.nu, abs_sq(grad), b2)
        if isinstance(state, ScaleByAmsgradState):
            n = jnp.maximum(state.nu_max, nu)
            state = state._replace(nu_max=n)
        divided = divide_by_rms(grad, step.debias(n, b2), eps)
        mu = running_mean(state.mu, divided, b1)
        return step.debias(mu, b1), state._replace(mu=mu, nu=nu)

    return Rule(init_with_max if amsgrad else init, update)
