"""Hyperball: steps of a fixed angle, each array on the sphere on which it starts."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax

from gradtx.combinators.chain import chain
from gradtx.core.decorators import per_leaf, recipe
from gradtx.core.hyperparameters import NonNegative
from gradtx.core.norms import norm_of
from gradtx.core.numerics import times
from gradtx.core.transformation import GradientTransformation, TransformationLike

__all__ = ["hyperball"]


@recipe
def hyperball(inner: TransformationLike, learning_rate: NonNegative) -> GradientTransformation:
    """Step in the direction of an inner transformation, and keep the norm of every array.

        d  = inner(g)
        p' = param - learning_rate * ||param|| * d / ||d||
        u  = p' * ||param|| / ||p'|| - param                            for each array

    The norm of an array stays what it was at the start, so that learning_rate is the angle by which
    it turns, and weight decay, whose balance with the steps would set the norm, has no place. It is
    for matrices whose scale does not matter, such as those before a normalisation. An array that is
    0 stays 0, and a single number stays what it is: give biases, scales and embeddings another
    optimizer with `partition`.

    Args:
        inner: what gives the direction, gradtx's or Optax's, with updates that still point uphill:
            `scale_by_adam` or `scale_by_muon`, not an optimizer such as `adam`, whose updates
            already point downhill. The length of its updates does not matter
        learning_rate: the length of a step relative to the norm of the array: for small ones, the
            angle in radians

    State: that of `inner`.

    Example:
        >>> params, grads = jnp.array([3.0, 4.0]), jnp.array([0.0, 1.0])
        >>> tx = gradtx.hyperball(gradtx.identity(), 0.1)
        >>> state = tx.init(params)
        >>> params, state = gradtx.step(tx, grads, state, params)
        >>> print(np.asarray(params).round(3), np.linalg.norm(params).round(3))
        [3.254 3.796] 5.0

    See also: `fromage`, which lets norms shrink a little; `muon`, `partition`.

    References: Wen et al., 2025, in
    https://github.com/KellerJordan/modded-nanogpt (records/track_3_optimization)
    """
    return chain(inner, move_on_sphere(learning_rate))


@per_leaf
def move_on_sphere(learning_rate: NonNegative) -> Callable[..., Array]:
    """Step against the updates, as long as learning_rate times each array, and keep its norm.

        p' = param - learning_rate * ||param|| * g / ||g||
        u  = p' * ||param|| / ||p'|| - param

    Args:
        learning_rate: the length of a step relative to the array; for small ones, the angle

    State: none.

    References: Wen et al., 2025, see `hyperball`
    """

    def update(grad: Array, param: Array) -> Array:
        if param.size < 2:
            return jnp.zeros_like(grad)
        size = norm_of([param])
        step = times(learning_rate, times(size.value, norm_of([grad]).below(1).times(grad)))
        moved = lax.sub(param, step)
        return lax.sub(norm_of([moved]).below(size.value).times(moved), param)

    return update
