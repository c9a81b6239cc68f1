"""SOAP: Adam in the eigenbases of Shampoo's factors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import Scalar, cast, real_dtype
from gradtx.core.holding import anywhere, fenced, here, now_and_then
from gradtx.core.hyperparameters import Decay, DType, NonNegative, PositiveInt
from gradtx.core.leaves import map_leaves
from gradtx.core.meshes.shares import in_shares
from gradtx.core.norms import root_mean_square
from gradtx.core.numerics import (
    abs_sq,
    divide_by_rms,
    over_size,
    real_full_like,
    running_mean,
    sqrt,
    times,
    zeros_like,
)
from gradtx.core.rule import Rule
from gradtx.core.state import Count, Factors, LikeParams, Params, Updates
from gradtx.core.step import Step
from gradtx.transforms.kronecker import (
    Axes,
    Gradients,
    Matrices,
    adjoints,
    eigenvectors,
    factor_dtype_for,
    finite_or,
    gram,
    multiplied,
    orthogonal,
    permuted,
    product,
)

__all__ = ["ScaleBySoapState", "scale_by_soap"]


class ScaleBySoapState(NamedTuple):
    """The running means of the gradient (mu) and of its square (nu, real), both in the bases, each
    shaped like the parameter; for each axis of each leaf the running mean of the Gram matrices
    (factors) and their eigenvectors (bases), None for an axis that has none."""

    count: Count
    mu: LikeParams
    nu: LikeParams
    factors: Factors
    bases: Factors


class _Decays(NamedTuple):
    """The decays of the running means of the gradient, its square, and the Gram matrices."""

    mu: Scalar
    nu: Scalar
    factors: Scalar


class _Leaf(NamedTuple):
    """The state of one leaf, its moments in the shape of `Axes`."""

    mu: Array
    nu: Array
    factors: Matrices
    bases: Matrices


@per_tree
def scale_by_soap(
    b1: Decay = 0.95,
    b2: Decay = 0.95,
    shampoo_beta: Decay | None = None,
    eps: NonNegative = 1e-8,
    *,
    precondition_frequency: PositiveInt = 10,
    max_precond_dim: PositiveInt = 10000,
    merge_dims: bool = False,
    precondition_1d: bool = False,
    normalize_grads: bool = False,
    correct_bias: bool = True,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
    factor_dtype: DType | None = None,
) -> Rule:
    """Run Adam in the eigenbases of the running Gram matrices of each axis.

        g'  = Q_1^H g Q_2                                                   (for a matrix)
        mu <- b1 * mu + (1 - b1) * g'
        nu <- b2 * nu + (1 - b2) * |g'|^2
        u   = Q_1 (mu / (sqrt(nu) + eps)) Q_2^H * sqrt(1 - b2^t) / (1 - b1^t)

        F_a <- s * F_a + (1 - s) * gram_a(g)                        s = shampoo_beta, each axis a
        Q_a <- qr(F_a Q_a), mu and nu into the new bases            every precondition_frequency-th

    The first update is zero: it only provides the first factors and, as Q_a, their eigenvectors. t
    counts the updates after it. Where a rotation leaves nothing of mu but rounding errors, in a
    direction without gradients, nu is raised to their square: in the authors' code they make steps
    that are thousands of learning rates long. No other direction is changed.

    In the eigenbasis the curvature is closer to diagonal, which is what Adam assumes. SOAP takes
    fewer steps than Adam; each costs four more matrix products per matrix and, rarely, a
    decomposition. Derivatives treat the bases as constants.

    Args:
        shampoo_beta: the decay of the factors; None means b2.
        eps: a number added to the root of nu, before its bias is corrected
        precondition_frequency: how many updates pass before the bases follow the factors. Larger is
            cheaper, with staler bases.
        max_precond_dim: axes that are longer are not rotated; a matrix with one such axis is
            rotated along the other alone
        merge_dims: join neighbouring axes, from the first on, while their product is at most
            max_precond_dim. It is meant for kernels of convolutions.
        precondition_1d: give arrays of one axis a factor too. False runs plain Adam on them.
        normalize_grads: divide the update of each array by its root mean square
        correct_bias: correct the running means for their start from 0

    State: mu and nu, 8 bytes a parameter, and for each axis of length n two matrices of n x n: for
    a square matrix 24 bytes a parameter in all.

    Raises: ValueError unless precondition_frequency and max_precond_dim are whole numbers >= 1.

    Example:
        >>> grads = jnp.array([[1.0, 2.0], [3.0, -4.0]])
        >>> tx = gradtx.scale_by_soap(precondition_frequency=1)
        >>> state = tx.init(grads)
        >>> for _ in range(2):  # the first makes the bases, in which the gradient is diagonal
        ...     updates, state = tx.update(grads, state)
        >>> q1, q2 = state.bases
        >>> print(np.abs(q1.T @ grads @ q2).round(1))
        [[5.1 0. ]
         [0.  2. ]]

    See also: `soap`, the optimizer; `scale_by_adam`.

    References: Vyas et al., 2024, https://arxiv.org/abs/2409.11321
    """
    decays = _Decays(b1, b2, b2 if shampoo_beta is None else shampoo_beta)

    def axes_of(x: Array) -> Axes:
        return Axes.of(x.shape, max_precond_dim, merge=merge_dims, vectors=precondition_1d)

    def init(params: Params) -> ScaleBySoapState:
        made = partial(map_leaves, "scale_by_soap", tree=params)
        # A leaf that joins a run, where the count goes on, runs Adam until the bases are due.
        return ScaleBySoapState(
            count=None,
            mu=made(lambda x: zeros_like(x, mu_dtype)),
            nu=made(lambda x: real_full_like(x, 0, nu_dtype)),
            factors=made(lambda x: axes_of(x).zeros(factor_dtype_for(x, factor_dtype))),
            bases=made(lambda x: axes_of(x).identities(factor_dtype_for(x, factor_dtype))),
        )

    def update(
        updates: Updates, state: ScaleBySoapState, step: Step
    ) -> tuple[Updates, ScaleBySoapState]:
        own = partial(update_of_share, step)
        return in_shares(own, updates, state, ("mu", "nu", "factors", "bases"))

    def update_of_share(
        step: Step, updates: Updates, state: ScaleBySoapState, _: Sequence[Any]
    ) -> tuple[Updates, ScaleBySoapState]:
        first, counted = step.count == 1, Step(jnp.maximum(step.count - 1, 1))

        def scaled(u: Array) -> Array:
            u = _without_bias(u, counted, decays) if correct_bias else u
            return over_size(u, root_mean_square(u)) if normalize_grads else u

        grads = Gradients.of(updates, state.mu, "scale_by_soap")
        axes = [axes_of(g) for g in grads.arrays]
        new = [
            _with_gradient(g.reshape(own.shape), leaf, first, decays)
            for g, own, leaf in zip(grads.arrays, axes, _leaves(grads, state, axes), strict=True)
        ]
        made = [_direction(leaf, first, eps) for leaf in new]
        due = (step.count - 1) % precondition_frequency == 0
        new, made = _in_new_bases(new, made, axes, due, first)
        return grads.shaped(map(scaled, made)), _state(grads, state, new)

    return Rule(init, update)


def _leaves(grads: Gradients, state: ScaleBySoapState, axes: Sequence[Axes]) -> list[_Leaf]:
    """The state of each leaf, in the shape of its `Axes`."""
    shapes = [own.matrices for own in axes]
    fields = (
        *map(grads.beside, (state.mu, state.nu)),
        grads.fitting(state.factors, "factors", shapes),
        grads.fitting(state.bases, "bases", shapes),
    )
    return [
        _Leaf(mu.reshape(own.shape), nu.reshape(own.shape), factors, bases)
        for own, mu, nu, factors, bases in zip(axes, *fields, strict=True)
    ]


def _state(grads: Gradients, old: ScaleBySoapState, leaves: Sequence[_Leaf]) -> ScaleBySoapState:
    """The inverse of `_leaves`."""
    return old._replace(
        mu=grads.shaped(leaf.mu for leaf in leaves),
        nu=grads.shaped(leaf.nu for leaf in leaves),
        factors=grads.tree(leaf.factors for leaf in leaves),
        bases=grads.tree(leaf.bases for leaf in leaves),
    )


def _with_gradient(g: Array, old: _Leaf, first: Array, decays: _Decays) -> _Leaf:
    """The moments and the factors updated with g, and the bases as they are."""
    # The first gradient determines the bases: there are none to rotate it into yet.
    turned = jnp.where(first, 0, multiplied(g, old.bases))
    factors = [
        None if f is None else running_mean(f, gram(g, axis), decays.factors)
        for axis, f in enumerate(old.factors)
    ]
    return _Leaf(
        mu=running_mean(old.mu, turned, decays.mu),
        nu=running_mean(old.nu, abs_sq(turned), decays.nu),
        factors=tuple(factors),
        bases=old.bases,
    )


def _direction(leaf: _Leaf, first: Array, eps: Scalar) -> Array:
    """Q_1 (mu / (sqrt(nu) + eps)) Q_2^H"""
    nu = jnp.where(first, 1, leaf.nu)  # mu and nu are 0 then, and eps may be
    return multiplied(divide_by_rms(leaf.mu, nu, eps), adjoints(leaf.bases))


def _without_bias(u: Array, step: Step, decays: _Decays) -> Array:
    """u * sqrt(1 - b2^t) / (1 - b1^t)"""
    of_mu, of_nu = (step.bias(b, real_dtype(u.dtype)) for b in (decays.mu, decays.nu))
    return times(sqrt(of_nu) / of_mu, u)


# The moments and the bases of a leaf, which a step holds unless the bases are due.
_Held = list[tuple[Array, Array, Matrices]]
_Bases = list[Array]


def _in_new_bases(
    leaves: Sequence[_Leaf], made: list[Array], axes: Sequence[Axes], due: Array, first: Array
) -> tuple[list[_Leaf], list[Array]]:
    """The leaves moved into the present bases of their factors, if due; first: they had none yet.

    made: the directions, from the old bases. They pass through the conditional so that they are
    computed before it: otherwise XLA:CPU copies the bases, to write the new ones before it reads
    the old ones.
    """
    factors: list[Array] = jax.tree.leaves([lax.stop_gradient(x.factors) for x in leaves])
    ranks = [own.rank(k) for own in axes for k, has in enumerate(own.own) if has]
    if not factors:
        return list(leaves), made

    def start(state: tuple[_Bases, list[Array]]) -> tuple[None, tuple[_Bases, list[Array]]]:
        bases, beside = state
        new = eigenvectors([finite_or(jnp.zeros_like(f), f) for f in factors], ranks)
        pairs = zip(new, bases, strict=True)
        return None, ([jnp.where(here(first), x, q) for x, q in pairs], fenced(beside))

    def follow(state: tuple[_Held, list[Array]]) -> tuple[None, tuple[_Held, list[Array]]]:
        held, made = state
        old, structure = jax.tree.flatten([lax.stop_gradient(bases) for _, _, bases in held])
        means = [
            multiplied(mu, adjoints(q))
            for (mu, _, _), q in zip(held, jax.tree.unflatten(structure, old), strict=True)
        ]
        ordered, orders = zip(*map(_iterated, factors, old), strict=True)
        new = orthogonal(ordered)
        # Like the directions, the means pass through: they are the last to need the old bases.
        _, (new, means) = now_and_then(anywhere(first), start, lambda state: None, (new, means))
        after, order = (jax.tree.unflatten(structure, x) for x in (new, orders))
        moved = [
            (*_moved(multiplied(mean, p), permuted(nu, own), p), p)
            for mean, (_, nu, _), p, own in zip(means, held, after, order, strict=True)
        ]
        new = jax.tree.map(lambda x, y: jnp.where(here(due), x, y), moved, held)
        return None, (new, fenced(made))

    held = [(leaf.mu, leaf.nu, leaf.bases) for leaf in leaves]
    _, (held, made) = now_and_then(anywhere(due), follow, lambda state: None, (held, made))
    pairs = zip(leaves, held, strict=True)
    return [x._replace(mu=mu, nu=nu, bases=bases) for x, (mu, nu, bases) in pairs], made


def _iterated(factor: Array, basis: Array) -> tuple[Array, Array]:
    """The factor times the basis, with its columns sorted by the mean square of the gradient along
    each, the largest first, and their order; the basis itself if the factor is not finite."""
    power = product(factor, basis)
    squares = jnp.sum((basis.conj() * power).real, axis=0)
    finite = jnp.all(jnp.isfinite(squares))
    order = jnp.argsort(jnp.where(finite, squares, 1), descending=True)
    return permuted(jnp.where(finite, power, basis), (None, order)), order


def _moved(mu: Array, nu: Array, bases: Matrices) -> tuple[Array, Array]:
    """The moments in new bases, with nu at least the square of the error from rotating mu.

    Along a direction without gradients nu is 0 or a rounding error, and the error in mu, divided by
    its root, would make steps of thousands of learning rates. Where nu is raised, mu is nothing but
    that error.
    """
    rotated = tuple(axis for axis, q in enumerate(bases) if q is not None)
    if not rotated:
        return mu, nu
    largest = jnp.max(jnp.abs(mu), axis=rotated, keepdims=True, initial=0)
    error = float(np.finfo(nu.dtype).eps) * largest
    return mu, jnp.maximum(nu, lax.stop_gradient(cast(error * error, nu.dtype)))
