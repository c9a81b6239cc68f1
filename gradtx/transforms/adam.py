"""Adam and its direct variants: a running mean divided by a running root mean square."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.decorators import per_leaf
from gradtx.core.hyperparameters import Decay, DType, NonNegative
from gradtx.core.numerics import abs_sq, divide_by_rms, real_full_like, running_mean, zeros_like
from gradtx.core.rule import Rule
from gradtx.core.state import Count, Updates
from gradtx.core.step import Step

__all__ = ["ScaleByAdamState", "ScaleByAmsgradState", "scale_by_adam", "scale_by_amsgrad"]

# The second moments that AMSGrad takes the maximum of.
MaxOf = Literal["corrected", "raw"]


class ScaleByAdamState(NamedTuple):
    """The running means of the gradient (mu) and of its square (nu, real); shaped like the
    parameter."""

    count: Count
    mu: Updates
    nu: Updates


class ScaleByAmsgradState(NamedTuple):
    """Adam's state, and the elementwise maximum of the second moment so far (nu_max)."""

    count: Count
    mu: Updates
    nu: Updates
    nu_max: Updates


def nesterov_mean(mu: Array, grad: Array, b1: float | Array, step: Step) -> Array:
    """b1 * mu / (1 - b1^(t+1)) + (1 - b1) * g / (1 - b1^t): what the debiased running mean becomes
    if the next gradient equals this one, which is how Adam looks ahead with Nesterov momentum."""
    return running_mean(step.next.debias(mu, b1), step.debias(grad, b1), b1)


@per_leaf
def scale_by_adam(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = False,
    bias_correction: bool = True,
    nu_dtype: DType | None = None,
) -> Rule:
    """Divide the running mean of the gradient by its running root mean square.

        mu <- b1 * mu + (1 - b1) * g
        nu <- b2 * nu + (1 - b2) * g^2
        u   = m / (sqrt(n + eps_root) + eps)
        m   = mu / (1 - b1^t)          n = nu / (1 - b2^t)          (mu, nu without bias_correction)

        m   = b1 * mu / (1 - b1^(t+1)) + (1 - b1) * g / (1 - b1^t)                   (with nesterov)

    Each element of u is about 1 in magnitude where gradients keep their sign, and small where they
    fluctuate around 0. This is the part of Adam before weight decay and the learning rate, for use
    in a `chain`.

    Args:
        mu_dtype: the dtype in which mu is stored, rounded to nearest; None keeps float32 or wider.
            "bfloat16" halves its memory at little loss.
        nu_dtype: the dtype in which nu is stored, rounded to nearest; None keeps float32 or wider.
            A bfloat16 nu with b2 = 0.999 never decays: use `store` instead, which rounds
            stochastically.

    State: mu and nu, 8 bytes a parameter.

    Example:
        >>> tx = gradtx.scale_by_adam()
        >>> params = jnp.zeros(2)
        >>> grads = jnp.array([0.1, -100.0])
        >>> updates, state = tx.update(grads, tx.init(params))
        >>> print(updates.round(2))  # the scale of the gradients does not matter
        [ 1. -1.]

    See also: `adam`, `adamw`, `scale_by_amsgrad`, `scale_by_adamax`.

    References: Kingma & Ba, 2015, https://arxiv.org/abs/1412.6980; nesterov: Dozat, 2016,
    https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ
    """

    def init(param: Array) -> ScaleByAdamState:
        nu = real_full_like(param, 0, nu_dtype)
        return ScaleByAdamState(count=None, mu=zeros_like(param, mu_dtype), nu=nu)

    def update(grad: Array, state: ScaleByAdamState, step: Step) -> tuple[Array, ScaleByAdamState]:
        mu = running_mean(state.mu, grad, b1)
        nu = running_mean(state.nu, abs_sq(grad), b2)
        m, n = (step.debias(mu, b1), step.debias(nu, b2)) if bias_correction else (mu, nu)
        if nesterov and bias_correction:
            m = nesterov_mean(mu, grad, b1, step)
        elif nesterov:
            m = running_mean(mu, grad, b1)
        return divide_by_rms(m, n, eps, eps_root), state._replace(mu=mu, nu=nu)

    return Rule(init, update)


@per_leaf
def scale_by_amsgrad(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    max_of: MaxOf = "corrected",
    nu_dtype: DType | None = None,
) -> Rule:
    """Divide the running mean of the gradient by a root mean square that never shrinks.

        mu <- b1 * mu + (1 - b1) * g
        nu <- b2 * nu + (1 - b2) * g^2
        u   = m / (sqrt(n + eps_root) + eps),       m = mu / (1 - b1^t)

        nu_max <- max(nu_max, nu / (1 - b2^t)),     n = nu_max                   max_of="corrected"
        nu_max <- max(nu_max, nu),                  n = nu_max / (1 - b2^t)      max_of="raw"

    A rare large gradient shortens the steps of its element for good, where Adam forgets it after
    about 1 / (1 - b2) steps. This repairs examples in which Adam does not converge.

    Args:
        bias_correction_mu: divide mu by 1 - b1^t. The paper does not.
        bias_correction_nu: divide nu by 1 - b2^t. The paper does not. Without it max_of makes no
            difference.
        max_of: take the maximum of the "corrected" second moments, as Optax does, or of the "raw"
            ones, as PyTorch does. "corrected" keeps the large estimates of the first steps.
        nu_dtype: the dtype in which nu and nu_max are stored; None keeps float32 or wider.

    State: mu, nu and nu_max, 12 bytes a parameter.

    Raises: ValueError for any other max_of.

    Example:
        >>> tx = gradtx.scale_by_amsgrad(b2=0.5)
        >>> state = tx.init(jnp.zeros(()))
        >>> for g in (4.0, 1.0, 1.0):
        ...     u, state = tx.update(jnp.array(g), state)
        >>> print(state.nu.round(2), state.nu_max.round(2))
        2.75 16.0

    See also: `amsgrad`, `scale_by_adam`.

    References: Reddi et al., 2018, https://arxiv.org/abs/1904.09237
    """

    def init(param: Array) -> ScaleByAmsgradState:
        nu, nu_max = real_full_like(param, 0, nu_dtype), real_full_like(param, 0, nu_dtype)
        return ScaleByAmsgradState(count=None, mu=zeros_like(param, mu_dtype), nu=nu, nu_max=nu_max)

    def update(
        grad: Array, state: ScaleByAmsgradState, step: Step
    ) -> tuple[Array, ScaleByAmsgradState]:
        mu = running_mean(state.mu, grad, b1)
        nu = running_mean(state.nu, abs_sq(grad), b2)
        m = step.debias(mu, b1) if bias_correction_mu else mu
        if not bias_correction_nu:
            nu_max = n = jnp.maximum(state.nu_max, nu)
        elif max_of == "corrected":
            nu_max = n = jnp.maximum(state.nu_max, step.debias(nu, b2))
        else:
            nu_max = jnp.maximum(state.nu_max, nu)
            n = step.debias(nu_max, b2)
        return divide_by_rms(m, n, eps, eps_root), state._replace(mu=mu, nu=nu, nu_max=nu_max)

    return Rule(init, update)
