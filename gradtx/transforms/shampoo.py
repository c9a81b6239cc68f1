"""Shampoo: gradients multiplied by inverse roots of the running Gram matrices of each axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
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
from gradtx.core.meshes.shares import in_shares
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
from gradtx.core.state import Count, Factors, LikeParams, Params, RootedMoment, Updates
from gradtx.core.step import Step
from gradtx.transforms.kronecker import (
    Blocks,
    Gradients,
    Matrices,
    factor_dtype_for,
    finite_or,
    gram,
    inverse_roots,
    multiplied,
)

__all__ = ["ScaleByShampooState", "scale_by_shampoo"]

Grafting = Literal["adam", "rmsprop", "adagrad", "sgd"]


class ScaleByShampooState(NamedTuple):
    """The running mean of the gradient (mu) and the second moment of the grafting method (nu, None
    if it has none), shaped like the parameter; for each group of equal blocks of a leaf and each
    axis the running mean of Gram matrices (factors) and their inverse roots (roots)."""

    count: Count
    mu: RootedMoment
    nu: LikeParams
    factors: Factors
    roots: Factors


class _Decays(NamedTuple):
    """The decays of the running means of the gradient and of the Gram matrices; and the weight of
    the former relative to the newest gradient in a step, None for b1."""

    b1: Scalar
    b2: Scalar
    b3: Scalar | None


class _Leaf(NamedTuple):
    """The state of one leaf, its factors and roots for each group of its blocks."""

    blocks: Blocks
    mu: Array
    nu: Array | None
    factors: list[Matrices]
    roots: list[Matrices]


class _Graft(NamedTuple):
    """The method that the length of a step is taken from."""

    method: Grafting | None
    b2: Scalar
    eps: Scalar

    @property
    def has_nu(self) -> bool:
        """Whether it keeps a second moment."""
        return self.method not in (None, "sgd")

    def next_nu(self, nu: Array | None, g: Array) -> Array | None:
        """Its second moment after g."""
        if nu is None:
            return None
        square = abs_sq(g)
        return nu + square if self.method == "adagrad" else running_mean(nu, square, self.b2)

    def step_on(self, m: Array, nu: Array | None, step: Step) -> Array:
        """n, its step on m."""
        if nu is None:
            return m
        square = step.debias(nu, self.b2) if self.method == "adam" else nu
        return divide_by_rms(m, square, self.eps)


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

    Roots are due on step start_preconditioning_step, and after it on every
    precondition_frequency-th. Before it the step is that of the grafting method. Arrays are cut
    into blocks, each with its own factors and its own |n| / |d|. Scalars have no roots and only
    take the length from the grafting method.

    A matrix of gradients is whitened from both sides, as full-matrix AdaGrad would with a
    covariance that is a Kronecker product. Grafting takes the length of a step from a method whose
    learning rates are known, and the direction from here. Derivatives treat the roots as constants.

    Args:
        b2: the decay of the factors; 1 sums them, as AdaGrad does.
        b3: the weight of the momentum relative to the newest gradient; None means b1. A smaller one
            looks ahead, as Nesterov momentum does.
        eps: a multiple of the identity that is added before the root is taken. Eigenvalues that are
            then below the rounding error of the largest are raised to that error.
        precondition_frequency: how many steps pass before the roots are recomputed. Larger is
            cheaper.
        start_preconditioning_step: the first step with roots; None means precondition_frequency.
            Before it the steps are those of the grafting method.
        grafting: the method that the length of a step is taken from: "adam" divides m by the root
            of the running mean of g^2, "rmsprop" by the same without bias correction, "adagrad" by
            the root of the sum, "sgd" not at all; None keeps the length of d
        grafting_b2: the decay of the second moment of the grafting method
        grafting_eps: a number added to the root of that second moment
        max_preconditioner_dim: the longest side of the blocks that arrays are cut into
        exponent: the exponent p of the inverse root of each factor; None means 1 / (2 axes). 0.5
            whitens along each axis on its own.
        merge_small_dims: join neighbouring axes, from the last on, while their product is at most
            max_preconditioner_dim. A matrix that is small enough is then one vector.
        kl: compute the Gram matrix of an axis from the gradient whitened along the others by the
            last roots, which fits the factors by minimising a Kullback-Leibler divergence

    State: mu and nu, 8 bytes a parameter, and for each axis of a block of length n two matrices of
    n x n: for a square matrix that is one block 24 bytes a parameter in all.
    `store` keeps only nu in fewer bits; mu only by a pattern, {"^mu": "bfloat16+8"}, and in no
    fewer: rounding adds directions that no gradient has had, which the roots, above all those of
    vectors, amplify a thousandfold.

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
    decays, graft = _Decays(b1, b2, b3), _Graft(grafting, grafting_b2, grafting_eps)

    def blocks_of(x: Array) -> Blocks:
        return Blocks.of(x.shape, max_preconditioner_dim, merge=merge_small_dims)

    def init(params: Params) -> ScaleByShampooState:
        made = partial(map_leaves, "scale_by_shampoo", tree=params)
        return ScaleByShampooState(
            count=None,
            mu=made(zeros_like),
            nu=made(lambda x: real_full_like(x, 0)) if graft.has_nu else None,
            factors=made(lambda x: blocks_of(x).zeros(factor_dtype_for(x, factor_dtype))),
            roots=made(lambda x: blocks_of(x).identities(factor_dtype_for(x, factor_dtype))),
        )

    def update(
        updates: Updates, state: ScaleByShampooState, step: Step
    ) -> tuple[Updates, ScaleByShampooState]:
        own = partial(update_of_share, step)
        return in_shares(own, updates, state, ("mu", "nu", "factors", "roots"))

    def update_of_share(
        step: Step, updates: Updates, state: ScaleByShampooState, _: Sequence[Any]
    ) -> tuple[Updates, ScaleByShampooState]:
        grads = Gradients.of(updates, state.mu, "scale_by_shampoo")
        early = step.count < start
        due = ((step.count % every == 0) & ~early) | (step.count == start)
        old = _leaves(grads, state, [blocks_of(g) for g in grads.arrays], graft)
        new = [
            _with_gradient(g, leaf, decays, graft, kl)
            for g, leaf in zip(grads.arrays, old, strict=True)
        ]
        new = _with_roots(new, due, eps, exponent, _bias(b2, step))

        def direction(g: Array, old: _Leaf, new: _Leaf) -> Array:
            m = _ahead(g, old, new, decays, step)
            groups = (new.blocks.split(x) for x in (m, graft.step_on(m, new.nu, step)))
            made = [
                _direction(m, n, roots, early, grafted=grafting is not None)
                for m, n, roots in zip(*groups, new.roots, strict=True)
            ]
            return new.blocks.join(made) if made else g

        return grads.shaped(map(direction, grads.arrays, old, new)), _state(grads, state, new)

    return Rule(init, update)


def _leaves(
    grads: Gradients, state: ScaleByShampooState, blocks: Sequence[Blocks], graft: _Graft
) -> list[_Leaf]:
    """The state of each leaf, for its blocks."""
    shapes = [own.matrices for own in blocks]
    fields = (
        grads.beside(state.mu),
        grads.fitting(state.nu, "nu", [g.shape if graft.has_nu else None for g in grads.arrays]),
        grads.fitting(state.factors, "factors", shapes),
        grads.fitting(state.roots, "roots", shapes),
    )
    return [_Leaf(*x) for x in zip(blocks, *fields, strict=True)]


def _state(
    grads: Gradients, old: ScaleByShampooState, leaves: Sequence[_Leaf]
) -> ScaleByShampooState:
    """The inverse of `_leaves`."""
    return old._replace(
        mu=grads.tree(leaf.mu for leaf in leaves),
        nu=None if old.nu is None else grads.tree(leaf.nu for leaf in leaves),
        factors=grads.tree(leaf.factors for leaf in leaves),
        roots=grads.tree(leaf.roots for leaf in leaves),
    )


def _with_gradient(g: Array, old: _Leaf, decays: _Decays, graft: _Graft, kl: bool) -> _Leaf:
    """The moments and the factors updated with g, and the roots as they are."""
    share = _share(decays.b2)

    def next_factor(f: Array, g: Array, axis: int, roots: Matrices) -> Array:
        """b2 * F_a + (1 - b2) * gram_a(g)"""
        seen = _whitened(g, axis, roots) if kl else g
        return lax.add(times(decays.b2, f), times(share, gram(seen, axis, batch=1)))

    return old._replace(
        mu=running_mean(old.mu, g, decays.b1),
        nu=graft.next_nu(old.nu, g),
        factors=[
            tuple(next_factor(f, x, axis, roots) for axis, f in enumerate(own) if f is not None)
            for x, own, roots in zip(old.blocks.split(g), old.factors, old.roots, strict=True)
        ],
    )


def _ahead(g: Array, old: _Leaf, new: _Leaf, decays: _Decays, step: Step) -> Array:
    """m = (b3 * mu_before + (1 - b3) * g) / (1 - b3 * b1^(t-1))"""
    b1, _, b3 = decays
    if b3 is None:
        return step.debias(new.mu, b1)
    before = 1 - Step(step.count - 1).bias(b1, real_dtype(g.dtype))
    return running_mean(old.mu, g, b3) / cast(1 - b3 * before, g.dtype)


def _direction(m: Array, n: Array, roots: Matrices, early: Array, *, grafted: bool) -> Array:
    """R_1 m R_2 for each block of a group. grafted: as long as n, and n itself while early."""
    d = multiplied(m, roots)
    if not grafted:
        return d
    of_n, of_d = (norm_over(x, range(1, x.ndim)).value for x in (n, d))
    return jnp.where(early, n, over_size(d, of_d) * cast(of_n, d.dtype))


def _share(b2: Scalar) -> Scalar:
    """The weight of the newest Gram matrix: 1 - b2 in a running mean, 1 in a sum."""
    if isinstance(b2, int | float):
        return 1 - b2 if b2 != 1 else 1.0
    return jnp.where(b2 == 1, 1, 1 - b2)


def _bias(b2: Scalar, step: Step) -> Callable[[DTypeLike], Scalar]:
    """The sum of all weights, the factor by which a running mean is too small; 1 for a sum."""
    if isinstance(b2, int | float) and b2 == 1:
        return lambda dtype: 1.0
    return lambda dtype: jnp.where(jnp.asarray(b2 == 1), 1, step.bias(b2, dtype))


def _whitened(g: Array, axis: int, roots: Matrices) -> Array:
    """g multiplied by the roots of all other axes."""
    return multiplied(g, tuple(None if k == axis else r for k, r in enumerate(roots)))


def _with_roots(
    leaves: list[_Leaf],
    due: Array,
    eps: Scalar,
    exponent: Scalar | None,
    bias: Callable[[DTypeLike], Scalar],
) -> list[_Leaf]:
    """The leaves with the roots of their factors, (F_a / bias + eps I)^(-p), if due."""
    factors: list[Array] = jax.tree.leaves([leaf.factors for leaf in leaves])
    if not factors:
        return leaves
    exponents = [
        1 / (2 * len(group)) if exponent is None else exponent
        for leaf in leaves
        for group in leaf.factors
        for _ in group
    ]

    def renew(old: list[Array]) -> tuple[None, list[Array]]:
        means = [lax.stop_gradient(f / cast(bias(real_dtype(f.dtype)), f.dtype)) for f in factors]
        new = inverse_roots(means, eps, exponents)
        pairs = zip(new, old, strict=True)
        return None, [jnp.where(here(due), finite_or(y, x), y) for x, y in pairs]

    old, structure = jax.tree.flatten(lax.stop_gradient([leaf.roots for leaf in leaves]))
    new = now_and_then(anywhere(due), renew, lambda old: None, old)[1]
    roots = jax.tree.unflatten(structure, new)
    return [leaf._replace(roots=own) for leaf, own in zip(leaves, roots, strict=True)]
