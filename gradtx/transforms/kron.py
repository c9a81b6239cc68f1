"""PSGD with Kronecker preconditioners: whitening that is fitted by gradient descent on a group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from gradtx.core.counts import increment, start
from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import Scalar, cast, real_dtype, scalar_dtype
from gradtx.core.finite import all_finite
from gradtx.core.holding import anywhere, now_and_then, row_major
from gradtx.core.hyperparameters import (
    Decay,
    NonNegativeInt,
    Positive,
    PositiveFraction,
    PositiveInt,
    Seed,
)
from gradtx.core.meshes.shares import in_shares
from gradtx.core.norms import rms_of
from gradtx.core.numerics import (
    abs_sq,
    number_beside,
    over_size,
    real_full_like,
    running_mean,
    times,
    zeros_like,
)
from gradtx.core.rule import Rule
from gradtx.core.state import Count, Factors, LikeParams, Params, Updates
from gradtx.core.step import Step
from gradtx.schedules.training import precond_update_prob_schedule
from gradtx.transforms.kronecker import (
    Gradients,
    Matrices,
    adjoints,
    gram,
    multiplied,
    product,
    spectral_norm,
)

__all__ = ["ScaleByKronState", "scale_by_kron"]

Method = Literal["kron", "procrustes"]
MemorySaveMode = Literal["one_diag", "all_diag"]

# The default, made once: all such values are equal anyway.
PROBABILITY = precond_update_prob_schedule()
# A limit on the update's root mean square, which is 1 for a white update. The authors of "kron"
# allow 1.1. Li's own code allows 2, and 10 for single elements. The authors of "procrustes" set no
# limit: 10 leaves their steps alone, except where a gradient of 1e18 would ruin a run.
_LARGEST_RMS: dict[Method, float] = {"kron": 1.1, "procrustes": 10.0}
# The probability that a fit first rescales the factors of each array to equal sizes.
_BALANCED = 0.01
# How many products with a vector estimate the largest singular value of a matrix.
_FEW, _MORE = 2, 5


class ScaleByKronState(NamedTuple):
    """The running mean of the gradient (mu); for each axis of each leaf a factor of its
    preconditioner, a matrix or, if it is diagonal, a vector (preconditioners); a running bound on
    the curvature of each factor's fit, a scalar (bounds, None with method="kron"); and the number
    of updates since the preconditioners were last due (update_counter)."""

    count: Count
    mu: LikeParams
    preconditioners: Factors
    bounds: Factors
    update_counter: Array


class _Fit(NamedTuple):
    """The factors of one leaf and the bounds of their fits, if they have any."""

    factors: Matrices
    bounds: tuple[Array, ...] | None


class _Form(NamedTuple):
    """Which axes have a triangular factor, and which a diagonal one."""

    longest: int
    least_axes: int
    saved: MemorySaveMode | None

    def shapes(self, x: Array) -> tuple[tuple[int, ...], ...]:
        """The shape of the factor of each axis of an array, (n,) if it is diagonal."""
        shape = x.shape or (1,)
        return tuple(
            (n,) if self._is_diagonal(shape, axis) else (n, n)
            for axis, n in enumerate(shape)
            if x.size
        )

    def identities(self, x: Array, scale: Scalar) -> Matrices:
        """Factors whose product is `scale` times the identity."""

        def identity(shape: tuple[int, ...]) -> Array:
            if x.ndim == len(shape) == 1:
                return jnp.ones_like(x)  # placed where the parameter is
            return (jnp.ones if len(shape) == 1 else jnp.eye)(shape[0], dtype=x.dtype)

        own = scale ** (1 / max(x.ndim, 1))
        return tuple(times(own, identity(shape)) for shape in self.shapes(x))

    def _is_diagonal(self, shape: tuple[int, ...], axis: int) -> bool:
        last_longest = max(range(len(shape)), key=lambda k: (shape[k], k))
        saved = self.saved == "all_diag" or (self.saved == "one_diag" and axis == last_longest)
        long = shape[axis] > self.longest or shape[axis] == 1
        return saved or long or len(shape) < self.least_axes


@per_tree
def scale_by_kron(
    b1: Decay = 0.9,
    *,
    method: Method = "kron",
    preconditioner_update_probability: PositiveFraction = PROBABILITY,
    precond_lr: Positive = 0.1,
    precond_init_scale: Positive = 1.0,
    max_size_triangular: PositiveInt = 8192,
    min_ndim_triangular: NonNegativeInt = 2,
    memory_save_mode: MemorySaveMode | None = None,
    momentum_into_precond_update: bool = True,
    seed: Seed = 0,
) -> Rule:
    """Whiten the momentum with one factor for each axis, fitted to the gradients.

        mu <- b1 * mu + (1 - b1) * g,         m = mu / (1 - b1^t)
        Q_a <- one step of a fit that makes Q_1 m Q_2^H white                    when it is due
        u  = Q_1^H Q_1 m Q_2^H Q_2                                          (for a matrix)
        u <- u * min(1, 1.1 / rms(u))                       10 in place of 1.1 for "procrustes"

    The fit for method="kron", with V normal noise, Q triangular, C = A A^H for the whitened
    gradient A unfolded along an axis, and D the same for Q_1^-H V Q_2^-1:

        Q <- Q - precond_lr * triu(C - D) Q / |C + D|

    For method="procrustes", with W = u, C = W W^H, and T the number of elements of a slice:

        Q <- Q - precond_lr * (C Q - T Q) / L,       L <- max(|C| + T, 0.9 L + 0.1 (|C| + T))
        Q <- Q turned towards a Hermitian matrix by a rotation

    Unlike in Shampoo nothing is decomposed, and there are no running means of Gram matrices. A leaf
    whose gradient is zero keeps its factors. Derivatives treat the factors as constants.

    Args:
        method: how the factors are fitted: "kron" in the group of triangular matrices, which needs
            random numbers and triangular solves; "procrustes" by matrix products alone
        preconditioner_update_probability: the share of updates in which the factors are fitted, a
            number or a schedule. A fit is due whenever 1 / probability updates have passed.
        precond_lr: the learning rate of the fits
        precond_init_scale: the first preconditioner is this multiple of the identity
        max_size_triangular: longer axes have diagonal factors
        min_ndim_triangular: arrays of fewer axes have diagonal factors
        memory_save_mode: "one_diag" gives the longest axis of every array a diagonal factor,
            "all_diag" all axes
        momentum_into_precond_update: fit to the momentum; False fits to the gradient
        seed: the seed of the random numbers, combined with the path of the leaf and the count

    State: mu, 4 bytes a parameter, and for each axis of length n a matrix of n x n or a vector: for
    a square matrix 12 bytes a parameter in all.

    Raises: ValueError for any other method or memory_save_mode.

    Example:
        >>> grads = jnp.array([[100.0, 0.0], [0.0, 1.0]])
        >>> tx = gradtx.scale_by_kron(method="procrustes", preconditioner_update_probability=1.0)
        >>> state, update = tx.init(grads), jax.jit(tx.update)
        >>> for _ in range(100):
        ...     updates, state = update(grads, state)
        >>> print(np.diag(updates).round(1))
        [1.4 1.4]

    See also: `kron`, the optimizer; `scale_by_shampoo`; `precond_update_prob_schedule`.

    References: Li, 2018, https://arxiv.org/abs/1512.04202; Li, 2022,
    https://arxiv.org/abs/2211.04422
    """
    form = _Form(max_size_triangular, min_ndim_triangular, memory_save_mode)
    has_bounds = method == "procrustes"

    def init(params: Params) -> ScaleByKronState:
        return ScaleByKronState(
            count=None,
            mu=jax.tree.map(zeros_like, params),
            preconditioners=jax.tree.map(lambda x: form.identities(x, precond_init_scale), params),
            bounds=jax.tree.map(_zeros, params) if has_bounds else None,
            update_counter=start(),
        )

    def update(
        updates: Updates, state: ScaleByKronState, step: Step
    ) -> tuple[Updates, ScaleByKronState]:
        grads = Gradients.of(updates, state.mu, "scale_by_kron")
        words = [np.stack(own) for own in grads.path_words("kron")]
        own = partial(update_of_share, step)
        return in_shares(own, updates, state, ("mu", "preconditioners", "bounds"), words)

    def update_of_share(
        step: Step, updates: Updates, state: ScaleByKronState, words: Sequence[Any]
    ) -> tuple[Updates, ScaleByKronState]:
        grads = Gradients.of(updates, state.mu, "scale_by_kron")
        momenta = zip(grads.beside(state.mu), grads.arrays, strict=True)
        mus = [running_mean(mu, g, b1) for mu, g in momenta]
        means = [_with_axes(step.debias(mu, b1)) for mu in mus]
        seen = means if momentum_into_precond_update else [_with_axes(g) for g in grads.arrays]
        counter = increment(state.update_counter)
        due = _is_due(counter, preconditioner_update_probability)

        def fitted(old: list[_Fit]) -> tuple[None, list[_Fit]]:
            keys, balances = _random(seed, step, words)
            new = []
            for x, fit, key in zip(lax.stop_gradient(seen), old, keys, strict=True):
                if method == "kron":
                    made = _fitted_to_noise(fit, x, key, balances, precond_lr)
                else:
                    made = _fitted_by_products(fit, x, precond_lr)
                new.append(_select(due & jnp.any(x != 0) & all_finite(made), made, fit))
            return None, new

        held = _fits(grads, state, form, has_bounds)
        held = now_and_then(anywhere(due), fitted, lambda old: None, lax.stop_gradient(held))[1]
        made = [
            _of_rms(_LARGEST_RMS[method], _whitened(m, fit.factors))
            for m, fit in zip(means, held, strict=True)
        ]
        return grads.shaped(made), state._replace(
            mu=grads.tree(mus),
            preconditioners=grads.tree(fit.factors for fit in held),
            bounds=grads.tree(fit.bounds for fit in held) if has_bounds else None,
            update_counter=jnp.where(due, 0, counter),
        )

    return Rule(init, update)


def _is_due(counter: Array, probability: Scalar) -> Array:
    """Whether 1 / probability updates have passed."""
    time = cast(counter, scalar_dtype())
    return time >= number_beside(time, 1 / probability)


def _with_axes(x: Array) -> Array:
    """x, with a scalar as a vector of one element."""
    return x.reshape(x.shape or (1,))


def _zeros(x: Array) -> tuple[Array, ...]:
    """The first bound of each factor of an array."""
    if not x.ndim:
        return (real_full_like(x, 0),)
    return tuple(jnp.zeros((), real_dtype(x.dtype)) for _ in x.shape if x.size)


def _fits(grads: Gradients, state: ScaleByKronState, form: _Form, has_bounds: bool) -> list[_Fit]:
    """The factors of each leaf, and the bounds of their fits."""
    shapes = [form.shapes(g) for g in grads.arrays]
    bounds = [tuple(() for _ in own) if has_bounds else None for own in shapes]
    fields = (
        grads.fitting(state.preconditioners, "preconditioners", shapes),
        grads.fitting(state.bounds, "bounds", bounds),
    )
    return [_Fit(*x) for x in zip(*fields, strict=True)]


def _random(seed: Any, step: Step, words: Sequence[Any]) -> tuple[list[Array], Array]:
    """A key for each leaf, from its words and the count, and whether factors are balanced now."""
    key = jax.random.fold_in(jax.random.key(seed), step.count)
    keys = [jax.random.fold_in(jax.random.fold_in(key, first), second) for first, second in words]
    return keys, jax.random.uniform(key) < _BALANCED


def _of_rms(largest: float, u: Array) -> Array:
    """u, shortened to a root mean square of at most `largest`."""
    return rms_of(u).shrinking_to(largest).times(u)


def _select(flag: Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.where(flag, x, y), new, old)


def _whitened(x: Array, factors: Matrices) -> Array:
    """Q^H Q x along each axis."""
    return multiplied(multiplied(x, adjoints(factors)), factors)


def _balanced(factors: Matrices) -> Matrices:
    """The factors rescaled to equal largest elements: only their product matters."""
    if len(factors) < 2:
        return factors
    sizes = [jnp.max(jnp.abs(q)) for q in factors if q is not None]
    mean = jnp.exp(jnp.mean(jnp.log(jnp.stack(sizes))))
    return tuple(
        None if q is None else cast(mean / size, q.dtype) * q
        for q, size in zip(factors, sizes, strict=True)
    )


def _squares(x: Array, axis: int, diagonal: bool) -> Array:
    """The Gram matrix along an axis, or its diagonal."""
    if not diagonal:
        return gram(x, axis)
    return jnp.sum(abs_sq(x), axis=tuple(k for k in range(x.ndim) if k != axis))


def _fitted_to_noise(old: _Fit, g: Array, key: Array, balances: Array, rate: Scalar) -> _Fit:
    """One step of the fit of triangular factors, against normal noise. balances: whether they are
    rescaled to equal sizes first."""
    factors = _select(balances, _balanced(old.factors), old.factors)
    noise = jax.random.normal(key, g.shape, g.dtype)
    damping = np.finfo(np.float32).eps ** 0.5 * jnp.mean(jnp.abs(g))
    a, b = multiplied(g + times(damping, noise), adjoints(factors)), noise
    for axis, q in enumerate(factors):
        b = _solved(q, b, axis)
    made = []
    for axis, q in enumerate(factors):
        assert q is not None
        c, d = (_squares(x, axis, q.ndim == 1) for x in (a, b))
        if q.ndim == 1:
            made.append(q - times(rate / jnp.max(c + d), cast(c - d, q.dtype) * q))
        else:
            size = spectral_norm(c + d, _FEW)
            made.append(q - times(rate / size, product(jnp.triu(c - d), q)))
    return _Fit(tuple(made), None)


def _solved(q: Array | None, x: Array, axis: int) -> Array:
    """y with Q^H y = x along an axis, for an upper triangular or diagonal Q.

    Solvers take column-major matrices, and the transpose of a row-major array is one: nothing is
    copied into another order if the axis is the first or the last.
    """
    assert q is not None
    if q.ndim == 1:
        return x / q.conj().reshape([-1 if k == axis else 1 for k in range(x.ndim)])
    by_columns = row_major(q).mT
    if axis == 0:
        right_hand_sides = x.reshape(len(q), -1).mT
        y = lax.linalg.triangular_solve(
            by_columns, right_hand_sides, lower=True, transpose_a=True, conjugate_a=True
        )
        return y.mT.reshape(x.shape)
    moved = jnp.moveaxis(x, axis, -1)
    right_hand_sides = moved.reshape(-1, len(q)).mT
    y = lax.linalg.triangular_solve(
        by_columns, right_hand_sides, left_side=True, lower=True, conjugate_a=True
    )
    return jnp.moveaxis(y.mT.reshape(moved.shape), -1, axis)


def _fitted_by_products(old: _Fit, m: Array, rate: Scalar) -> _Fit:
    """One step of the fit by products alone."""
    balanced = _balanced(old.factors)
    w = _whitened(m, balanced)
    factors, bounds = [], []
    for axis, (q, before) in enumerate(zip(balanced, old.bounds or (), strict=True)):
        assert q is not None
        wanted = math.prod(w.shape) / w.shape[axis]
        c = _squares(w, axis, q.ndim == 1)
        size = (jnp.max(c) if q.ndim == 1 else spectral_norm(c, _MORE)) + wanted
        bound = jnp.maximum(size, 0.9 * before + 0.1 * size)
        power = cast(c, q.dtype) * q if q.ndim == 1 else product(c, q)
        q = q - times(rate / bound, power - times(wanted, q))
        factors.append(q if q.ndim == 1 else _turned(q))
        bounds.append(bound)
    return _Fit(tuple(factors), tuple(bounds))


def _turned(q: Array) -> Array:
    """q rotated towards a Hermitian matrix, by the first terms of a skew one's exponential."""
    skew = q.mT.conj() - q
    size = spectral_norm(skew, _MORE)
    skew = over_size(skew, size)
    once = product(skew, q)
    twice = product(skew, once)
    slope, curvature = (jnp.trace(x).real for x in (once, twice))
    best = jnp.clip(-slope / jnp.where(curvature < 0, curvature, -1), 0, 0.5)
    angle = cast(jnp.where(curvature < 0, best, 0.5), q.dtype)
    turned = q + angle * once + (angle * angle / 2) * twice
    return jnp.where(size > 0, turned, q)
