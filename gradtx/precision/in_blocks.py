"""A leaf's rules and its stored moments in one pass: decoded, updated and encoded again.

A block's scale needs the whole block before its first number can be encoded, so that compilers keep
a float32 moment between the two. `in_blocks` runs the rules where the blocks are instead. What may
be run so is read from the rules' jaxpr: the part that works element by element.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core.dtypes import cast
from gradtx.core.elementwise import Part, Variable
from gradtx.precision.formats import FORMATS, Code, Stored, scales_of
from gradtx.precision.narrow import uniform

Arrays = Sequence[jax.Array]


class Moments(NamedTuple):
    """A part of an update that reads and makes moments that are stored in blocks.

    reads: for each of the part's arrays its format, or None where it is not stored; makes: the
    formats of what was wanted of the part.
    """

    part: Part
    reads: tuple[str | None, ...]
    makes: tuple[str, ...]

    @property
    def codes(self) -> list[Code]:
        """Those of all its formats."""
        names = [name for name in (*self.reads, *self.makes) if name]
        return [code for name in names if (code := FORMATS[name].code)]


class Given(NamedTuple):
    """The arrays of one leaf.

    arrays: what the part reads, stored or not; keys: for the random bits of each moment that it
    makes; count: the number of this step, an int32 scalar.
    """

    arrays: Sequence[Stored]
    scalars: Sequence[jax.Array]
    keys: Sequence[jax.Array]
    count: jax.Array


Made = tuple[list[Stored], list[jax.Array]]


@partial(jax.jit, static_argnums=0)
def in_blocks(what: Moments, given: Given) -> Made:
    """The new moments, stored, and what else the part makes.

    Jitted so that leaves of equal shape share its trace.
    """
    return _on_platform(what, given)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _on_platform(what: Moments, given: Given) -> Made:
    whole = partial(after_another, what)
    twice = partial(_twice, what) if _has_whole_blocks(what, given) else whole
    return lax.platform_dependent(given, cuda=twice, rocm=twice, default=whole)


@_on_platform.defjvp
def _derivative(what: Moments, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    return jax.jvp(partial(after_another, what), primals, tangents)


def after_another(what: Moments, given: Given) -> Made:
    """The plain form: decode the moments, run the part, encode what it made."""
    pairs = zip(what.reads, given.arrays, strict=True)
    made = what.part([FORMATS[name].decode(x) if name else x for name, x in pairs], given.scalars)
    moments = zip(what.makes, made, given.keys, strict=False)
    return [encode(name, x, key, given.count) for name, x, key in moments], made[len(what.makes) :]


def encode(name: str, x: jax.Array, key: jax.Array, count: jax.Array) -> Stored:
    """A moment in its format."""
    form = FORMATS[name]

    def encoded(x: jax.Array) -> Stored:
        return form.encode(x, uniform(key, x.shape, form.bits) if form.bits else None)

    def materialised(x: jax.Array) -> Stored:
        # XLA for CPU would recompute the new moment from the old codes wherever it is used, and
        # copy the codes to do so: 10 temporary bytes per parameter. A branch gets the moment as an
        # array: 8 bytes. XLA does not know that a count is never negative, and keeps the branch.
        return lax.cond(count >= 0, encoded, partial(_zeros, encoded), x)

    x = cast(x, np.float32)
    return lax.platform_dependent(x, cpu=materialised if form.code else encoded, default=encoded)


def _zeros(function: Callable[[jax.Array], Stored], x: jax.Array) -> Stored:
    """Zeros like the function's result."""
    return jax.tree.map(jnp.zeros_like, jax.eval_shape(function, x))


# -- GPU: twice, in the shape of the blocks --------------------------------------------------------


def _has_whole_blocks(what: Moments, given: Given) -> bool:
    """Whether the leaf can be cut into whole blocks, of one size for all of its moments."""
    sizes = {code.size for code in what.codes}
    return len(sizes) == 1 and math.prod(_shape(what, given)) % min(sizes) == 0


def _shape(what: Moments, given: Given) -> tuple[int, ...]:
    """That of the leaf."""
    name, x = what.reads[0], given.arrays[0]
    code = FORMATS[name].code if name else None
    whole: jax.Array = code.take(x)[0] if code else x
    return whole.shape


def _twice(what: Moments, given: Given) -> Made:
    """Run the part in the shape of the blocks, once for the scales alone and once for the rest.

    In one shape everything fuses into one kernel, but a moment that is read by a reduction and by
    what the reduction scales would be stored. The barrier keeps XLA from merging the two runs.
    """
    shape, size = _shape(what, given), what.codes[0].size
    blocks = (-1, size) if shape[-1] % size else (*shape[:-1], -1, size)

    def cut(name: str | None, x: Any) -> Any:
        code = FORMATS[name].code if name else None
        if code is None:
            return x.reshape(blocks)
        codes, scales = code.take(x)
        return codes.reshape(blocks), scales[..., None]

    def run(part: Part, pieces: Mapping[Variable, Any]) -> list[jax.Array]:
        arrays = []
        for x in part.arrays:
            name = formats[x]
            arrays.append(FORMATS[name].code.decode(*pieces[x]) if name else pieces[x])
        scalars = dict(zip(what.part.scalars, given.scalars, strict=True))
        return part(arrays, [scalars[x] for x in part.scalars])

    formats = dict(zip(what.part.arrays, what.reads, strict=True))
    pieces = {x: cut(formats[x], y) for x, y in zip(what.part.arrays, given.arrays, strict=True)}
    first = what.part.of_wanted
    scales = [scales_of(cast(x, np.float32), keeps_nan=True) for x in run(first, pieces)]
    read = {x: pieces[x] for x in first.arrays if formats[x]}
    read, scales = lax.optimization_barrier((read, scales))
    made = run(what.part, pieces | read)
    moments, others = made[: first.wanted], made[first.wanted :]
    stored = []
    for name, x, scale, key in zip(what.makes, moments, scales, given.keys, strict=True):
        form = FORMATS[name]
        x = cast(x, np.float32)
        codes = form.code.encode(x, scale, uniform(key, x.shape, form.bits)).reshape(shape)
        stored.append(form.code.join(codes, lax.squeeze(scale, (-1,))))
    return stored, [x.reshape(shape) for x in others]
