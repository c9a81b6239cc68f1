"""Distance over gradients: step sizes from the distance travelled so far."""

from __future__ import annotations

import math
import numbers
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx import tree
from gradtx.core.decorators import per_leaf, per_tree
from gradtx.core.dtypes import complex_dtype, real_dtype, real_dtype_of
from gradtx.core.hyperparameters import DType, NonNegative, Real
from gradtx.core.numerics import quotient, sqrt
from gradtx.core.rule import Rule
from gradtx.core.state import Params, PastParams, Updates

__all__ = [
    "DoGState",
    "DoWGState",
    "ScaleByDistanceOverGradientsState",
    "scale_by_distance_over_gradients",
]


class DoGState(NamedTuple):
    """The initial params; and scalars: whether no step has been taken yet, the largest distance r
    from the initial params, and the sum G of the squared gradient norms."""

    is_init_step: Array
    init_params: PastParams
    max_dist: Array
    sum_sq_norm_grads: Array


class DoWGState(NamedTuple):
    """The initial params; and scalars: the weighted sum v of the squared gradient norms, and the
    weight D, the largest squared distance from the initial params."""

    init_params: PastParams
    weighted_sq_norm_grads: Array
    estim_sq_dist: Array


class ScaleByDistanceOverGradientsState(NamedTuple):
    """The state of DoG, kept per leaf: max_dist has shape (), grad_sum_of_squares shape (1,), and
    init_params is shaped like the parameter."""

    max_dist: Updates
    grad_sum_of_squares: Updates
    init_params: PastParams


_FIRST_STEPS = ("heuristic", "distance", "learning_rate")


def _check_init_step(init_step: tuple[str, float]) -> None:
    pair = isinstance(init_step, tuple) and len(init_step) == 2
    number = pair and isinstance(init_step[1], numbers.Real) and math.isfinite(init_step[1])
    if not (number and init_step[0] in _FIRST_STEPS and init_step[1] >= 0):
        raise ValueError(
            "scale_by_dog: init_step must be (name, number >= 0) with a name of "
            f"{', '.join(_FIRST_STEPS)}, got {init_step!r}"
        )


@per_tree
def scale_by_dog(init_step: tuple[str, float], eps: NonNegative = 1e-8) -> Rule:
    """Multiply the gradient by the distance from the start over the norm of all gradients so far.

        r <- max(r, ||x - x0||)          G <- G + ||g||^2
        u  = r / sqrt(G + eps) g

    x0 are the params given to init. If G + eps = 0, u is 0. The authors recommend averaging the
    params.

    Args:
        init_step: how r starts: ("distance", r0) at r0; ("heuristic", a) at a (1 + ||x0||);
            ("learning_rate", eta) at 0, with eta g as the first u.
        eps: a small number added to G, which avoids a division by 0 while gradients are 0.

    State: x0, 4 bytes a parameter, and scalars.

    Raises: ValueError for any other init_step.

    See also: `dog`.

    References: Ivgi et al., 2023, https://arxiv.org/abs/2302.12022
    """
    _check_init_step(init_step)
    kind, value = init_step

    def init(params: Params) -> DoGState:
        first = {"heuristic": value * (1 + tree.norm(params)), "learning_rate": 0}.get(kind, value)
        dtype = real_dtype_of(params)
        return DoGState(
            is_init_step=jnp.asarray(True),
            init_params=jax.tree.map(jnp.copy, params),
            max_dist=jnp.asarray(first, dtype),
            sum_sq_norm_grads=jnp.zeros((), dtype),
        )

    def update(updates: Updates, state: DoGState, params: Params) -> tuple[Updates, DoGState]:
        dist = jnp.maximum(state.max_dist, tree.norm(tree.sub(params, state.init_params)))
        total = state.sum_sq_norm_grads + tree.norm(updates, squared=True)
        rate = quotient(dist, sqrt(total + eps))
        if kind == "learning_rate":
            rate = jnp.where(state.is_init_step, jnp.asarray(value, rate.dtype), rate)
        new = DoGState(state.is_init_step & False, state.init_params, dist, total)
        return tree.scale(rate, updates), new

    return Rule(init, update)


