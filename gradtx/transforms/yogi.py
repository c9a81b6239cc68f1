"""Yogi: Adam whose second moment grows and shrinks by bounded amounts."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from gradtx.core.decorators import per_leaf
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.meshes.placing import seen_alike
from gradtx.core.numerics import abs_sq, divide_by_rms, real_full_like, running_mean, times
from gradtx.core.rule import Rule
from gradtx.core.step import Step
from gradtx.transforms.adam import ScaleByAdamState

__all__ = ["scale_by_yogi"]


@per_leaf
def scale_by_yogi(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-3,
    eps_root: NonNegative = 0.0,
    initial_accumulator_value: NonNegative = 1e-6,
) -> Rule:
    """Adam, but the second moment grows and shrinks by bounded amounts.

        mu <- b1 * mu + (1 - b1) * g
        nu <- nu - (1 - b2) * sign(nu - g^2) * g^2
        u   = mu / (1 - b1^t) / (sqrt(nu / (1 - b2^t) + eps_root) + eps)

    Adam's nu shrinks fast once gradients become small, and steps grow; here it changes by no more
    than (1 - b2) g^2. The bias correction is Adam's, as in the authors' implementation.

    Args:
        b2: how fast nu changes: by (1 - b2) g^2 in each step. Larger is smoother
        initial_accumulator_value: the initial value of mu and nu

    State: mu and nu, 8 bytes a parameter, and the count.

    Example:
        >>> grads = jnp.array([1.0])
        >>> for tx in (gradtx.scale_by_adam(), gradtx.scale_by_yogi()):
        ...     _, old = tx.update(grads, tx.init(grads))
        ...     _, new = tx.update(0 * grads, old)
        ...     print("shrinks" if new.nu < old.nu else "stays")
        shrinks
        stays

    See also: `yogi`, the optimizer; `scale_by_amsgrad`, whose denominator never shrinks.

    References: Zaheer et al., 2018,
    https://papers.nips.cc/paper/8186-adaptive-methods-for-nonconvex-optimization
    """

    def init(param: Array) -> ScaleByAdamState:
        mu = seen_alike(jnp.full_like(param, initial_accumulator_value), param)
        nu = real_full_like(param, initial_accumulator_value)
        return ScaleByAdamState(count=None, mu=mu, nu=nu)

    def update(grad: Array, state: ScaleByAdamState, step: Step) -> tuple[Array, ScaleByAdamState]:
        square = abs_sq(grad)
        mu = running_mean(state.mu, grad, b1)
        nu = state.nu - times(1 - b2, jnp.sign(state.nu - square) * square)
        u = divide_by_rms(step.debias(mu, b1), step.debias(nu, b2), eps, eps_root)
        return u, state._replace(mu=mu, nu=nu)

    return Rule(init, update)
