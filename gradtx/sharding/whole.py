"""A function of whole arrays, called on the pieces that devices hold, with its derivatives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax

from gradtx.core.dtypes import is_inexact
from gradtx.core.meshes.manual import each_shard, varies_over, varying
from gradtx.sharding.pieces import Division, Piece, axes_of, whole_shape
from gradtx.sharding.program import run_on_pieces

Function = Callable[..., list[jax.Array]]


def call_on_pieces(
    function: Function,
    arrays: Sequence[jax.Array],
    divisions: Sequence[Division],
    results: Sequence[Division],
) -> list[jax.Array]:
    """The pieces of function(*wholes), from pieces of its arguments.

    results: how each of the results is to be divided.
    """
    wholes = [_whole(x, division) for x, division in zip(arrays, divisions, strict=True)]

    # Derivatives are taken of the function of whole arrays; its parts may have their own rules.
    @jax.custom_jvp
    def call(*arrays: jax.Array) -> list[jax.Array]:
        pieces = [Piece.of(x, own) for x, own in zip(arrays, divisions, strict=True)]
        made = run_on_pieces(jax.make_jaxpr(function)(*wholes), pieces)
        pairs = zip(arrays, divisions, strict=True)
        # Over these axes each device has a problem of its own.
        apart = frozenset[str]().union(*(varies_over(x) - axes_of(own) for x, own in pairs))
        return [_typed(p.divided(own), own, apart) for p, own in zip(made, results, strict=True)]

    @call.defjvp
    def derivative(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
        sloped, count = [i for i, x in enumerate(wholes) if is_inexact(x)], len(primals)
        made = jax.eval_shape(function, *wholes)

        def both(*arrays: jax.Array) -> list[jax.Array]:
            own, given = arrays[:count], iter(arrays[count:])
            dots = [next(given) if is_inexact(x) else _no_slope(x) for x in own]
            value, slope = jax.jvp(lambda *xs: function(*xs), own, tuple(dots))
            return [*value, *_inexact(slope, value)]

        found = call_on_pieces(
            both,
            [*primals, *(tangents[i] for i in sloped)],
            [*divisions, *(divisions[i] for i in sloped)],
            [*results, *_inexact(results, made)],
        )
        value, given = found[: len(made)], iter(found[len(made) :])
        return value, [next(given) if is_inexact(x) else _no_slope(x) for x in value]

    with each_shard():
        return call(*arrays)


def _whole(x: jax.Array, division: Division) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(whole_shape(x.shape, division), x.dtype)  # type: ignore[no-untyped-call]


def _no_slope(x: Any) -> np.ndarray:
    return np.zeros(np.shape(x), jax.dtypes.float0)


def _inexact(chosen: Iterable[Any], arrays: Iterable[Any]) -> list[Any]:
    """Those that belong to arrays with a derivative."""
    return [y for y, x in zip(chosen, arrays, strict=True) if is_inexact(x)]


def _typed(x: jax.Array, division: Division, apart: frozenset[str]) -> jax.Array:
    """A result whose type says that it varies over the axes that cut it, and over no others but
    those in `apart`: older versions of JAX do not see that what was gathered is the same
    everywhere."""
    ordered = tuple(sorted(varies_over(x) - axes_of(division) - apart))
    if not ordered:
        return varying(x, axes_of(division))
    first = jax.numpy.where(lax.axis_index(ordered) == 0, x, jax.numpy.zeros_like(x))
    made: jax.Array = lax.psum(first, ordered)  # type: ignore[no-untyped-call]
    return varying(made.astype(x.dtype), axes_of(division))
