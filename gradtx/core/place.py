"""Where a link must stand in a chain, leaf by leaf, and the check that it does."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Flag
from typing import TYPE_CHECKING

from gradtx.core.leaves import at

if TYPE_CHECKING:
    from gradtx.core.transformation import GradientTransformation, Link


class Place(Flag):
    """Where a transformation must stand among those acting on the same leaves; flags combine.

    FIRST: it takes per-example gradients, with a leading axis of examples in every leaf.
    LAST: it rounds the parameters: its updates lead to parameters that are already rounded. They
    leave in float32 or wider whatever the parameter's dtype, so that `apply_updates` lands on
    exactly those parameters.
    """

    ANYWHERE = 0
    FIRST = 1
    LAST = 2


def check_places(
    name: str, paths: Sequence[str], links: Sequence[Link], selections: Sequence[Sequence[bool]]
) -> tuple[list[bool], bool]:
    """For each leaf, whether its gradients are per-example; and whether a link on any leaf is LAST.

    A link out of place is an error with the leaf's path.
    """
    examples = [False] * len(paths)
    before: list[GradientTransformation | None] = [None] * len(paths)
    last: list[GradientTransformation | None] = [None] * len(paths)
    for link, selected in zip(links, selections, strict=True):
        tx, written = link.transformation, link.written
        for i, chosen in enumerate(selected):
            if not chosen:
                continue
            if last[i] is not None:
                raise ValueError(
                    f"{name}: {at(paths[i])}: {written} comes after {last[i]}, which rounds the "
                    "parameter and must come last"
                )
            if Place.FIRST in tx.place and before[i] is not None:
                raise ValueError(
                    f"{name}: {at(paths[i])}: {written} comes after {before[i]}; it takes the "
                    "gradients of single examples and must come first"
                )
            if not tx.passes_examples:
                before[i] = written
                examples[i] = examples[i] or Place.FIRST in tx.place
            if Place.LAST in tx.place:
                last[i] = written
    return examples, any(x is not None for x in last)
