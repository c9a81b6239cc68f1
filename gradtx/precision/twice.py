"""`in_blocks` for GPU: the part is run twice, once for the scales alone, and once for the rest.

If the part ran once, a new moment, which both a reduction and what the reduction scales read, would
be stored in between. In the shape of the blocks everything fuses into one kernel. Where the last
block of a row is shorter, blocks are padded to compute their scales; what is written has the shape
of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import lax

from gradtx.core.dtypes import cast
from gradtx.core.elementwise import Part, Shape, Variable
from gradtx.precision.blocks import Cut
from gradtx.precision.formats import Format, Stored, code_of
from gradtx.precision.moments import Given, Made, Moments, dither


def can_run_twice(what: Moments, given: Given) -> bool:
    """Whether some moment is in blocks, and all of them cut the leaf in the same way."""
    return len(what.cuts) == 1 and math.prod(what.part.shape) > 0


def run_twice(what: Moments, given: Given) -> Made:
    """The new moments, stored, and the other results of the part. The barrier keeps XLA from
    merging the two runs."""
    part, (cut,) = what.part, what.cuts
    formats = dict(zip(part.arrays, what.reads, strict=True))
    scalars = dict(zip(part.scalars, given.scalars, strict=True))
    pairs = zip(part.arrays, given.arrays, strict=True)
    pieces = {x: _pieces(cut, formats[x], y) for x, y in pairs}

    def run(part: Part, pieces: Mapping[Variable, Any], inside: Shape) -> list[jax.Array]:
        decoded = [_decode(cut, inside, formats[x], pieces[x]) for x in part.arrays]
        where = inside, partial(cut.positions, inside)
        made = part(decoded, [scalars[x] for x in part.scalars], where)
        return [cast(x, np.float32) for x in made[: part.wanted]] + made[part.wanted :]

    first = part.making(
        [x for x, form in zip(part.makes, what.makes, strict=False) if code_of(form)]
    )
    new = run(first, pieces, cut.blocks)
    scales = [cut.of_blocks(x, keeps_nan=True) for x in new]
    stored = {x: pieces[x] for x in first.arrays if formats[x]}
    barrier: Any = lax.optimization_barrier
    stored, scales = barrier((stored, scales))
    made = run(part, pieces | stored, cut.inside)
    known = iter(scales)
    moments = [
        _encode(cut, form, x, next(known) if code_of(form) else None, dither(form, key, x.shape))
        for form, x, key in zip(what.makes, made, given.keys, strict=False)
    ]
    return moments, [x.reshape(part.shape) for x in made[part.wanted :]]


def _pieces(cut: Cut, form: Format | None, x: Any) -> Any:
    """An array, stored or not, in the shape `cut.inside`; codes with their scales."""
    code = code_of(form)
    if code is None:
        return jax.tree.map(lambda x: x.reshape(cut.inside), x)
    codes, scales = code.take(x)
    return codes.reshape(cut.inside), cut.broadcast(scales)


def _decode(cut: Cut, inside: Shape, form: Format | None, pieces: Any) -> jax.Array:
    """What `_pieces` made, decoded, in the shape `inside`: `cut.inside` or `cut.blocks`."""
    code = code_of(form)
    shaped = cut.padded if inside == cut.blocks else lambda x: x
    if code is None:
        x = jax.tree.map(shaped, pieces)
        return form.decode(x) if form else x
    codes, scales = pieces
    return code.decode(shaped(codes), scales if inside == cut.blocks else cut.spread(scales))


def _encode(
    cut: Cut, form: Format, x: jax.Array, scales: jax.Array | None, dither: jax.Array | None
) -> Stored:
    """A moment in its format, in the shape of the leaf."""
    code = code_of(form)
    if code is None or scales is None:
        return jax.tree.map(lambda x: x.reshape(cut.shape), form.encode(x, dither))
    codes = code.encode(x, cut.spread(scales), dither).astype(code.dtype)
    return code.join(codes.reshape(cut.shape), cut.stored(scales))
