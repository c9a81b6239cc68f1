"""Shampoo: gradients multiplied by inverse roots of the running Gram matrices of each axis."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import Scalar, cast, real_dtype
from gradtx.core.holding import anywhere, here, now_and_then
from gradtx.core.hyperparameters import Decay, DType, Fraction, NonNegative, Positive, PositiveInt
from gradtx.core.leaves import map_leaves
from gradtx.core.norms import norm_over
from gradtx.core.numerics import (
    abs_sq,
    divide_by_rms,
    over_size,
    real_full_like,
    running_mean,
    times,
    zeros_like,
)
from gradtx.core.rule import Rule
from gradtx.core.shares import in_shares
from gradtx.core.state import Count, Factors, LikeParams, Params, Updates
from gradtx.core.step import Step
from gradtx.transforms.kronecker import (
    Blocks,
    Gradients,
    Matrices,
    factor_dtype_for,
    finite_or,
    gram,
    inverse_roots,
    merged,
    multiplied,
)

__all__ = ["ScaleByShampooState", "scale_by_shampoo"]

Grafting = Literal["adam", "rmsprop", "adagrad", "sgd"]


class ScaleByShampooState(NamedTuple):
    """The running mean of the gradient (mu) and the second moment of the grafting method (nu, None
    if it has none), shaped like the parameter; for each group of equal blocks of a leaf and each
    axis the running mean of Gram matrices (factors) and their inverse roots (roots)."""

    count: Count
    mu: LikeParams
    nu: LikeParams
    factors: Factors
    roots: Factors


@per_tree
def scale_by_shampoo(
    b1: Decay = 0.9,
    b2: Fraction = 0.999,
    b3: Decay | None = None,
    eps: Positive = 1e-12,
    *,
    precondition_frequency: PositiveInt = 1,
    start_preconditioning_step: PositiveInt | None = None,
    grafting: Grafting | None = "adam",
    grafting_b2: Decay = 0.999,
    grafting_eps: NonNegative = 1e-8,
    max_preconditioner_dim: PositiveInt = 1024,
    exponent: Positive | None = None,
    merge_small_dims: bool = True,
    kl: bool = False,
    factor_dtype: DType | None = None,
) -> Rule:
    """Multiply gradients along each axis by an inverse root of its running Gram matrix.

        mu  <- b1 * mu + (1 - b1) * g
        m    = (b3 * mu_before + (1 - b3) * g) / (1 - b3 * b1^(t-1))
        F_a <- b2 * F_a + (1 - b2) * gram_a(g)            each axis a; F_a + gram_a(g) with b2 = 1
        R_a <- (F_a / (1 - b2^t) + eps I)^(-p)            p = exponent, 1 / (2 axes), when due
        d    = R_1 m R_2                                                    (for a matrix)
        u    = d * |n| / |d|                              n is the step of the grafting method on m

    Roots are due on the step start_preconditioning_step, s, and after it on every
    precondition_frequency-th. Before it the step is that of the grafting method. Arrays are cut
    into blocks, each with its own factors and its own |n| / |d|. Arrays without axes are left to
    the grafting method's length.

    A matrix of gradients is whitened from both sides, as full-matrix AdaGrad would with a
    covariance that is a Kronecker product. Grafting takes the length of a step from a method whose
    learning rates are known, and the direction from here. Derivatives treat the roots as constants.

    Args:
        b2: the decay of the factors; 1 sums them, as AdaGrad does.
        b3: the weight of the momentum beside the newest gradient; None means b1. Less looks ahead,
            as Nesterov's does.
        eps: a multiple of the identity that is added before the root is taken. Eigenvalues below
            it, and below the rounding error of the largest, are raised to it.
        precondition_frequency: after how many steps the roots are made anew. Larger is cheaper.
        start_preconditioning_step: the first step with roots; None means precondition_frequency.
            Before it the steps are those of the grafting method.
        grafting: the method that the length of a step is taken from: "adam" divides m by the root
            of the running mean of g^2, "rmsprop" by that without correction of its bias, "adagrad"
            by the root of the sum, "sgd" not at all; None keeps the length of d
        grafting_b2: the decay of the second moment of the grafting method
        grafting_eps: a number added to its root
        max_preconditioner_dim: the longest side of the blocks that arrays are cut into
        exponent: the exponent p of the inverse root of each factor; None means 1 / (2 axes). 0.5
            whitens along each axis for itself.
        merge_small_dims: join neighbouring axes, from the last on, while their product is at most
            max_preconditioner_dim. A matrix that is small enough is then one vector.
        kl: make the Gram matrix of an axis of the gradient whitened along the others by the last
            roots, which fits the factors as a minimum of the Kullback-Leibler divergence

    State: mu and nu, 8 bytes a parameter, and for each axis of a block of length n two matrices of
    n x n: for a square matrix that is one block 24 bytes a parameter in all.

    Raises: ValueError for any other grafting, and unless the frequencies and
    max_preconditioner_dim are whole numbers >= 1.

    Example:
        >>> grads = jnp.diag(jnp.array([100.0, 1.0]))
        >>> tx = gradtx.scale_by_shampoo(grafting=None, merge_small_dims=False)
        >>> updates, state = tx.update(grads, tx.init(grads))
        >>> print(np.diag(updates).round(3))  # each direction has the same weight
        [1. 1.]

    See also: `shampoo`, the optimizer; `scale_by_soap`.

    References: Gupta et al., 2018, https://arxiv.org/abs/1802.09568; Shi et al., 2023,
    https://arxiv.org/abs/2309.06497; kl: Lin et al., 2025, https://arxiv.org/abs/2509.03378
    """
    every = precondition_frequency
    start = every if start_preconditioning_step is None else start_preconditioning_step
    has_nu = grafting not in (None, "sgd")

    def blocks_of(x: Array) -> Blocks:
        shape = x.shape
        if merge_small_dims:
            shape = merged(shape, max_preconditioner_dim, backwards=True)
        return Blocks.of(shape, max_preconditioner_dim)

    def init(params: Params) -> ScaleByShampooState:
        def factors(x: Array) -> list[Matrices]:
            dtype = factor_dtype_for(x, factor_dtype)
            return [tuple(jnp.zeros(n, dtype) for n in group) for group in blocks_of(x).matrices]

        def identities(x: Array) -> list[Matrices]:
            dtype = factor_dtype_for(x, factor_dtype)
            return [
                tuple(jnp.tile(jnp.eye(n, dtype=dtype), (number, 1, 1)) for number, n, _ in group)
                for group in blocks_of(x).matrices
            ]

        nu = jax.tree.map(lambda x: real_full_like(x, 0), params) if has_nu else None
        return ScaleByShampooState(
            count=None,
            mu=jax.tree.map(zeros_like, params),
            nu=nu,
            factors=map_leaves("scale_by_shampoo", factors, params),
            roots=map_leaves("scale_by_shampoo", identities, params),
        )

    def update(
        updates: Updates, state: ScaleByShampooState, step: Step
    ) -> tuple[Updates, ScaleByShampooState]:
        own = functools.partial(update_of_share, step)
        return in_shares(own, updates, state, ("mu", "nu", "factors", "roots"))

    def update_of_share(
        step: Step, updates: Updates, state: ScaleByShampooState, _: Sequence[Any]
    ) -> tuple[Updates, ScaleByShampooState]:
        """The direction of every leaf, block by block, by roots that are made when they are due."""
        grads = Gradients.of(updates, state.mu, "scale_by_shampoo")
        early = step.count < start
        due = ((step.count % every == 0) & ~early) | (step.count == start)

        def next_nu(g: Array, nu: Array) -> Array:
            square = abs_sq(g)
            return nu + square if grafting == "adagrad" else running_mean(nu, square, grafting_b2)

        def ahead(g: Array, mu: Array) -> Array:
            """m, from the mean before."""
            if b3 is None:
                return step.debias(running_mean(mu, g, b1), b1)
            before = 1 - Step(step.count - 1).bias(b1, real_dtype(g.dtype))
            return running_mean(mu, g, b3) / cast(1 - b3 * before, g.dtype)

        def grafted(m: Array, nu: Array | None) -> Array:
            """n, the step of the grafting method."""
            if nu is None:
                return m
            square = step.debias(nu, grafting_b2) if grafting == "adam" else nu
            return divide_by_rms(m, square, grafting_eps)

        def next_factors(g: Array, factors: Matrices, roots: Matrices) -> Matrices:
            """Those of a group of blocks, from the roots before."""
            grams = (
                gram(_whitened(g, axis, roots) if kl else g, axis, batch=1)
                for axis in range(len(factors))
            )
            share = _share(b2)
            return tuple(
                lax.add(times(b2, f), times(share, x))
                for f, x in zip(factors, grams, strict=True)
                if f is not None
            )

        def direction(m: Array, n: Array, roots: Matrices) -> Array:
            """That of a group of blocks, as long as n."""
            d, axes = multiplied(m, roots), range(1, m.ndim)
            if grafting is None:
                return d
            lengths = norm_over(n, axes).value, norm_over(d, axes).value
            return jnp.where(early, n, over_size(d, lengths[1]) * cast(lengths[0], d.dtype))

        blocks = [blocks_of(g) for g in grads.arrays]
        mus, shapes = grads.beside(state.mu), [own.matrices for own in blocks]
        nus = grads.fitting(state.nu, "nu", [g.shape if has_nu else None for g in grads.arrays])
        all_factors = grads.fitting(state.factors, "factors", shapes)
        roots = grads.fitting(state.roots, "roots", shapes)
        cut = [own.split(g) for own, g in zip(blocks, grads.arrays, strict=True)]
        factors = [
            [next_factors(*group) for group in zip(*leaf, strict=True)]
            for leaf in zip(cut, all_factors, roots, strict=True)
        ]
        if has_nu:
            nus = [next_nu(g, nu) for g, nu in zip(grads.arrays, nus, strict=True)]
        roots = _renewed(roots, factors, due, eps, exponent, _bias(b2, step))
        made = []
        for g, mu, nu, own, matrices in zip(grads.arrays, mus, nus, blocks, roots, strict=True):
            m = ahead(g, mu)
            pieces = zip(own.split(m), own.split(grafted(m, nu)), matrices, strict=True)
            directions = [direction(*piece) for piece in pieces]
            made.append(own.join(directions) if directions else g)
        return grads.shaped(made), state._replace(
            mu=grads.tree(running_mean(mu, g, b1) for g, mu in zip(grads.arrays, mus, strict=True)),
            nu=grads.tree(nus) if has_nu else None,
            factors=grads.tree(factors),
            roots=grads.tree(roots),
        )

    return Rule(init, update)


def _share(b2: Scalar) -> Scalar:
    """The weight of the newest Gram matrix: that in a running mean, 1 in a sum."""
    if isinstance(b2, int | float):
        return 1 - b2 if b2 != 1 else 1.0
    return jnp.where(b2 == 1, 1, 1 - b2)


def _bias(b2: Scalar, step: Step) -> Callable[[DTypeLike], Scalar]:
    """The sum of the weights of all, by which a running mean is too small; 1 for a sum."""
    if isinstance(b2, int | float) and b2 == 1:
        return lambda dtype: 1.0
    return lambda dtype: jnp.where(jnp.asarray(b2 == 1), 1, step.bias(b2, dtype))


def _whitened(g: Array, axis: int, roots: Matrices) -> Array:
    """g multiplied by the roots of all other axes."""
    return multiplied(g, tuple(None if k == axis else r for k, r in enumerate(roots)))


def _renewed(
    roots: list[list[Matrices]],
    factors: list[list[Matrices]],
    due: Array,
    eps: Scalar,
    exponent: Scalar | None,
    bias: Callable[[DTypeLike], Scalar],
) -> list[list[Matrices]]:
    """The roots of the factors if due, else the old ones."""
    exponents = [
        1 / (2 * len(group)) if exponent is None else exponent
        for leaf in factors
        for group in leaf
        for _ in group
    ]
    grams: list[Array] = jax.tree.leaves(factors)
    if not grams:
        return roots

    def renew(old: list[Array]) -> tuple[None, list[Array]]:
        means = [lax.stop_gradient(f / cast(bias(real_dtype(f.dtype)), f.dtype)) for f in grams]
        new = inverse_roots(means, eps, exponents)
        pairs = zip(new, old, strict=True)
        return None, [jnp.where(here(due), finite_or(y, x), y) for x, y in pairs]

    old, structure = jax.tree.flatten(lax.stop_gradient(roots))
    new = now_and_then(anywhere(due), renew, lambda old: None, old)[1]
    made: list[list[Matrices]] = jax.tree.unflatten(structure, new)
    return made
