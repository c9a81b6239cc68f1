"""Bringing a value of an old state into the format, dtype and place of a new one."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.counts import start
from gradtx.core.dtypes import cast, drop_weak_type, is_inexact, is_random_key
from gradtx.core.leaves import KeyPath, describe, path_words
from gradtx.precision.formats import format_of, is_stored, name_of
from gradtx.precision.moments import encode
from gradtx.precision.narrow import key_of
from gradtx.precision.stored import decode_state


def misfit(old: Any, new: Any) -> tuple[str, str]:
    """(why an old array cannot become a new one, how it changes if it can); empty if nothing."""
    if is_random_key(old) or is_random_key(new):
        same = is_random_key(old) and is_random_key(new) and old.dtype == new.dtype
        return ("" if same and old.shape == new.shape else "another kind of random key"), ""
    before, after = _plain(old), _plain(new)
    fits = np.shape(before) == np.shape(after) and _kind(before) <= _kind(after)
    if not fits or (_kind(before) == 0) != (_kind(after) == 0):
        return f"was {describe(before)}, is {describe(after)}", ""
    formats = _format(old), _format(new)
    same = formats[0] == formats[1] or not is_inexact(after)
    return "", "" if same else f"{formats[0]} to {formats[1]}"


def _plain(x: Any) -> Any:
    """The shape and dtype of an array; for a stored one, once it is decoded."""
    return (
        jax.eval_shape(decode_state, x)
        if is_stored(x)
        else x
        if hasattr(x, "dtype")
        else np.asarray(x)
    )


def _kind(x: Any) -> int:
    """0 for whole numbers and booleans, 1 for floats, 2 for complex numbers."""
    return 2 if jnp.issubdtype(x.dtype, jnp.complexfloating) else int(is_inexact(x))


def _format(x: Any) -> str:
    return name_of(x) or str(_plain(x).dtype)


class Carrier:
    """Brings values into a new state, in which no buffer may appear twice.

    at_random: the paths of the arrays that are rounded at random where that loses bits.
    """

    def __init__(self, at_random: Collection[KeyPath]):
        self.at_random = at_random
        self.used: set[int] = set()

    def carried(self, old: Any, new: Any, path: KeyPath) -> Any:
        """The old value in the format and dtype of `new` and, where it has none yet, its place."""
        if is_stored(old) and format_of(old) == format_of(new):
            return jax.tree.map(self._placed, old, new)
        if is_stored(old):
            old = decode_state(old)
        form = format_of(new) if is_stored(new) or path in self.at_random else None
        if form is not None and format_of(old) != form:
            words = path_words(path, "migrate")
            old = encode(form, jnp.asarray(old), key_of(0, *words), start())
        return jax.tree.map(self._placed, old, new)

    def _placed(self, x: Any, new: Any) -> Any:
        """An array in the dtype and the place of the new one. If the new one is on one device but
        not committed to it, an array on one device stays where it is."""
        if is_random_key(x) or not hasattr(new, "dtype"):
            return x
        known = isinstance(x, jax.Array)
        array = drop_weak_type(cast(jnp.asarray(x), new.dtype))
        if id(x) in self.used and array is x:
            array = jnp.copy(array)
        self.used.add(id(x))
        if isinstance(array, jax.core.Tracer) or isinstance(new, jax.core.Tracer):
            return array
        stays, bound = _lies_as(array, new), getattr(new, "committed", True)
        if len(array.sharding.device_set) == len(new.sharding.device_set) == 1:
            stays = stays or not bound
        if not stays or (bound and not known):
            return jax.device_put(array, new.sharding)
        return array


def _lies_as(x: jax.Array, new: jax.Array) -> bool:
    """Whether an array lies on the devices of another, on the same mesh if it is on one, and is
    divided in the same way if it has as many axes."""
    own, other = x.sharding, new.sharding
    if own.device_set != other.device_set:
        return False
    if getattr(own, "mesh", None) != getattr(other, "mesh", None):  # another place to `jit`
        return False
    return x.ndim != new.ndim or own.is_equivalent_to(other, x.ndim)
