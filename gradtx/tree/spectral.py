"""The largest eigenvalue of a matrix, and inverse roots of a matrix."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradtx.core.dtypes import cast, compute_dtype
from gradtx.core.hyperparameters import PositiveInt, kind_of
from gradtx.tree.arithmetic import length, norm, scale, sub, vdot
from gradtx.tree.types import Tree

__all__ = ["matrix_inverse_pth_root", "power_iteration"]

# (v, A v, the eigenvalue, the number of products)
_Iterate = tuple[Tree, Tree, jax.Array, jax.Array]
# (steps, M, H, H before, the error, whether it falls)
_Root = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]


def power_iteration(
    matrix: ArrayLike | Callable[[Tree], Tree],
    *,
    v0: Tree | None = None,
    num_iters: ArrayLike = 100,
    error_tolerance: ArrayLike = 1e-6,
    precision: lax.PrecisionLike = lax.Precision.HIGHEST,
    key: jax.Array | None = None,
) -> tuple[jax.Array, Tree]:
    """Find the eigenvalue of largest magnitude of a matrix, and its eigenvector of norm 1.

        v <- A v / |A v|,   lambda = <v, A v>,   until |A v - lambda v| < error_tolerance * |lambda|

    The eigenvalue of a matrix of zeros is 0. For a Hessian, give the function v -> H v.

    Args:
        matrix: an array (n, n), or a function v -> A v on trees like v0.
        v0: the first v. For an array, None means uniform random numbers in [-1, 1] from `key`; a
            function needs one.
        num_iters: the largest number of products to take.
        error_tolerance: how small the residual has to be, relative to the eigenvalue. A smaller one
            takes more products; float32 does not reach much below 1e-6.
        precision: that of the products with an array, as in `jnp.matmul`.
        key: a key of `jax.random`, for the first v; None means `jax.random.key(0)`.

    Returns: the eigenvalue and the eigenvector.

    Raises: ValueError for a function without v0.

    Example:
        >>> matrix = jnp.array([[2.0, 1.0], [1.0, 2.0]])
        >>> eigenvalue, vector = gradtx.power_iteration(matrix)
        >>> print(np.asarray(eigenvalue).round(3), np.abs(vector).round(3))
        3.0 [0.707 0.707]

    See also: `matrix_inverse_pth_root`.

    References: Golub & Van Loan, Matrix Computations, section 7.3.
    """
    if callable(matrix):
        if v0 is None:
            raise ValueError("power_iteration: a function needs v0, a tree that it can be given")
        product = matrix
    else:
        product, v0 = _as_product(jnp.asarray(matrix), v0, precision, key)

    def step(carry: _Iterate) -> _Iterate:
        _, av, _, i = carry
        v = _normalized(av)
        av = product(v)
        return v, av, vdot(v, av), i + 1

    def goes_on(carry: _Iterate) -> jax.Array:
        v, av, eigenvalue, i = carry
        error = norm(sub(av, scale(eigenvalue, v)))
        return (i < num_iters) & ((i == 0) | (error > error_tolerance * jnp.abs(eigenvalue)))

    v = _normalized(v0)
    av = product(v)
    start = (v, av, jnp.zeros_like(vdot(v, av)), jnp.zeros((), jnp.int32))
    _, av, eigenvalue, _ = lax.while_loop(goes_on, step, start)
    return eigenvalue, _normalized(av)


def _as_product(
    a: jax.Array, v0: jax.Array | None, precision: lax.PrecisionLike, key: jax.Array | None
) -> tuple[Callable[[jax.Array], jax.Array], jax.Array]:
    """v -> A v in float32 or wider, and the first v."""
    a = cast(a, compute_dtype(a.dtype))
    if v0 is None:
        key = jax.random.key(0) if key is None else key
        v0 = jax.random.uniform(key, a.shape[-1:], a.real.dtype, -1.0, 1.0)
    v0 = cast(v0, compute_dtype(a.dtype, jnp.asarray(v0).dtype))
    return lambda v: jnp.matmul(a, v, precision=precision), v0


def _normalized(tree: Tree) -> Tree:
    """The tree divided by its norm; zeros stay zeros."""
    factor = length(tree).below(1)

    def leaf(x: jax.Array) -> jax.Array:
        wide = cast(x, compute_dtype(x.dtype))
        return cast(factor.times(wide), x.dtype)

    return jax.tree.map(leaf, tree)


def matrix_inverse_pth_root(
    matrix: ArrayLike,
    p: int,
    num_iters: ArrayLike = 100,
    ridge_epsilon: ArrayLike = 1e-6,
    error_tolerance: ArrayLike = 1e-6,
    precision: lax.PrecisionLike = lax.Precision.HIGHEST,
) -> tuple[jax.Array, jax.Array]:
    """Compute an inverse root of a symmetric positive semidefinite matrix, and the error left.

        (A + ridge I)^(-1/p)

    A coupled Newton iteration, in float32 or wider: with alpha = -1 / p

        M <- ((1 - alpha) I + alpha M)^p M          (M starts at z (A + ridge I))
        H <- H ((1 - alpha) I + alpha M)            (H starts at z^(1/p) I)

    M tends to I and H to the root; z = (1 + p) / (2 |A + ridge I|), and ridge is ridge_epsilon
    times the largest eigenvalue. The error is the largest magnitude of an element of M - I. The
    iteration ends when it is at most error_tolerance, when it grows, or after num_iters steps.

    Args:
        matrix: the matrix A, an array (n, n).
        p: which root, a whole number >= 1: 1 is the inverse, 2 the inverse square root.
        num_iters: the largest number of steps.
        ridge_epsilon: what is added to the diagonal, relative to the largest eigenvalue. A larger
            one damps the directions of small eigenvalues more, and makes the iteration shorter.
        error_tolerance: the error at which the iteration ends.
        precision: that of the products, as in `jnp.matmul`. A lower one is faster and leaves a
            larger error.

    Returns: the root, in the dtype of the matrix, and the error.

    Raises: ValueError for any other p.

    Example:
        >>> root, error = gradtx.matrix_inverse_pth_root(jnp.diag(jnp.array([4.0, 16.0])), p=2)
        >>> print(np.asarray(jnp.diag(root)).round(3), error < 1e-3)
        [0.5  0.25] True

    See also: `power_iteration`.

    References: Higham, Functions of Matrices, 2008, equation 7.18,
    https://doi.org/10.1137/1.9780898717778
    """
    p = kind_of(PositiveInt).convert("matrix_inverse_pth_root: p", p)
    a = jnp.asarray(matrix)
    given_dtype = a.dtype
    a = cast(a, compute_dtype(a.dtype))
    largest, _ = power_iteration(a, num_iters=100, error_tolerance=1e-6, precision=precision)
    ridge = ridge_epsilon * jnp.maximum(largest, 1e-16)
    identity = jnp.eye(a.shape[0], dtype=a.dtype)
    damped = a + cast(ridge, a.dtype) * identity
    if a.shape[0] == 1:
        return cast(damped ** (-1 / p), given_dtype), jnp.zeros((), a.dtype)
    alpha = -1 / p

    def step(carry: _Root) -> _Root:
        i, m, h, _, error, _ = carry
        factor = (1 - alpha) * identity + alpha * m
        new_m = jnp.matmul(_power(factor, p, precision), m, precision=precision)
        new_h = jnp.matmul(h, factor, precision=precision)
        new_error = jnp.max(jnp.abs(new_m - identity))
        # The error may grow a little before it falls.
        return i + 1, new_m, new_h, h, new_error, new_error < error * 1.2

    def goes_on(carry: _Root) -> jax.Array:
        i, _, _, _, error, falls = carry
        return (i < num_iters) & (error > error_tolerance) & falls

    largest = jnp.max(jnp.abs(damped))  # divided out, since squares of small elements may be 0
    z = (1 + p) / (2 * jnp.linalg.norm(damped / largest)) / largest
    m, h = damped * z, identity * z ** (1 / p)
    first_error = jnp.max(jnp.abs(m - identity))
    start = (jnp.zeros((), jnp.int32), m, h, h, first_error, jnp.asarray(True))
    _, m, h, previous, error, falls = lax.while_loop(goes_on, step, start)
    return cast(jnp.where(falls, h, previous), given_dtype), error


def _power(a: jax.Array, p: int, precision: lax.PrecisionLike) -> jax.Array:
    """a^p by repeated squaring."""
    result, square = None, a
    while p:
        if p % 2:
            result = square if result is None else jnp.matmul(result, square, precision=precision)
        p //= 2
        if p:
            square = jnp.matmul(square, square, precision=precision)
    assert result is not None
    return result
