"""ADOPT."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, DType, NonNegative
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.adopt import fourth_root, scale_by_adopt
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["adopt"]


@recipe
def adopt(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.9999,
    eps: NonNegative = 1e-6,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: NonNegative = fourth_root,
    nu_dtype: DType | None = None,
) -> GradientTransformation:
    """Average gradients that are first divided by the root mean square of the earlier ones.

        z   = clip(g / max(sqrt(nu), eps), -c, c)       c = clip_value_fn(updates so far)
        mu <- b1 * mu + (1 - b1) * z
        nu <- b2 * nu + (1 - b2) * g^2
        u   = -learning_rate * mu

    With nesterov, u = -learning_rate * (b1 * mu + (1 - b1) * z). The first step moves nothing: nu
    becomes g^2 and mu stays 0. If an element's nu is still 0 later on, because all of its gradients
    so far were zero or absent, its gradient is divided by max(|g|, eps) instead, and its nu becomes
    g^2.

    Since a gradient does not enter its own divisor, this converges with any b2, where Adam may not.

    Args:
        b2: the decay of the running mean of squared gradients, which reaches back about 1 / (1 -
            b2) steps. Lower it (0.99, 0.999) for short runs
        eps: the least divisor, which bounds the step where gradients are tiny
        use_clipping: bound the divided gradient by clip_value_fn, which tames the first steps,
            whose divisors are still poor. Complex parameters require False
        clip_value_fn: the bound c: a number, or a function of the number of earlier updates. The
            authors use its fourth root, which soon clips only outliers

    State: mu and nu, 8 bytes a parameter.

    Example:
        >>> params = jnp.array([0.0])
        >>> tx = gradtx.adopt(0.1)
        >>> state = tx.init(params)
        >>> for grad in (2.0, 2.0, 2.0):
        ...     params, state = gradtx.step(tx, jnp.array([grad]), state, params)
        ...     print(np.asarray(params).round(4))
        [0.]
        [-0.01]
        [-0.029]

    See also: `adam`; `acprop`, which also divides by earlier gradients only.

    References: Taniguchi et al., 2024, https://arxiv.org/abs/2411.02853
    """
    return chain(
        scale_by_adopt(
            b1,
            b2,
            eps,
            mu_dtype,
            nesterov=nesterov,
            use_clipping=use_clipping,
            clip_value_fn=clip_value_fn,
            nu_dtype=nu_dtype,
        ),
        scale_by_learning_rate(learning_rate),
    )
