"""RAdam: Adam that does not use its second moment until it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from jax import Array

from gradtx.core.decorators import per_leaf
from gradtx.core.dtypes import cast, number_dtype
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.numerics import abs_sq, real_full_like, running_mean, sqrt, zeros_like
from gradtx.core.rule import Rule
from gradtx.core.step import Step
from gradtx.transforms.adam import ScaleByAdamState, nesterov_mean

__all__ = ["scale_by_radam"]


@per_leaf
def scale_by_radam(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    threshold: NonNegative = 5.0,
    *,
    nesterov: bool = False,
    eps_of: Literal["corrected", "raw"] = "corrected",
) -> Rule:
    """Adam, but plain momentum while the second moment averages too few gradients.

        rho_inf = 2 / (1 - b2) - 1,         rho = rho_inf - 2 t b2^t / (1 - b2^t)
        r = sqrt((rho - 4) (rho - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho))
        u = r * m / (sqrt(nu / (1 - b2^t) + eps_root) + eps)    where rho >= threshold
        u = m                                                   before that, and where rho <= 4

    mu, nu and m = mu / (1 - b1^t) are Adam's; with nesterov, m as in `scale_by_adam`. r grows from
    near 0 to 1, so that no other warm-up is needed; rho is how many gradients nu averages.

    Args:
        threshold: how many gradients nu must average to be used; with 5 and the default b2 that is
            from step 6 on
        eps_of: whether eps and eps_root are added to the "corrected" second moment, as above, or to
            the "raw" one, as in PyTorch: the divisor is (sqrt(nu + eps_root) + eps) / sqrt(1 -
            b2^t)

    State: mu and nu, 8 bytes a parameter, and the count.

    Raises: ValueError for any other eps_of.

    Example:
        >>> tx = gradtx.scale_by_radam()
        >>> grads, sizes = jnp.array([10.0]), []
        >>> state = tx.init(grads)
        >>> for _ in range(7):
        ...     updates, state = tx.update(grads, state)
        ...     sizes.append(round(float(updates[0]), 2))
        >>> print(sizes)  # the gradient itself, then Adam's steps, at first short
        [10.0, 10.0, 10.0, 10.0, 10.0, 0.03, 0.03]

    See also: `radam`, the optimizer; `scale_by_adam`.

    References: Liu et al., 2020, https://arxiv.org/abs/1908.03265
    """
    return rectified_adam(b1, b2, eps, eps_root, threshold, nesterov, eps_of, averaged_steps)


def rectified_adam(
    b1: float | Array,
    b2: float | Array,
    eps: float | Array,
    eps_root: float | Array,
    threshold: float | Array,
    nesterov: bool,
    eps_of: Literal["corrected", "raw"],
    averaged: Callable[[float | Array, Array], tuple[Array, Array]],
) -> Rule:
    """`scale_by_radam` with rho and rho_inf from a function of b2 and the count."""

    def init(param: Array) -> ScaleByAdamState:
        return ScaleByAdamState(count=None, mu=zeros_like(param), nu=real_full_like(param, 0))

    def precompute(step: Step) -> tuple[Array, Array]:
        rho, rho_inf = averaged(b2, step.count)
        rectified = (rho >= threshold) & (rho > 4)
        # If not rectified, r is unused: any numbers with a finite root will do.
        rho, end = (jnp.where(rectified, x, 5) for x in (rho, rho_inf))
        return rectified, jnp.sqrt((rho - 4) * (rho - 2) * end / ((end - 4) * (end - 2) * rho))

    def update(
        grad: Array, state: ScaleByAdamState, step: Step, precomputed: tuple[Array, Array]
    ) -> tuple[Array, ScaleByAdamState]:
        rectified, r = precomputed
        mu = running_mean(state.mu, grad, b1)
        nu = running_mean(state.nu, abs_sq(grad), b2)
        m = step.debias(mu, b1)
        if nesterov:
            m = nesterov_mean(mu, grad, b1, step)
        if eps_of == "corrected":
            adapted = r * m / (sqrt(step.debias(nu, b2) + eps_root) + eps)
        else:
            adapted = r * sqrt(step.bias(b2, nu.dtype)) * m / (sqrt(nu + eps_root) + eps)
        return jnp.where(rectified, adapted, m), state._replace(mu=mu, nu=nu)

    return Rule(init, update, precompute)


def averaged_steps(decay: float | Array, count: Array) -> tuple[Array, Array]:
    """The effective length, in steps, of a debiased running mean: rho now, and its limit rho_inf.

    With a = -log(decay), rho_inf = coth(a / 2) and rho = rho_inf + t - t coth(t a / 2), which for
    small t is a difference of large numbers. But y coth(y) = 1 + y^2 / (3 + y^2 / (5 + ...)), so

        rho = t - 2 / a * (f(t a / 2) - f(a / 2)),      f(y) = y^2 / (3 + y^2 / (5 + ...))

    keeps all digits; it is used while t a < 1.
    """
    dtype = number_dtype(decay)
    if isinstance(decay, int | float):
        a = jnp.asarray(-math.log1p(decay - 1) if decay > 0 else 1e3, dtype)
    else:
        a = jnp.where(decay > 0, -jnp.log1p(jnp.where(decay > 0, decay, 1) - 1), 1e3)
    t = cast(count, dtype)
    rho_inf = jnp.asarray(2 / (1 - decay) - 1, dtype)
    x = t * a
    early = t - 2 / a * (_fraction(jnp.minimum(x, 1) / 2) - _fraction(jnp.minimum(a, 1) / 2))
    late = rho_inf + 2 * t * jnp.exp(-x) / jnp.expm1(-x)
    return jnp.where(x < 1, early, late), rho_inf


def _fraction(y: Array) -> Array:
    """y coth(y) - 1 for y <= 1/2, as a continued fraction."""
    square, rest = jnp.square(y), jnp.zeros_like(y)
    for odd in (15, 13, 11, 9, 7, 5, 3):
        rest = square / (odd + rest)
    return rest
