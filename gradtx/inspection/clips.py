"""The clips of a transformation that see the gradients themselves, and what each makes smaller."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.combinators.cautious import cautious
from gradtx.combinators.conditional import (
    apply_if_finite,
    conditionally_mask,
    conditionally_transform,
    finite_guard,
)
from gradtx.combinators.freeze import Freeze
from gradtx.combinators.inject import Injected
from gradtx.combinators.lookahead import Lookahead
from gradtx.combinators.mechanic import mechanize
from gradtx.combinators.schedule_free import schedule_free
from gradtx.combinators.stateless import identity
from gradtx.core.flat_updates import FlatUpdates
from gradtx.core.launches import Axes
from gradtx.core.recipe import Recipe
from gradtx.core.transformation import GradientTransformation
from gradtx.inspection.walk import Part
from gradtx.precision.rounding import master_weights
from gradtx.precision.store import store
from gradtx.transforms.clipping import (
    adaptive_grad_clip,
    axes_of_units,
    clip,
    clip_by_block_rms,
    clip_by_global_norm,
)
from gradtx.transforms.monitoring import monitor, snapshot


@dataclass(frozen=True)
class Limit:
    """What a clip makes smaller: all numbers, if their norm is above `max_norm`; those for which
    `counts` is true; or those of a unit for which `above(norm of the gradient, norm of the
    parameter, size of the array)` is true. A unit of an array extends over `axes(shape)`."""

    max_norm: Any = None
    counts: Callable[[Array], Array] | None = None
    above: Callable[[Array, Array, int], Array] | None = None
    axes: Callable[[tuple[int, ...]], Axes] = lambda shape: tuple(range(len(shape)))


@dataclass(frozen=True)
class Clip:
    """A clip, its name, and the leaves on which it acts."""

    name: str
    leaves: frozenset[int]
    limit: Limit


def clips_on(flat: FlatUpdates, parts: Sequence[Part]) -> list[Clip]:
    """The clips that see the gradients themselves; a leaf has one at most.

    The parts are followed in the order in which they run. A part that only looks at the
    gradients, or passes them on to what is inside it, leaves them unchanged for the parts after it.
    Any other part changes them, as a clip does.
    """
    present = {i for i, value in enumerate(flat.values) if value is not None}
    unchanged, found = set(present), []
    for part in parts:
        tx = part.transformation
        if isinstance(tx, Recipe) or not all(map(_hands_on, part.place.inside)):
            continue
        selected = flat.selections.of(part.place.masks)
        own = {i for i in present if selected[i]}
        if isinstance(tx, Freeze):
            present -= own  # the parts after it see no gradient there
        elif not _hands_on(tx):
            limit = _LIMITS.get(tx.definition)
            if limit is not None and own and own <= unchanged:
                found.append(
                    Clip(part.name, frozenset(own), limit(**{**tx.arguments, **part.numbers}))
                )
            unchanged -= own
    return found


def _hands_on(tx: GradientTransformation) -> bool:
    """Whether it passes the gradients unchanged to what is inside it and after it."""
    return isinstance(tx, Injected | Lookahead) or tx.definition in _HANDING_ON


_HANDING_ON: frozenset[Any] = frozenset(
    {
        *(identity, monitor, snapshot),
        *(apply_if_finite, conditionally_mask, conditionally_transform, finite_guard),
        *(cautious, master_weights, mechanize, schedule_free, store),
    }
)


def _by_value(max_delta: Any) -> Limit:
    return Limit(counts=lambda grad: jnp.abs(grad) > max_delta)


def _by_norm(max_norm: Any) -> Limit:
    return Limit(max_norm=max_norm)


def _by_rms(threshold: Any) -> Limit:
    return Limit(above=lambda grad, param, size: grad > threshold * size**0.5)


def _by_unit(clipping: Any, eps: Any, axis: int | tuple[int, ...] | None) -> Limit:
    def axes(shape: tuple[int, ...]) -> Axes:
        own = axes_of_units(shape) if axis is None else axis
        return tuple(int(i) % len(shape) for i in np.atleast_1d(own))

    def above(grad: Array, param: Array, size: int) -> Array:
        return grad > clipping * jnp.maximum(param, eps)

    return Limit(above=above, axes=axes)


# For each definition, the function that makes the limit from its arguments.
_LIMITS: Mapping[Any, Callable[..., Limit]] = {
    clip: _by_value,
    clip_by_global_norm: _by_norm,
    clip_by_block_rms: _by_rms,
    adaptive_grad_clip: _by_unit,
}
