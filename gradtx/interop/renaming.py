"""New paths of parameters, from patterns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from gradtx.core.mask import check_pattern
from gradtx.interop.links import LinkState


def new_names(rename: Mapping[str, str], old: Sequence[LinkState]) -> dict[str, str]:
    """The new path of each leaf of the old state that some pattern matches.

    Raises: ValueError for a pattern that is not a regular expression, or matches nothing.
    """
    for pattern in rename:
        check_pattern("migrate: rename", pattern)
    paths = dict.fromkeys(x.leaf for link in old for x in link.leaves if x.leaf)
    found: dict[str, str] = {}
    used = set()
    for path in paths:
        for pattern, name in rename.items():
            if match := re.match(rf"(?:{pattern})(?=/|$)", path):
                found[path] = match.expand(name) + path[match.end() :]
                used.add(pattern)
                break
    if idle := [pattern for pattern in rename if pattern not in used]:
        shown = ", ".join(list(paths)[:8]) + (", ..." if len(paths) > 8 else "")
        raise ValueError(
            f"migrate: rename: {idle[0]!r} matches no path of the old state, or only such as an "
            f"earlier one matches; the paths are: {shown}"
        )
    return found
