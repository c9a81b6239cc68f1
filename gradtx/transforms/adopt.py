"""ADOPT: Adam that normalises before it averages, by the second moment of the previous steps."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx.core.decorators import per_leaf
from gradtx.core.dtypes import cast, scalar_dtype
from gradtx.core.hyperparameters import Decay, DType, NonNegative
from gradtx.core.numerics import abs_sq, magnitude, real_full_like, running_mean, sqrt, zeros_like
from gradtx.core.rule import Rule
from gradtx.core.step import Step
from gradtx.transforms.adam import ScaleByAdamState

__all__ = ["fourth_root", "scale_by_adopt"]


def fourth_root(step: ArrayLike) -> Array:
    """Return the fourth root of the step, the bound to which ADOPT's authors clip.

    Args:
        step: the number of updates so far.

    Example:
        >>> gradtx.fourth_root(16)
        Array(2., dtype=float32)

    See also: `scale_by_adopt`, whose default clip_value_fn it is.
    """
    return jnp.sqrt(jnp.sqrt(cast(jnp.asarray(step), scalar_dtype())))


@per_leaf
def scale_by_adopt(
    b1: Decay = 0.9,
    b2: Decay = 0.9999,
    eps: NonNegative = 1e-6,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: NonNegative = fourth_root,
    nu_dtype: DType | None = None,
) -> Rule:
    """Average gradients that are first divided by the root mean square of the earlier ones.

        z   = clip(g / max(sqrt(nu), eps), -c, c)   c = clip_value_fn(updates so far)
        mu <- b1 * mu + (1 - b1) * z
        nu <- b2 * nu + (1 - b2) * g^2
        u   = mu                                    u = b1 * mu + (1 - b1) * z with nesterov

    A gradient is not divided by itself, which is why this converges for any b2. The first step
    moves nothing: nu becomes g^2 and mu stays 0. If an element's nu is still 0 later on, because
    all of its gradients so far were zero or absent, its gradient is divided by max(|g|, eps)
    instead, and its nu becomes g^2.

    Args:
        b1: the decay of the running mean of z: it reaches back about 1 / (1 - b1) steps. Larger is
            smoother and slower to turn.
        b2: the decay of the running mean of squared gradients, which reaches back about 1 / (1 -
            b2) steps. It may be close to 1: convergence does not depend on it.
        eps: the least denominator, which bounds z where gradients are tiny. Raise it to damp
            elements with little signal.
        use_clipping: bound z by c in magnitude, against spikes while nu has seen few gradients.
            Complex parameters require False.
        clip_value_fn: the bound c, a number or a function of the number of updates so far, whose
            fourth root is the default. Smaller clips more.

    State: mu and nu, 8 bytes a parameter.

    Example:
        >>> tx = gradtx.scale_by_adopt(b1=0.0)
        >>> state = tx.init(jnp.zeros(2))
        >>> for grads in (jnp.array([1.0, 1.0]), jnp.array([0.5, 100.0])):
        ...     updates, state = tx.update(grads, state)
        ...     print(updates)  # nothing at first; then relative to the first gradient, at most 1
        [0. 0.]
        [0.5 1. ]

    See also: `adopt`, `scale_by_adam`.

    References: Taniguchi et al., 2024, https://arxiv.org/abs/2411.02853
    """

    def init(param: Array) -> ScaleByAdamState:
        mu, nu = zeros_like(param, mu_dtype), real_full_like(param, 0, nu_dtype)
        return ScaleByAdamState(count=None, mu=mu, nu=nu)

    def update(grad: Array, state: ScaleByAdamState, step: Step) -> tuple[Array, ScaleByAdamState]:
        first, square = step.count == 1, abs_sq(grad)
        unknown = state.nu == 0
        root = jnp.where(unknown, magnitude(grad), sqrt(state.nu))
        z = grad / jnp.maximum(root, eps)
        if use_clipping:
            z = jnp.clip(z, -clip_value_fn, clip_value_fn)
        mu = jnp.where(first, state.mu, running_mean(state.mu, z, b1))
        nu = jnp.where(unknown, square, running_mean(state.nu, square, b2))
        u = jnp.where(first, mu, running_mean(mu, z, b1)) if nesterov else mu
        return u, state._replace(mu=mu, nu=nu)

    return Rule(init, update)
