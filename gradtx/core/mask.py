"""Which leaves a transformation acts on: a tree of booleans, a function, or a path pattern."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import numpy as np

from gradtx.core.hyperparameters import Kind
from gradtx.core.leaves import Leaves, flatten, is_function
from gradtx.core.printing import show
from gradtx.core.value import Value, thaw


class MaskedNode(NamedTuple):
    """Replaces a leaf that a masked transformation does not see. It has no leaves itself."""


def check_pattern(who: str, pattern: str) -> None:
    """Refuse a path pattern that is not a regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"{who}: {pattern!r} is not a valid regular expression: {error}"
        ) from error


@dataclass(frozen=True)
class matching:  # noqa: N801  (reads as a function: mask=matching("bias|scale"))
    """The leaves whose path matches a regular expression; `~matching(...)` is all the others.

    Paths are written `encoder/0/kernel`. The pattern may match anywhere in a path (`re.search`):
    anchor it with ^ and $ to match whole paths.
    """

    pattern: str
    inverted: bool = False

    def __post_init__(self) -> None:
        check_pattern("matching", self.pattern)

    def __invert__(self) -> matching:
        return matching(self.pattern, not self.inverted)

    def select(self, leaf_paths: Sequence[str], where: str) -> list[bool]:
        """For each path, whether its leaf is selected; a pattern that matches none is an error."""
        found = [re.search(self.pattern, path) is not None for path in leaf_paths]
        if leaf_paths and not any(found):
            shown = ", ".join(leaf_paths[:8]) + (", ..." if len(leaf_paths) > 8 else "")
            raise ValueError(
                f"{where}: the pattern {self.pattern!r} matches no leaf; the paths are: {shown}"
            )
        return [f != self.inverted for f in found]

    def __repr__(self) -> str:
        return f"{'~' if self.inverted else ''}matching({self.pattern!r})"


def first_matching(
    patterns: Sequence[str],
    leaf_paths: Sequence[str],
    where: str,
    *,
    optional: Collection[str] = (),
) -> list[str | None]:
    """For each path, the first of the patterns that is found in it, or None.

    A pattern that gets none of the paths is an error, unless it would match every path or is
    optional.
    """
    found = {p: [re.search(p, path) is not None for path in leaf_paths] for p in patterns}
    first = [next((p for p in patterns if found[p][i]), None) for i in range(len(leaf_paths))]
    needed = [p for p in patterns if p not in optional and not all(found[p])]
    idle = [p for p in needed if p not in first]
    if leaf_paths and idle:
        why = "all it matches is taken by earlier ones" if any(found[idle[0]]) else "no match"
        shown = ", ".join(leaf_paths[:8]) + (", ..." if len(leaf_paths) > 8 else "")
        raise ValueError(
            f"{where}: the pattern {idle[0]!r} gets no leaf ({why}); the paths are: {shown}"
        )
    return first


@dataclass(frozen=True)
class MaskKind(Kind):
    """The kind of arguments that are masks; a path pattern is checked at construction."""

    def convert(self, where: str, value: Any) -> Any:
        """The mask as it was given; an invalid pattern is an error."""
        if isinstance(value, str):
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(
                    f"{where} must be a regular expression, got {value!r}: {error}"
                ) from error
        if isinstance(value, Value):
            raise TypeError(
                f"{where} must be a tree of booleans, a function that makes one or a path pattern, "
                f"got {show(value)}"
            )
        return value


MaskLike = Annotated[Any | Callable[[Any], Any] | str | matching, MaskKind()]


@dataclass(frozen=True)
class Mask:
    """A mask as the user gave it: a tree of booleans, a function that makes one from the params, a
    path pattern or a `matching`.

    covers_extra: whether it also hides leaves of extra arguments that are structured like the
    updates.
    """

    given: Any
    covers_extra: bool = False
    # Whether the links under it see the negative of the objective.
    negates: ClassVar[bool] = False

    def select(self, leaves: Leaves, where: str) -> list[bool]:
        """For each leaf, whether the links under the mask act on it."""
        mask = thaw(self.given)
        if isinstance(mask, str):
            mask = matching(mask)
        if isinstance(mask, matching):
            return mask.select(leaves.paths, where)
        tree = leaves.tree(leaves.values)
        if is_function(mask):
            mask = mask(tree)
        return _broadcast(mask, leaves, where)


@dataclass(frozen=True)
class Negated(Mask):
    """Hides nothing; the links under it see the negative of the objective."""

    given: Any = True
    covers_extra: bool = True
    negates: ClassVar[bool] = True

    def select(self, leaves: Leaves, where: str) -> list[bool]:
        """Every leaf."""
        return [True] * len(leaves.values)


def _broadcast(mask: Any, leaves: Leaves, where: str) -> list[bool]:
    """A tree of booleans, or a prefix of one, as one boolean per leaf."""
    try:
        flags = broadcast_prefix(mask, leaves)
    except ValueError as error:
        raise ValueError(
            f"{where}: the mask does not fit the tree it masks: {error}. A mask is a tree of "
            "booleans shaped like the params (or a prefix of it), a function that makes one, or a "
            "path pattern"
        ) from error
    return [_boolean(flag, where) for flag in flags]


def broadcast_prefix(prefix: Any, leaves: Leaves) -> list[Any]:
    """For each leaf, the leaf of `prefix` at or above it; prefix is a tree prefix of `leaves`."""
    flags, treedef = flatten(prefix)
    try:
        subtrees = treedef.flatten_up_to(leaves.tree(leaves.values))
    except ValueError as error:
        raise ValueError(
            f"its structure is {treedef}, the leaves are at {', '.join(leaves.paths[:8])}"
        ) from error
    sizes = [len(flatten(subtree)[0]) for subtree in subtrees]
    return [flag for flag, size in zip(flags, sizes, strict=True) for _ in range(size)]


def _boolean(flag: Any, where: str) -> bool:
    if flag is None:
        return False
    if isinstance(flag, jax.core.Tracer):
        raise TypeError(f"{where}: the mask must be known when the program is traced, got {flag}")
    if isinstance(flag, bool | np.bool_ | np.ndarray | jax.Array) and np.shape(flag) == ():
        return bool(flag)
    raise TypeError(f"{where}: a mask holds booleans, got {flag!r} ({type(flag).__name__})")


def hide(leaves: Leaves, values: Sequence[Any], selected: Sequence[bool]) -> Any:
    """The tree with `MaskedNode()` where a leaf is not selected."""
    return leaves.tree(v if s else MaskedNode() for v, s in zip(values, selected, strict=True))
