"""Steps in proportion to the size of the parameters: trust ratios, and scaling by the norm."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from gradtx.core.decorators import per_leaf
from gradtx.core.hyperparameters import NonNegative
from gradtx.core.norms import Factor, norm, norm_of, root_mean_square
from gradtx.core.numerics import times

__all__ = ["scale_by_param_block_norm", "scale_by_param_block_rms", "scale_by_trust_ratio"]


@per_leaf
def scale_by_trust_ratio(
    min_norm: NonNegative = 0.0, trust_coefficient: NonNegative = 1.0, eps: NonNegative = 0.0
) -> Callable[..., Array]:
    """Scale each array's update in proportion to the norm of its parameter.

        u = trust_coefficient * max(||p||, min_norm) / (max(||g||, min_norm) + eps) * g

    If either of the two norms is 0, u = g, so that a parameter of zeros can leave zero. LARS and
    LAMB are built on it. update needs params.

    Args:
        min_norm: a lower bound on both norms
        trust_coefficient: the length of an update in units of its parameter's norm
        eps: a small number added to the norm of the update

    State: none.

    Example:
        >>> params = {"w": jnp.array([3.0, 4.0]), "b": jnp.zeros(2)}
        >>> grads = {"w": jnp.array([0.0, 0.1]), "b": jnp.array([1.0, 1.0])}
        >>> tx = gradtx.scale_by_trust_ratio()
        >>> updates, state = tx.update(grads, tx.init(params), params)
        >>> print(np.asarray(updates["w"]).round(4), updates["b"])
        [0. 5.] [1. 1.]

    See also: `lars`, `lamb`, `fromage`; `scale_by_param_block_norm`.

    References: You et al., 2017, https://arxiv.org/abs/1708.03888
    """

    def update(grad: Array, param: Array) -> Array:
        above = jnp.maximum(norm(param), min_norm)
        below = norm_of([grad]).at_least(min_norm)
        both = (above > 0) & (below.value > 0)
        ratio = below.plus(eps).below(trust_coefficient * above)
        return Factor(*(jnp.where(both, part, 1) for part in ratio)).times(grad)

    return update


@per_leaf
def scale_by_param_block_norm(min_scale: NonNegative = 1e-3) -> Callable[..., Array]:
    """Multiply each array's update by the norm of its parameter.

        u = max(||p||, min_scale) * g

    update needs params.

    Args:
        min_scale: a lower bound on the norm, so that a parameter of zeros can leave zero

    State: none.

    Example:
        >>> params = {"w": jnp.array([3.0, 4.0]), "b": jnp.zeros(2)}
        >>> grads = {"w": jnp.array([1.0, -1.0]), "b": jnp.array([1.0, -1.0])}
        >>> tx = gradtx.scale_by_param_block_norm(min_scale=0.5)
        >>> updates, state = tx.update(grads, tx.init(params), params)
        >>> print(np.asarray(updates["w"]).round(4), updates["b"])
        [ 5. -5.] [ 0.5 -0.5]

    See also: `scale_by_param_block_rms`; `scale_by_trust_ratio`, which also divides by the norm of
    g.
    """
    return lambda grad, param: times(jnp.maximum(norm(param), min_scale), grad)


@per_leaf
def scale_by_param_block_rms(min_scale: NonNegative = 1e-3) -> Callable[..., Array]:
    """Multiply each array's update by the root mean square of its parameter.

        u = max(rms(p), min_scale) * g

    Unlike the norm, rms does not grow with the number of elements. It is what Adafactor calls
    multiplying by the parameter scale. update needs params.

    Args:
        min_scale: a lower bound on the rms, so that a parameter of zeros can leave zero

    State: none.

    Example:
        >>> params = {"w": jnp.full(4, 3.0), "b": jnp.zeros(2)}
        >>> grads = jax.tree.map(jnp.ones_like, params)
        >>> tx = gradtx.scale_by_param_block_rms(min_scale=0.5)
        >>> updates, state = tx.update(grads, tx.init(params), params)
        >>> print(np.asarray(updates["w"]).round(4), updates["b"])
        [3. 3. 3. 3.] [0.5 0.5]

    See also: `scale_by_param_block_norm`, `adafactor`.
    """
    return lambda grad, param: times(jnp.maximum(root_mean_square(param), min_scale), grad)


@per_leaf
def descend_on_sphere(learning_rate: NonNegative) -> Callable[..., Array]:
    """u = -learning_rate / sqrt(1 + learning_rate^2) * g: half of Fromage's step."""
    return lambda grad: times(-learning_rate * _shrinkage(learning_rate), grad)


@per_leaf
def shrink_to_sphere(learning_rate: NonNegative) -> Callable[..., Array]:
    """u = g + (1 / sqrt(1 + learning_rate^2) - 1) * p: the other half.

    A step of relative length learning_rate orthogonal to p would lengthen p by a factor of
    sqrt(1 + learning_rate^2); this undoes it.
    """
    return lambda grad, param: grad + times(_shrinkage(learning_rate) - 1, param)


def _shrinkage(learning_rate: float | Array) -> float | Array:
    return (1 + learning_rate**2) ** -0.5
