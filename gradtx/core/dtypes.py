"""The dtype policy: compute in float32 or wider, store in the dtype asked for, round once at the
end."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike, DTypeLike

# Until JAX 0.8 it was in `jax.experimental`.
_home: Any = jax if hasattr(jax, "enable_x64") else jax.experimental
enable_x64 = _home.enable_x64
# A number as a formula sees it: a Python number, which stays exact, or a scalar array.
Scalar = float | np.ndarray | jax.Array


@cache
def compute_dtype(*dtypes: DTypeLike) -> np.dtype:
    """The dtype in which to compute with arrays of these dtypes: float32 or wider."""
    # By size, not by JAX's promotion, which the user may have set to "strict".
    size, is_complex = 4, False
    for dtype in [np.dtype(dtype) for dtype in dtypes]:
        part = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
        size = max(size, part) if jnp.issubdtype(dtype, jnp.inexact) else size
        is_complex = is_complex or dtype.kind == "c"
    return np.dtype(f"c{2 * size}" if is_complex else f"f{size}")


@cache
def real_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype of the real part of a number of `dtype`: float32 for complex64."""
    return np.zeros((), dtype).real.dtype


def complex_dtype(dtype: DTypeLike) -> np.dtype:
    """The dtype of a complex number whose real part is of `dtype`: complex64 for float32."""
    dtype = np.dtype(dtype)
    if dtype.kind == "c":
        return dtype
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"a complex leaf cannot be kept in {dtype}: JAX has no complex {dtype}")
    return np.result_type(dtype, np.complex64)


def real_dtype_of(tree: Any) -> np.dtype:
    """The real dtype in which to compute with a whole tree: float32, or the widest in it."""
    return real_dtype(compute_dtype(*(x.dtype for x in jax.tree.leaves(tree))))


def scalar_dtype() -> np.dtype:
    """The dtype of scalars that belong to no array: float32, or float64 under x64."""
    return np.dtype(jnp.result_type(float))


def number_dtype(number: ArrayLike) -> np.dtype:
    """The dtype to compute with one hyperparameter in: an array's own, else `scalar_dtype`."""
    return np.dtype(getattr(number, "dtype", None) or scalar_dtype())


def is_inexact(x: Any) -> bool:
    """Whether an array's dtype is floating or complex."""
    return _is_inexact_dtype(x.dtype)


@cache
def _is_inexact_dtype(dtype: np.dtype) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.inexact))


def is_random_key(x: object) -> bool:
    """Whether x is a typed key, as `jax.random.key` makes it, or an array of keys."""
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def cast(x: Any, dtype: DTypeLike) -> jax.Array:
    """`x` in exactly `dtype`, never weakly typed; emits no operation if it already is."""
    if isinstance(x, jax.Array) and x.dtype == dtype and not x.weak_type:
        return x
    if isinstance(x, jax.ShapeDtypeStruct):
        return cast_shape(x, dtype)
    if np.iscomplexobj(x) and not jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(f"a complex array became {dtype}: its imaginary part would be lost")
    return lax.convert_element_type(x, dtype)


def cast_shape(x: jax.ShapeDtypeStruct, dtype: DTypeLike) -> Any:
    """`cast` for a `ShapeDtypeStruct`, which `init` may be given instead of a parameter."""
    return x.update(dtype=np.dtype(dtype))  # type: ignore[no-untyped-call]


def widen(x: jax.Array, dtype: np.dtype) -> jax.Array:
    """A floating array in the dtype of the computation: real arrays stay real if it is complex,
    and integers stay as they are."""
    if not is_inexact(x):
        return x
    return cast(x, dtype if jnp.issubdtype(x.dtype, jnp.complexfloating) else real_dtype(dtype))


def widen_tree(tree: Any) -> Any:
    """The tree with its floating arrays in float32 or wider."""

    def wide(x: Any) -> Any:
        arrays = jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct
        inexact = isinstance(x, arrays) and is_inexact(x)
        return cast(x, compute_dtype(x.dtype)) if inexact else x

    return jax.tree.map(wide, tree)


def drop_weak_type(x: Any) -> jax.Array:
    """`x` as an array that is not weakly typed, so that its aval is the same at every step."""
    array = x if isinstance(x, jax.Array) else jnp.asarray(x)
    return array if is_random_key(array) else cast(array, array.dtype)


def as_exact(number: float) -> float:
    """A Python number as it is, except that an int outside the range of int32 becomes a float."""
    fits = not isinstance(number, int) or -(2**31) <= number < 2**31
    return number if fits else float(number)


def bind_numbers(tree: Any, dtype: DTypeLike, where: str) -> Any:
    """A tree of hyperparameters, ready to compute with in `dtype`: arrays are cast to it.

    A Python number stays a Python number, so that `1 - b2` is rounded once, from float64. An array
    that is not a scalar is an error.
    """

    def bind(number: Any) -> Any:
        if isinstance(number, int | float):
            return as_exact(number)
        if np.ndim(number) != 0:
            raise ValueError(
                f"{where} must be a scalar when it is used, got an array of shape "
                f"{np.shape(number)}: map over the transformation with jax.vmap"
            )
        return cast(number, dtype)

    return jax.tree.map(bind, tree)
