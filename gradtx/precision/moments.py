"""The part of an update that reads and makes stored moments, and its plain form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core.dtypes import cast
from gradtx.core.elementwise import Part, Shape
from gradtx.core.meshes.manual import each_shard
from gradtx.precision.blocks import Cut
from gradtx.precision.formats import Format, Stored, code_of
from gradtx.precision.narrow import uniform


@dataclass(frozen=True)
class Moments:
    """A part of an update that reads and makes moments that are stored in blocks.

    reads: for each of the part's arrays its format, or None where it is not stored; makes: the
    formats of the moments that it makes; replaces: for each of its results, the number of the array
    whose memory it takes, if that may be overwritten. kernel: whether a kernel may run it.
    """

    part: Part
    reads: tuple[Format | None, ...]
    makes: tuple[Format, ...]
    replaces: tuple[int | None, ...]
    kernel: bool

    @property
    def cuts(self) -> set[Cut]:
        """How its formats that have blocks cut the leaf."""
        codes = map(code_of, (*self.reads, *self.makes))
        return {code.cut(self.part.shape) for code in codes if code}


class Given(NamedTuple):
    """The arrays of one leaf.

    arrays: what the part reads, stored or not; keys: for the random bits of each moment that it
    makes; step_count: the number of this step, an int32 scalar.
    """

    arrays: Sequence[Stored]
    scalars: Sequence[jax.Array]
    keys: Sequence[jax.Array]
    step_count: jax.Array


Made = tuple[list[Stored], list[jax.Array]]


def after_another(what: Moments, given: Given) -> Made:
    """The plain form: decode the moments, run the part, encode what it made."""
    pairs = zip(what.reads, given.arrays, strict=True)
    decoded: list[Any] = [form.decode(x) if form else x for form, x in pairs]
    made = what.part(decoded, given.scalars)
    moments = zip(what.makes, made, given.keys, strict=False)
    return [encode(form, x, key, given.step_count) for form, x, key in moments], made[
        len(what.makes) :
    ]


# Jitted so that eager calls compile it only once.
@partial(jax.jit, static_argnums=0)
def encode(form: Format, x: jax.Array, key: jax.Array, count: jax.Array) -> Stored:
    """A moment in its format."""

    def encoded(x: jax.Array) -> Stored:
        return form.encode(x, dither(form, key, x.shape))

    def materialised(x: jax.Array) -> Stored:
        # XLA for CPU would recompute the new moment from the old codes wherever it is used, and
        # copy the codes to do so: 10 temporary bytes per parameter. A branch gets the moment as an
        # array: 8 bytes. XLA does not know that a count is never negative, and keeps the branch.
        return lax.cond(count >= 0, encoded, partial(_zeros, encoded), x)

    x = cast(x, np.float32)
    on_cpu = materialised if form.code else encoded
    with each_shard():  # whose blocks are its own
        return lax.platform_dependent(x, cpu=on_cpu, default=encoded)


def dither(form: Format, key: jax.Array, shape: Shape) -> jax.Array | None:
    """The random numbers with which a moment is rounded to its format; None for one that rounds to
    nearest."""
    return uniform(key, shape, form.bits) if form.bits else None


def _zeros(function: Callable[[jax.Array], Stored], x: jax.Array) -> Stored:
    """Zeros like the function's result."""
    return jax.tree.map(jnp.zeros_like, jax.eval_shape(function, x))
