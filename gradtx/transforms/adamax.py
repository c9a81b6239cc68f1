"""Adam in the infinity norm."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from gradtx.core.decorators import per_leaf
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.numerics import real_full_like, running_mean, times, zeros_like
from gradtx.core.rule import Rule
from gradtx.core.step import Step
from gradtx.transforms.adam import ScaleByAdamState

__all__ = ["scale_by_adamax"]


@per_leaf
def scale_by_adamax(b1: Decay = 0.9, b2: Decay = 0.999, eps: NonNegative = 1e-8) -> Rule:
    """Divide the running mean of the gradient by a decaying maximum of its magnitude.

        mu <- b1 * mu + (1 - b1) * g
        nu <- max(b2 * nu, |g| + eps)
        u   = mu / (1 - b1^t) / nu

    This is Adam with the infinity norm in place of the root mean square: a large gradient counts in
    full when it comes, and fades by b2 a step. No root is taken and nu needs no bias correction.

    Args:
        b2: how much of the maximum remains after a step: a large gradient shortens the steps of its
            element for about 1 / (1 - b2) steps. Lower it to recover sooner.
        eps: a small number added to |g|, so that nu is not 0 where a gradient is. Raise it to damp
            elements with tiny gradients.

    State: mu and nu, 8 bytes a parameter.

    Example:
        >>> tx = gradtx.scale_by_adamax(b2=0.5)
        >>> state = tx.init(jnp.zeros(2))
        >>> updates, state = tx.update(jnp.array([8.0, 1.0]), state)
        >>> updates, state = tx.update(jnp.array([0.0, 1.0]), state)
        >>> print(state.nu)  # the first one falls by half
        [4. 1.]

    See also: `adamax`, `adamaxw`, `scale_by_adam`.

    References: Kingma & Ba, 2015, section 7.1, https://arxiv.org/abs/1412.6980
    """

    def init(param: Array) -> ScaleByAdamState:
        return ScaleByAdamState(count=None, mu=zeros_like(param), nu=real_full_like(param, 0))

    def update(grad: Array, state: ScaleByAdamState, step: Step) -> tuple[Array, ScaleByAdamState]:
        mu = running_mean(state.mu, grad, b1)
        nu = jnp.maximum(times(b2, state.nu), jnp.abs(grad) + eps)
        return step.debias(mu, b1) / nu, state._replace(mu=mu, nu=nu)

    return Rule(init, update)
