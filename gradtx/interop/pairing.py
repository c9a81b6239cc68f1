"""Which part of the old state a part of the new one continues."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from jax.tree_util import keystr

from gradtx.interop.links import NAMELESS, LinkState, Slot

# For a class of the new state, the other classes whose fields of the same name mean the same: the
# formula of the field is the same, and what the others lack may start at zero.
_ALIKE = {
    "ScaleByAdamState": ("ScaleByAmsgradState",),
    "ScaleByAmsgradState": ("ScaleByAdamState",),
    "ScaleByLionState": ("ScaleByAdamState", "ScaleByAmsgradState"),
}


class Leaf(NamedTuple):
    """A slot that belongs to a parameter, and its link."""

    link: LinkState
    slot: Slot


K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
# (new, old)
Pairs = list[tuple[T, T]]


def pair_leaves(new: Sequence[Leaf], old: Sequence[Leaf], names: Mapping[str, str]) -> Pairs[Leaf]:
    """The leaves of the new state with those of the old one that they continue: of the same field,
    in a class of the same name, for the same parameter. names: the new paths of old leaves."""

    def key(leaf: Leaf) -> tuple[_Kind, str, str | None]:
        return _Kind.of(leaf.link), leaf.slot.field, leaf.slot.leaf

    def old_key(leaf: Leaf) -> tuple[_Kind, str, str | None]:
        kind, field, path = key(leaf)
        return kind, field, names.get(path or "", path)

    continued = _grouped(old, old_key)
    pairs: Pairs[Leaf] = []
    for (kind, field, path), leaves in _grouped(new, key).items():
        found = (continued.get((like, field, path)) for like in kind.alike)
        candidates = next(filter(None, found), [])
        pairs += paired(leaves, candidates, lambda leaf: leaf.link, _leaf_shown)
    return pairs


def pair_links(new: Sequence[LinkState], old: Sequence[LinkState]) -> Pairs[LinkState]:
    """The states of links that keep nothing for single parameters, with those they continue."""
    continued = _grouped([x for x in old if not x.leaves], _Kind.of)
    pairs: Pairs[LinkState] = []
    for kind, links in _grouped([x for x in new if not x.leaves], _Kind.of).items():
        pairs += paired(links, continued.get(kind, []), lambda link: link, str)
    return pairs


def _leaf_shown(leaf: Leaf) -> str:
    return keystr(leaf.slot.path) or "the state"


class _Kind(NamedTuple):
    """What two paired states must share. definition: its name, where the class says nothing."""

    name: str
    negated: bool
    definition: str | None

    @classmethod
    def of(cls, link: LinkState) -> _Kind:
        """The kind of the state of a link."""
        nameless = link.kind in NAMELESS
        return cls(link.kind, link.is_negated, link.definition if nameless else None)

    @property
    def alike(self) -> list[_Kind]:
        """Itself, and then those whose fields mean the same."""
        return [self, *(self._replace(name=name) for name in _ALIKE.get(self.name, ()))]


# What tells several states of a kind apart, the surest first; None where it says nothing. The last
# is their order, where there are as many of them as before.
_IDENTITIES: tuple[Callable[[LinkState], Hashable], ...] = (
    lambda link: (link.where.names, link.tx) if link.where.names and link.tx is not None else None,
    lambda link: link.where.names or None,
    lambda link: link.tx,
    lambda link: link.definition,
    lambda link: True,
)


def paired(
    new: Sequence[T], old: Sequence[T], link: Callable[[T], LinkState], show: Callable[[T], str]
) -> Pairs[T]:
    """The states of a kind in the new state with those in the old one that they continue.

    Raises: ValueError where the new one could continue several.
    """
    if len(new) == len(old) == 1:
        return [(new[0], old[0])]
    pairs: Pairs[T] = []
    left, sources = list(new), list(old)
    for identity in _IDENTITIES:

        def known(x: T, identity: Callable[[LinkState], Hashable] = identity) -> Hashable:
            return identity(link(x))

        by_identity = _grouped(sources, known)
        for name, mine in _grouped(left, known).items():
            theirs = by_identity.get(name, [])
            if name is not None and len(mine) == len(theirs):
                pairs += zip(mine, theirs, strict=True)
                left = [x for x in left if x not in mine]
                sources = [x for x in sources if x not in theirs]
    if left and sources and not all(link(x).is_clock for x in left):
        raise ValueError(
            f"migrate: {' and '.join(map(show, left))} could continue "
            f"{' or '.join(map(show, sources))} of the old state. Say what made the state "
            "(from_=), give the links names (named_chain), change one thing at a time, or migrate "
            "only the part of the state that is meant"
        )
    return pairs


def _grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = {}
    for x in items:
        groups.setdefault(key(x), []).append(x)
    return groups
