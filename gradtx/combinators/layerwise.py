"""Smaller steps for layers farther from the output."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradtx.core.definition import makes
from gradtx.core.hyperparameters import Fraction
from gradtx.core.leaves import Leaves, is_function
from gradtx.core.mask import broadcast_prefix, check_pattern
from gradtx.core.numerics import times
from gradtx.core.per_tree import TreeTransformation
from gradtx.core.state import OptState, Params, Updates
from gradtx.tree.types import Tree

__all__ = ["layerwise_lr_decay"]


class Layers(dict[str, tuple[int, float]]):
    """By path, the layer of each leaf (0 at the input) and the factor of its updates; prints as a
    table."""

    def __str__(self) -> str:
        width = max(map(len, self), default=0)
        return "\n".join(
            f"{path:{width}}  layer {layer:3d}  x {factor:.6g}"
            for path, (layer, factor) in self.items()
        )


class LayerwiseDecay(TreeTransformation):
    """Multiplies the updates of each leaf by a number that depends on its layer."""

    _for_users = (*TreeTransformation._for_users, "layers")

    def _check(self) -> None:
        super()._check()
        for pattern in _patterns(self.by) or ():
            check_pattern("layerwise_lr_decay", pattern)

    @property
    def begins_with_params(self) -> bool:
        """init checks that every leaf is in a layer."""
        return True

    def layers(self, params: Params) -> Layers:
        """The layer and the factor of each leaf, by path; prints as a table.

        Raises: ValueError for a leaf that is in no layer.
        """
        leaves = Leaves.of(params)
        below = _distances(self.by, leaves, complete=True)
        last = max((b for b in below if b is not None), default=0)
        pairs = zip(leaves.paths, below, strict=True)
        return Layers((p, (last - b, float(self.decay) ** b)) for p, b in pairs if b is not None)

    def _init(self, params: Params) -> OptState:
        leaves = Leaves.of(params)
        if leaves.values:
            _distances(self.by, leaves, complete=True)
        return super()._init(params)


def _patterns(by: Any) -> tuple[str, ...] | None:
    strings = isinstance(by, tuple | list) and by and all(isinstance(x, str) for x in by)
    return tuple(by) if strings else None


def _distances(by: Any, leaves: Leaves, *, complete: bool = False) -> list[int | None]:
    """How many layers each leaf is from the last; None for an absent leaf.

    complete: whether the tree is whole, so that a pattern without a leaf is an error.
    """
    patterns = _patterns(by)
    if patterns is None:
        found: list[Any] = _given(by, leaves)
    else:
        found = [_place(patterns, path) for path in leaves.paths]
    bare = [
        path or "the root"
        for path, place, x in zip(leaves.paths, found, leaves.values, strict=True)
        if x is not None and place is None
    ]
    if bare:
        raise ValueError(
            f"layerwise_lr_decay: no layer is given for {', '.join(bare[:20])}"
            + (", ..." if len(bare) > 20 else "")
        )
    if patterns is not None:
        if complete:
            _check_used(patterns, found, leaves.paths)
        found = _ranks(found)
    last = max((place for place in found if place is not None), default=0)
    return [None if place is None else last - place for place in found]


def _place(patterns: tuple[str, ...], path: str) -> tuple[int, int] | None:
    """The first pattern found in the path, and the number that its group caught, -1 if none."""
    for i, pattern in enumerate(patterns):
        if match := re.search(pattern, path):
            caught = next((g for g in match.groups() if g is not None), None)
            if caught is not None and not caught.isdecimal():
                raise ValueError(
                    f"layerwise_lr_decay: the group of {pattern!r} caught {caught!r} in {path}; "
                    "it must catch the layer's number"
                )
            return i, -1 if caught is None else int(caught)
    return None


def _ranks(places: list[tuple[int, int] | None]) -> list[int | None]:
    """Places numbered from 0 in sorted order."""
    order = {place: i for i, place in enumerate(sorted({p for p in places if p is not None}))}
    return [None if place is None else order[place] for place in places]


def _check_used(patterns: tuple[str, ...], places: list[Any], paths: list[str]) -> None:
    """Refuse a pattern that gets no leaf."""
    used = {place[0] for place in places if place is not None}
    idle = [pattern for i, pattern in enumerate(patterns) if i not in used]
    if idle:
        shown = ", ".join(paths[:8]) + (", ..." if len(paths) > 8 else "")
        raise ValueError(
            f"layerwise_lr_decay: the pattern {idle[0]!r} gets no leaf; the paths are: {shown}"
        )


def _given(by: Any, leaves: Leaves) -> list[int | None]:
    """The layer of each leaf, from a function of its path or a tree of whole numbers."""
    if is_function(by):
        layers = [
            None if x is None else by(path)
            for path, x in zip(leaves.paths, leaves.values, strict=True)
        ]
    else:
        try:
            layers = broadcast_prefix(by, leaves)
        except ValueError as error:
            raise ValueError(
                f"layerwise_lr_decay: the tree of layers does not fit the parameters: {error}"
            ) from error
    for path, layer in zip(leaves.paths, layers, strict=True):
        whole = isinstance(layer, int | np.integer) and not isinstance(layer, bool)
        if layer is not None and not whole:
            raise TypeError(
                f"layerwise_lr_decay: the layer of {path} must be a whole number, got {layer!r}"
            )
    return [None if layer is None else int(layer) for layer in layers]


@makes(LayerwiseDecay)
def layerwise_lr_decay(
    decay: Fraction, by: Sequence[str] | Callable[[str], int] | Tree
) -> Callable[[Updates], Updates]:
    """Shorten the updates of each layer more the farther it is from the output.

        u <- u * decay^(L - l) on the leaves of layer l, where L is the last layer

    For fine-tuning, where the layers at the input should change least. It goes after an optimizer,
    since the factor scales the learning rate, and weight decay with it:

        chain(adamw(1e-3), layerwise_lr_decay(0.75, ["embed", r"blocks/(\\d+)", "head"]))

    `tx.layers(params)` returns, and prints as a table, the layer and the factor of every leaf.

    Args:
        decay: the factor from one layer to the one before it. 1 treats all alike; 0.65 to 0.9 are
            usual for fine-tuning; 0 leaves only the last layer moving.
        by: the layer of each leaf, counted from the input, in one of three forms. A list of
            regular expressions from input to output, searched for in the leaf's path
            (`blocks/3/kernel`): the first that is found decides, and one whose group catches a
            number stands for as many layers as there are numbers, in their order. Or a function
            from the path to the layer. Or a tree of layers shaped like the params, or a prefix of
            it.

    State: none.

    Raises: ValueError at init for leaves in no layer (each is named) and for a pattern that gets
    no leaf.

    Example:
        >>> params = {"embed": jnp.ones(1), "blocks": [jnp.ones(1)] * 2, "head": jnp.ones(1)}
        >>> tx = gradtx.layerwise_lr_decay(0.5, ["embed", r"blocks/(\\d+)", "head"])
        >>> print(tx.layers(params))
        blocks/0  layer   1  x 0.25
        blocks/1  layer   2  x 0.5
        embed     layer   0  x 0.125
        head      layer   3  x 1

    References: Howard & Ruder, 2018, https://arxiv.org/abs/1801.06146; Clark et al., 2020,
    https://arxiv.org/abs/2003.10555
    """

    def update(updates: Updates) -> Updates:
        leaves = Leaves.of(updates)
        pairs = zip(leaves.values, _distances(by, leaves), strict=True)
        return leaves.tree(u if u is None or not k else times(decay**k, u) for u, k in pairs)

    return update
