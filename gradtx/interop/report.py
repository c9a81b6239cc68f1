"""What `migrate` did, as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax

__all__ = ["MigrationReport"]


class Change(NamedTuple):
    """What became of one array.

    place: the field, in the new state or, for what was dropped, in the old one; leaf: its
    parameter, if it belongs to one; source: the place in the old state that it comes from; note:
    how it changed, or why.
    """

    place: str
    leaf: str | None
    source: str = ""
    note: str = ""


@jax.tree_util.register_static
@dataclass(frozen=True)
class MigrationReport:
    """What `migrate` kept, started afresh and dropped; prints as a table.

    Each of the three is a tuple of changes with the fields `place` (`[0].mu`), `leaf` (the path of
    the parameter, or None), `source` (the place in the old state) and `note`. It holds no arrays: a
    jitted function may return it.
    """

    kept: tuple[Change, ...]
    fresh: tuple[Change, ...]
    dropped: tuple[Change, ...]

    def __str__(self) -> str:
        rows = [("", "state", "leaves", "from", "")]
        for what, changes in (
            ("kept", self.kept),
            ("fresh", self.fresh),
            ("dropped", self.dropped),
        ):
            rows += [(what, *row) for row in _rows(changes)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join(lines)


# How many leaves a row names before it counts them.
_NAMED = 2


def _rows(changes: tuple[Change, ...]) -> list[tuple[str, str, str, str]]:
    """A row for the leaves of one field that changed alike: field, leaves, source, note."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for place, leaf, source, note in changes:
        leaves = groups.setdefault((place, source, note), [])
        leaves += [] if leaf is None else [leaf or "the parameter"]
    return [
        (place or "the state", _shown(leaves), source, note)
        for (place, source, note), leaves in groups.items()
    ]


def _shown(leaves: list[str]) -> str:
    return ", ".join(leaves) if len(leaves) <= _NAMED else f"{len(leaves)} leaves"