@per_tree
def scale_by_dowg(init_estim_sq_dist: NonNegative | None = None, eps: NonNegative = 1e-4) -> Rule:
    """Multiply the gradient by the squared distance from the start over the norm of weighted
    gradients.

        D <- max(D, ||x - x0||^2)        v <- v + D ||g||^2
        u  = D / (sqrt(v) + eps) g

    x0 are the params given to init. If sqrt(v) + eps = 0, u is 0.

    Args:
        init_estim_sq_dist: the initial value of D; None means eps.
        eps: a small number added to the denominator, and the default initial value of D.

    State: x0, 4 bytes a parameter, and scalars.

    See also: `dowg`.

    References: Khaled et al., 2023, https://arxiv.org/abs/2305.16284
    """

    def init(params: Params) -> DoWGState:
        first = eps if init_estim_sq_dist is None else init_estim_sq_dist
        dtype = real_dtype_of(params)
        return DoWGState(
            init_params=jax.tree.map(jnp.copy, params),
            weighted_sq_norm_grads=jnp.zeros((), dtype),
            estim_sq_dist=jnp.asarray(first, dtype),
        )

    def update(updates: Updates, state: DoWGState, params: Params) -> tuple[Updates, DoWGState]:
        way = tree.norm(tree.sub(params, state.init_params), squared=True)
        dist = jnp.maximum(state.estim_sq_dist, way)
        total = state.weighted_sq_norm_grads + dist * tree.norm(updates, squared=True)
        rate = quotient(dist, sqrt(total) + eps)
        return tree.scale(rate, updates), DoWGState(state.init_params, total, dist)

    return Rule(init, update)


@per_leaf
def scale_by_distance_over_gradients(
    reps_rel: NonNegative = 1e-6,
    eps: NonNegative = 1e-8,
    param_dtype: DType = np.float32,
    global_scale: Real = 1.0,
) -> Rule:
    """Multiply each leaf's gradient by its distance from the start over the norm of its gradients.

        r <- max(r, ||x - x0||)          G <- G + ||g||^2
        u  = global_scale r / sqrt(G + eps) g

    This is layer-wise DoG: the norms are per leaf, x0 is the leaf given to init, and r starts at
    reps_rel (1 + ||x0||). The authors recommend averaging the params.

    Args:
        reps_rel: how far the first step goes, relative to 1 + ||x0||. r grows from there, so it is
            hardly worth tuning; it has to be small, yet large enough to change the params in their
            precision.
        eps: a small number added to G, which avoids a division by 0 while gradients are 0.
        param_dtype: the dtype in which x0 is stored. A narrower one makes r less exact.
        global_scale: a factor on all updates. Lower it where training is unstable.

    State: x0, 4 bytes a parameter, and two scalars a leaf.

    Example:
        >>> tx = gradtx.scale_by_distance_over_gradients(reps_rel=0.01)
        >>> params = {"w": jnp.array([3.0, 4.0]), "b": jnp.array([0.0])}
        >>> grads = {"w": jnp.array([30.0, 40.0]), "b": jnp.array([0.1])}
        >>> updates, state = tx.update(grads, tx.init(params), params)
        >>> print(f"{gradtx.global_norm(updates['w']):.2f} {updates['b'][0]:.2f}")
        0.06 0.01

    See also: `dog`, `dowg`, `prodigy`.

    References: Ivgi et al., 2023, https://arxiv.org/abs/2302.12022
    """

    def init(param: Array) -> ScaleByDistanceOverGradientsState:
        dtype = complex_dtype(param_dtype) if jnp.iscomplexobj(param) else param_dtype
        return ScaleByDistanceOverGradientsState(
            max_dist=reps_rel * (1 + tree.norm(param)),
            grad_sum_of_squares=jnp.zeros((1,), real_dtype(param.dtype)),
            init_params=jnp.array(param, dtype, copy=True),
        )

    def update(
        grad: Array, state: ScaleByDistanceOverGradientsState, param: Array
    ) -> tuple[Array, ScaleByDistanceOverGradientsState]:
        dist = jnp.maximum(state.max_dist, tree.norm(param - state.init_params))
        total = state.grad_sum_of_squares + tree.norm(grad, squared=True)
        rate = global_scale * quotient(dist, sqrt(total[0] + eps))
        new = ScaleByDistanceOverGradientsState(dist, total, state.init_params)
        return rate * grad, new

    return Rule(init, update)
