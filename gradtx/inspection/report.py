"""What a training loop logs about a step, in one call and one pass."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core.dtypes import is_inexact
from gradtx.core.flat_updates import FlatUpdates
from gradtx.core.leaves import align, unboxed
from gradtx.core.mask import check_pattern
from gradtx.core.norms import norm_of, norms_and_counts
from gradtx.core.state import OptState, Params, Updates, is_named_tuple
from gradtx.core.transformation import TransformationLike
from gradtx.inspection.clips import Clip, Limit, clips_on
from gradtx.inspection.hyperparams import numbers_of
from gradtx.inspection.walk import Part, parts_of

__all__ = ["report"]

# The fields in which wrappers count the steps that they skipped.
_SKIPPED = ("skipped", "total_notfinite")
# The arguments that set the length of a step.
_RATES = ("learning_rate", "lr", "step_size", "step_size_fn")


def report(
    tx: TransformationLike,
    grads: Updates,
    updates: Updates,
    state: OptState,
    params: Params,
    groups: Mapping[str, str] | Sequence[str] = (),
) -> dict[str, Array]:
    """Measure a step for a log: norms, ratios, rates, what was clipped, skipped or not finite.

    | name                | what it is                                                           |
    | ------------------- | -------------------------------------------------------------------- |
    | `norm/grads`        | the norm of all gradients; `norm/updates` and `norm/params` likewise |
    | `ratio`             | norm/updates / norm/params, 0 where the parameters are 0             |
    | `nonfinite/grads`   | how many numbers are NaN or infinite; `nonfinite/updates`            |
    | `rate/adamw`        | each learning rate and step size, by its name in `hyperparams`       |
    | `clipped/clip`      | for each clip, the share of its numbers that it made smaller         |
    | `skipped/NAME`      | for each wrapper that counts skipped steps, how many so far          |

    With groups there are also `norm/grads/GROUP`, `norm/updates/GROUP`, `norm/params/GROUP` and
    `ratio/GROUP` for each.

    The clips are `clip`, `clip_by_block_rms`, `adaptive_grad_clip`, and `clip_by_global_norm`, for
    which the share is 0 or 1: its mean over steps is the share of steps that were clipped. A clip
    is reported if it sees the gradients themselves: the first of several in a row, none after an
    optimizer, and none inside `accumulate`, where it clips a mean. Inside wrappers that pass the
    gradients on, such as `finite_guard`, in a group or under a mask, it is reported for its leaves.

    It reads grads, updates and params once each, whatever it measures, and changes nothing: neither
    the state nor what a checkpoint holds. Call it in the jitted step: on GPU, XLA computes the
    norms where it has the numbers at hand anyway, as far as it can; on TPU and CPU it also writes
    the updates, which otherwise need not be stored.

    Args:
        tx: the transformation that made the updates, gradtx's.
        grads: the gradients that it was given.
        updates: what it made of them; for a step by `gradtx.step`, the change of the params.
        state: the state that the updates were made from. With the state after the update the rates
            are those of the next step, and skipped steps include this one.
        params: the parameters, before or after the step.
        groups: regular expressions, searched for in the leaf's path (`encoder/0/kernel`), in a
            dict by name or in a sequence, in which each is its own name. The first that is found
            decides, as in `partition`; a leaf without a group counts only in the totals.

    Returns: a flat dict of float32 scalars, for TensorBoard or Weights & Biases to take as it is.

    Raises: ValueError for trees that differ in structure, for an invalid pattern and for one that
    gets no leaf; and what `hyperparams` raises.

    Example:
        >>> tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1))
        >>> params = {"w": jnp.array([3.0, 4.0])}
        >>> state = tx.init(params)
        >>> updates, new_state = tx.update(params, state, params)
        >>> for name, number in gradtx.report(tx, params, updates, state, params).items():
        ...     print(f"{name} {number:.2f}")
        norm/grads 5.00
        norm/updates 0.10
        norm/params 5.00
        ratio 0.02
        nonfinite/grads 0.00
        nonfinite/updates 0.00
        rate/sgd 0.10
        clipped/clip_by_global_norm 1.00

    See also: `hyperparams`, `monitor`.
    """
    parts = parts_of("report", tx, state)
    grads, updates, params = (unboxed(_fast(x)) for x in (grads, updates, params))
    flat = FlatUpdates.of("report", grads, params)
    leaves = _Leaves.of(flat, align(flat.leaves, updates, "report: updates", "the gradients"))
    clips = clips_on(flat, parts)
    labels = _labels(_patterns(groups), flat.leaves.paths)
    cells = [
        _Cell.of(leaves, own, next((clip for clip in clips if own[0] in clip.leaves), None))
        for own in _alike(leaves, labels, clips)
    ]
    found: dict[str, Any] = dict(_norms(cells))
    for group in dict.fromkeys(x for x in labels if x is not None):
        inside = [cell for cell in cells if labels[cell.leaves[0]] == group]
        found |= {f"{name}/{group}": x for name, x in _norms(inside).items()}
    for i, name in enumerate(("grads", "updates")):
        found[f"nonfinite/{name}"] = sum(cell.nonfinite[i] for cell in cells)
    found |= _rates(parts)
    found |= {f"clipped/{clip.name}": _share(clip, cells) for clip in clips}
    found |= _skipped(parts)
    return {name: jnp.asarray(x, np.float32) for name, x in found.items()}


def _fast(tree: Any) -> Any:
    """The tree at which gradients are taken, of the pair that `lookahead` has."""
    return getattr(tree, "fast", tree) if is_named_tuple(tree) else tree


def _rates(parts: Sequence[Part]) -> dict[str, Any]:
    found = {}
    for part in (part for part in parts if not part.place.recipe):
        for name, x in numbers_of(part).items():
            argument = name.removeprefix(f"{part.name}.")
            if argument in _RATES:
                found[f"rate/{part.name}"] = x
            elif argument.endswith("_learning_rate"):
                found[f"rate/{name}"] = x
    return found


def _skipped(parts: Sequence[Part]) -> dict[str, Any]:
    counts = ((part, getattr(part.own, name, None)) for part in parts for name in _SKIPPED)
    return {f"skipped/{part.name}": count for part, count in counts if count is not None}


# -- groups of leaves ------------------------------------------------------------------------------


def _patterns(groups: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    """The patterns by the names of their groups."""
    if isinstance(groups, str):
        raise TypeError(
            f"report: groups must be a dict or a sequence, got {groups!r}: [{groups!r}]"
        )
    patterns = dict(groups if isinstance(groups, Mapping) else zip(groups, groups, strict=True))
    for pattern in patterns.values():
        check_pattern("report: groups", pattern)
    return patterns


def _labels(patterns: Mapping[str, str], paths: Sequence[str]) -> list[str | None]:
    """The group of each leaf."""
    labels = [
        next((name for name, pattern in patterns.items() if re.search(pattern, path)), None)
        for path in paths
    ]
    idle = [name for name in patterns if name not in labels]
    if idle and paths:
        shown = ", ".join(paths[:8]) + (", ..." if len(paths) > 8 else "")
        raise ValueError(
            f"report: the group {idle[0]!r}, {patterns[idle[0]]!r}, gets no leaf; the paths are: "
            f"{shown}"
        )
    return labels


# -- sums ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Leaves:
    """The arrays of each leaf, None where there is none."""

    grads: Sequence[Any]
    updates: Sequence[Any]
    params: Sequence[Any]

    @classmethod
    def of(cls, flat: FlatUpdates, updates: Sequence[Any]) -> _Leaves:
        """The leaves that are floating or complex, and have a gradient and an update."""
        triples = zip(flat.values, updates, flat.params, strict=True)
        kept = [
            t if all(x is not None and is_inexact(x) for x in t) else (None,) * 3 for t in triples
        ]
        return cls(*map(list, zip(*kept, strict=True))) if kept else cls((), (), ())


def _alike(leaves: _Leaves, labels: Sequence[str | None], clips: Sequence[Clip]) -> list[list[int]]:
    """The leaves, grouped where one sum over several is enough."""
    found: dict[Any, list[int]] = {}
    for i, grad in enumerate(leaves.grads):
        if grad is not None:
            clip = next((clip for clip in clips if i in clip.leaves), None)
            alone = i if clip is not None and clip.limit.above is not None else None
            found.setdefault((labels[i], id(clip), alone), []).append(i)
    return list(found.values())


@dataclass(frozen=True)
class _Cell:
    """The sums over some leaves, all in one group and under one clip.

    grads, updates, params: norms, of leaves or of their units. nonfinite: how many numbers are not
    finite, of grads and of updates. clipped: how many a clip made smaller.
    """

    leaves: Sequence[int]
    size: int
    grads: Array
    updates: Array
    params: Array
    nonfinite: tuple[Array, Array]
    clipped: Array

    @classmethod
    def of(cls, leaves: _Leaves, own: Sequence[int], clip: Clip | None) -> _Cell:
        """Sum over the leaves with these indices."""
        grads, updates, params = (
            [x[i] for i in own] for x in (leaves.grads, leaves.updates, leaves.params)
        )
        limit = Limit() if clip is None else clip.limit
        axes = None if limit.above is None else [limit.axes(grads[0].shape)]
        counts = [_is_nonfinite] if limit.counts is None else [_is_nonfinite, limit.counts]
        of_grads = norms_and_counts(grads, counts, axes)
        of_updates = norms_and_counts(updates, [_is_nonfinite])
        of_params = norms_and_counts(params, [], axes)[..., 0]
        size, clipped = sum(x.size for x in grads), jnp.zeros(())
        if limit.counts is not None:
            clipped = jnp.sum(of_grads[..., 2])
        elif limit.above is not None:
            clipped = size * jnp.mean(limit.above(of_grads[..., 0], of_params, size))
        nonfinite = jnp.sum(of_grads[..., 1]), jnp.sum(of_updates[..., 1])
        return cls(own, size, of_grads[..., 0], of_updates[..., 0], of_params, nonfinite, clipped)


def _is_nonfinite(x: Array) -> Array:
    return ~jnp.isfinite(x)


def _norms(cells: Sequence[_Cell]) -> dict[str, Array]:
    """The norms over all cells, and the ratio."""
    grads, updates, params = (
        norm_of([getattr(cell, name).ravel() for cell in cells])
        for name in ("grads", "updates", "params")
    )
    return {
        "norm/grads": grads.value,
        "norm/updates": updates.value,
        "norm/params": params.value,
        "ratio": params.below(1).times(updates.value),
    }


def _share(clip: Clip, cells: Sequence[_Cell]) -> Array | float:
    """The share of its numbers that the clip made smaller."""
    own = [cell for cell in cells if cell.leaves[0] in clip.leaves]
    if clip.limit.max_norm is not None:
        return norm_of([cell.grads.ravel() for cell in own]).value > clip.limit.max_norm
    return sum(cell.clipped for cell in own) / max(sum(cell.size for cell in own), 1)
