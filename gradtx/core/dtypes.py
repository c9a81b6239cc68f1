"""The dtype policy: compute in float32 or wider, store what is asked, round once on leaving."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


@cache
def compute_dtype(*dtypes: Any) -> np.dtype:
    """The dtype in which the maths of arrays of these dtypes is done: float32 or wider."""
    # By size, not by JAX's promotion: that may be set to "strict" and refuse.
    size, is_complex = 4, False
    for dtype in map(np.dtype, dtypes):
        part = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
        size = max(size, part) if jnp.issubdtype(dtype, jnp.inexact) else size
        is_complex = is_complex or dtype.kind == "c"
    return np.dtype(f"c{2 * size}" if is_complex else f"f{size}")


@cache
def real_dtype(dtype: Any) -> np.dtype:
    """The dtype of a real number beside numbers of `dtype`: float32 for complex64."""
    return np.zeros((), dtype).real.dtype


def complex_dtype(dtype: Any) -> np.dtype:
    """The dtype of a complex number whose parts are of `dtype`: complex64 for float32."""
    dtype = np.dtype(dtype)
    if dtype.kind == "c":
        return dtype
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"a complex leaf cannot be kept in {dtype}: JAX has no complex {dtype}")
    return np.result_type(dtype, np.complex64)


def real_dtype_of(tree: Any) -> np.dtype:
    """The dtype of real numbers that belong to a whole tree: float32, or the widest in it."""
    return real_dtype(compute_dtype(*(x.dtype for x in jax.tree.leaves(tree))))


def scalar_dtype() -> np.dtype:
    """The dtype of numbers that belong to no array: float32, or float64 under x64."""
    return np.dtype(jnp.result_type(float))


def number_dtype(number: Any) -> np.dtype:
    """The dtype of maths with one hyperparameter: an array's own, otherwise `scalar_dtype`."""
    return np.dtype(getattr(number, "dtype", None) or scalar_dtype())


def is_inexact(x: Any) -> bool:
    """Whether x is floating or complex."""
    return _is_inexact_dtype(x.dtype)


@cache
def _is_inexact_dtype(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.inexact))


def is_random_key(x: Any) -> bool:
    """Whether x is a key, or an array of keys, as `jax.random.key` makes it."""
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def cast(x: Any, dtype: Any) -> jax.Array:
    """`x` in exactly `dtype`, never weakly typed; no operation where it already is."""
    if isinstance(x, jax.Array) and x.dtype == dtype and not x.weak_type:
        return x
    if isinstance(x, jax.ShapeDtypeStruct):
        return cast_shape(x, dtype)
    if np.iscomplexobj(x) and not jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(f"a complex array became {dtype}: its imaginary part would be lost")
    return lax.convert_element_type(x, dtype)


def cast_shape(x: jax.ShapeDtypeStruct, dtype: Any) -> Any:
    """The shape of an array in `dtype`: `init` may be given shapes in place of parameters."""
    return x.update(dtype=np.dtype(dtype))  # type: ignore[no-untyped-call]


def widen(x: Any, dtype: Any) -> jax.Array:
    """A floating array in the dtype of the computation; real stays real beside complex."""
    if not is_inexact(x):
        return x
    return cast(x, dtype if jnp.issubdtype(x.dtype, jnp.complexfloating) else real_dtype(dtype))


def widen_tree(tree: Any) -> Any:
    """The arrays of a tree in float32 or wider."""

    def wide(x: Any) -> Any:
        arrays = jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct
        inexact = isinstance(x, arrays) and is_inexact(x)
        return cast(x, compute_dtype(x.dtype)) if inexact else x

    return jax.tree.map(wide, tree)


def strengthen(x: Any) -> jax.Array:
    """`x` as an array that is not weakly typed, so that its aval can stay the same for ever."""
    array = x if isinstance(x, jax.Array) else jnp.asarray(x)
    return array if is_random_key(array) else cast(array, array.dtype)


def as_exact(number: float) -> float:
    """A Python number as it is; a whole one that does not fit into JAX's int32 as a float."""
    fits = not isinstance(number, int) or -(2**31) <= number < 2**31
    return number if fits else float(number)


def bind_numbers(tree: Any, dtype: Any, where: str) -> Any:
    """Numbers ready for maths in `dtype`: arrays cast to it, Python numbers left exact.

    A Python number stays a Python number, so that `1 - b2` is rounded once, from float64.
    """

    def bind(number: Any) -> Any:
        if isinstance(number, int | float):
            return as_exact(number)
        if np.ndim(number) != 0:
            raise ValueError(
                f"{where} must be scalars when they are used, got shape {np.shape(number)}: "
                "map over the transformation with jax.vmap"
            )
        return cast(number, dtype)

    return jax.tree.map(bind, tree)
