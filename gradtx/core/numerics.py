"""The few functions of one array that the formulas of rules share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from gradtx.core.dtypes import Scalar, cast, complex_dtype, real_dtype
from gradtx.core.meshes.placing import alike, seen_alike


def zeros_like(param: jax.Array, dtype: DTypeLike | None = None) -> jax.Array:
    """Make zeros shaped and placed like a parameter: the usual first state of a rule.

    Args:
        param: the parameter, an array.
        dtype: the dtype of the zeros; None means that of param. The state of a complex parameter
            is complex: this is then the dtype of its real part.

    Raises: ValueError if JAX has no such complex dtype, as for bfloat16.

    Example:
        >>> gradtx.zeros_like(jnp.ones(2, jnp.bfloat16), jnp.float32)
        Array([0., 0.], dtype=float32)
        >>> gradtx.zeros_like(jnp.ones(2, jnp.complex64), jnp.float32).dtype
        dtype('complex64')

    See also: `tree.zeros_like`, `per_leaf`.
    """
    if dtype is not None and jnp.iscomplexobj(param):
        dtype = complex_dtype(dtype)
    return alike(jnp.zeros_like(param, dtype=dtype), param)


def real_full_like(param: jax.Array, value: ArrayLike, dtype: DTypeLike | None = None) -> jax.Array:
    """`value` shaped like `param`, real even if `param` is complex: an initial second moment."""
    return alike(jnp.full_like(param, value, dtype=dtype or real_dtype(param.dtype)), param)


def infinity(dtype: DTypeLike) -> jax.Array:
    """Infinity, a scalar in a buffer of its own, to stand for a value that is not known yet.

    It is transferred, not computed: an operation that makes an infinity would stop a run under
    `jax_debug_infs`.
    """
    return jax.device_put(np.asarray(np.inf, dtype))


def zeros_like_result(function: Callable[[jax.Array], Any], param: jax.Array) -> Any:
    """A tree of zeros, shaped and placed like function(param)."""
    if isinstance(param, jax.ShapeDtypeStruct):
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, param))
    like = function(param)
    return jax.tree.map(lambda x: seen_alike(jnp.zeros_like(x), x), like)


def abs_sq(x: jax.Array) -> jax.Array:
    """|x|^2, real for complex x."""
    if jnp.iscomplexobj(x):
        return jnp.square(x.real) + jnp.square(x.imag)
    return lax.square(x)


def magnitude(x: jax.Array) -> jax.Array:
    """|x|, real for complex x; its derivative at 0 is 0."""
    return jnp.abs(x)  # sqrt(abs_sq(x)) of a complex x would overflow or underflow in float32


@jax.custom_jvp
def sqrt(x: jax.Array) -> jax.Array:
    """sqrt(x), with derivative 0 at 0, so that gradients through an optimizer stay finite."""
    return lax.sqrt(x)


@sqrt.defjvp
def _sqrt_jvp(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
    (x,), (dx,) = primals, tangents
    root = sqrt(x)
    positive = root > 0
    return root, jnp.where(positive, dx / (2 * jnp.where(positive, root, 1)), 0)


def running_mean(mean: jax.Array, x: jax.Array, decay: Scalar) -> jax.Array:
    """decay * mean + (1 - decay) * x, elementwise; mean and x have one shape and dtype.

    decay: a scalar in [0, 1].
    """
    # Written as a difference: XLA would rewrite a sum with decay 0.5 as 0.5 * (mean + x), fuse that
    # into every reader as a multiple of one array, and so keep a copy of the old mean.
    return lax.sub(times(decay, mean), times(decay - 1, x))


# The operations that every rule uses are written with lax: unlike jnp's operators, which are jitted
# functions, lax's are not traced again for every shape.


def times(scalar: Scalar, x: jax.Array) -> jax.Array:
    """scalar * x, in x's dtype"""
    return lax.mul(number_beside(x, scalar), x)


def plus(scalar: Scalar, x: jax.Array) -> jax.Array:
    """scalar + x, in x's dtype"""
    return lax.add(number_beside(x, scalar), x)


def divide_by_rms(
    mean: jax.Array, square: jax.Array, eps: Scalar, eps_root: Scalar = 0
) -> jax.Array:
    """mean / (sqrt(square + eps_root) + eps), elementwise: the step of Adam and its relatives.

    square may be real where mean is complex.
    """
    if not is_zero(eps_root):
        square = plus(eps_root, square)
    return lax.div(mean, cast(plus(eps, sqrt(square)), mean.dtype))


def where_positive(function: Callable[[jax.Array], jax.Array], x: float | jax.Array) -> jax.Array:
    """function(x) where x > 0, else 0 with derivative 0, even if the function's own derivative is
    infinite there."""
    positive = x > 0
    return jnp.where(positive, function(jnp.where(positive, x, 1)), 0)


def quotient(x: float | jax.Array, y: float | jax.Array) -> jax.Array:
    """x / y where y > 0, else 0 with derivative 0."""
    return where_positive(lambda positive: x / positive, y)


def over_size(x: jax.Array, size: jax.Array) -> jax.Array:
    """x / size where size > 0, else x: for a size that is 0 only where x is, such as a norm.

    Unlike `quotient`, it selects among sizes, not among the elements of x, which are many more.
    """
    return x / jnp.where(size > 0, size, 1)


def number_beside(x: jax.Array, scalar: Scalar) -> jax.Array | np.ndarray:
    """The scalar in x's dtype. (`jnp.where` of two Python numbers would be float64 under x64.)"""
    if isinstance(scalar, int | float):
        return np.asarray(scalar, x.dtype)
    return cast(scalar, x.dtype)


def is_zero(scalar: Scalar) -> bool:
    """Whether the scalar is a Python 0, known when the program is traced."""
    return isinstance(scalar, int | float) and scalar == 0
