"""The few functions of one array that the formulas share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core.dtypes import cast, complex_dtype, real_dtype


def zeros_like(param: jax.Array, dtype: Any = None) -> jax.Array:
    """Zeros shaped and placed like `param`: the usual first state.

    The state of a complex parameter is complex: `dtype` then is that of its two parts. Raises
    ValueError where JAX has no such complex dtype, as for bfloat16.
    """
    if dtype is not None and jnp.iscomplexobj(param):
        dtype = complex_dtype(dtype)
    return jnp.zeros_like(param, dtype=dtype)


def real_full_like(param: jax.Array, value: Any, dtype: Any = None) -> jax.Array:
    """A real number in the shape of `param`: a first second moment, real for complex params."""
    return jnp.full_like(param, value, dtype=dtype or real_dtype(param.dtype))


def infinity(dtype: Any) -> jax.Array:
    """An infinity, in a buffer of its own, for what is not known yet. No operation makes it: that
    would stop a run under `jax_debug_infs`."""
    return jax.device_put(np.asarray(np.inf, dtype))


def zeros_like_result(function: Callable[[jax.Array], Any], param: jax.Array) -> Any:
    """Zeros like what a function makes of `param`, placed as that is."""
    if isinstance(param, jax.ShapeDtypeStruct):
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, param))
    return jax.tree.map(jnp.zeros_like, function(param))


def abs_sq(x: jax.Array) -> jax.Array:
    """|x|^2, real for complex x."""
    if jnp.iscomplexobj(x):
        return jnp.square(x.real) + jnp.square(x.imag)
    return lax.square(x)


def magnitude(x: jax.Array) -> jax.Array:
    """|x|, real for complex x; its derivative at 0 is 0."""
    return jnp.abs(x)  # of a complex x not the root of a sum of squares, which leave float32


@jax.custom_jvp
def sqrt(x: jax.Array) -> jax.Array:
    """The square root, with derivative 0 at 0: gradients through an optimizer stay finite."""
    return lax.sqrt(x)


@sqrt.defjvp
def _sqrt_jvp(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
    (x,), (dx,) = primals, tangents
    root = sqrt(x)
    positive = root > 0
    return root, jnp.where(positive, dx / (2 * jnp.where(positive, root, 1)), 0)


def running_mean(mean: jax.Array, x: jax.Array, decay: Any) -> jax.Array:
    """decay * mean + (1 - decay) * x"""
    # A difference, since of a sum with a decay of 0.5 XLA makes 0.5 * (mean + x), a multiple of one
    # array, which it computes wherever it is used: from a copy of the old mean.
    return lax.sub(times(decay, mean), times(decay - 1, x))


# Unlike jnp's operators, which are functions of their own, those of lax are not traced anew for
# every shape: what every rule does is made of them.


def times(scalar: Any, x: jax.Array) -> jax.Array:
    """scalar * x"""
    return lax.mul(number_beside(x, scalar), x)


def plus(scalar: Any, x: jax.Array) -> jax.Array:
    """scalar + x"""
    return lax.add(number_beside(x, scalar), x)


def over_root(mean: jax.Array, square: jax.Array, eps: Any, eps_root: Any = 0) -> jax.Array:
    """mean / (sqrt(square + eps_root) + eps), the step of Adam and its kin"""
    if not is_zero(eps_root):
        square = plus(eps_root, square)
    return lax.div(mean, cast(plus(eps, sqrt(square)), mean.dtype))


def where_positive(function: Callable[[Any], Any], x: Any) -> Any:
    """function(x) where x > 0, otherwise 0; so is the derivative, whatever the function's at 0."""
    positive = x > 0
    return jnp.where(positive, function(jnp.where(positive, x, 1)), 0)


def quotient(x: Any, y: Any) -> Any:
    """x / y where y > 0, otherwise 0; so is the derivative."""
    return where_positive(lambda positive: x / positive, y)


def over_size(x: Any, size: Any) -> Any:
    """x / size where size > 0, otherwise x: for a size that is 0 only where x is, such as a norm.

    Unlike `quotient` it selects among sizes and not among elements of x, which are many more.
    """
    return x / jnp.where(size > 0, size, 1)


def number_beside(x: jax.Array, scalar: Any) -> Any:
    """The scalar in the dtype of x. Of two Python numbers `jnp.where` makes a float64 under x64."""
    known = isinstance(scalar, int | float)
    return np.asarray(scalar, x.dtype) if known else cast(scalar, x.dtype)


def is_zero(scalar: Any) -> bool:
    """Whether it is known to be 0."""
    return isinstance(scalar, int | float) and scalar == 0
