"""Where in a chain a link must stand on its leaves, and the one walk that checks it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Flag
from typing import TYPE_CHECKING, Any

from gradtx.core.leaves import at

if TYPE_CHECKING:
    from gradtx.core.transformation import Link


class Place(Flag):
    """A transformation's place on its leaves. The places of a wrapper may be several.

    FIRST: it takes the gradients of single examples, along a first axis of every leaf.
    LAST: it decides the numbers on which the parameters land. Its updates leave in float32 or
    wider whatever the parameter's dtype, so that `apply_updates` lands on exactly those.
    """

    ANYWHERE = 0
    FIRST = 1
    LAST = 2


def check_places(
    name: str, paths: Sequence[str], links: Sequence[Link], selections: Sequence[Sequence[bool]]
) -> tuple[list[bool], bool]:
    """For each leaf whether its gradients are those of single examples, and whether a link is
    LAST anywhere. A link that does not stand in its place is an error with the leaf's path."""
    examples = [False] * len(paths)
    before: list[Any] = [None] * len(paths)
    last: list[Any] = [None] * len(paths)
    for link, selected in zip(links, selections, strict=True):
        tx = link.transformation
        for i, chosen in enumerate(selected):
            if not chosen:
                continue
            if last[i] is not None:
                raise ValueError(
                    f"{name}: {at(paths[i])}: {tx} comes after {last[i]}, which rounds the "
                    "parameter and must come last"
                )
            if Place.FIRST in tx.place and before[i] is not None:
                raise ValueError(
                    f"{name}: {at(paths[i])}: {tx} comes after {before[i]}; it takes the "
                    "gradients of single examples and must come first"
                )
            if not tx.passes_examples:
                before[i] = tx
                examples[i] = examples[i] or Place.FIRST in tx.place
            if Place.LAST in tx.place:
                last[i] = tx
    return examples, any(x is not None for x in last)
