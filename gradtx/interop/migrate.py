"""The state of one transformation as that of another, for a change in mid-run.

Both states are read as `links` with named arrays (an old one that lost its classes gets them back
from `restored`). `pairing` finds which array continues which, `clocks` gives a new count of steps
that of its neighbour, `carrying` brings a value into its new format and place, and `report` says
what was done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
from jax.tree_util import tree_map_with_path

from gradtx.core.leaves import KeyPath, Leaves
from gradtx.core.mask import Mask, MaskLike
from gradtx.core.origin import StateError
from gradtx.core.state import OptState, Params
from gradtx.core.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
)
from gradtx.interop.carrying import Carrier, misfit
from gradtx.interop.clocks import Counted, check_equal, neighbours
from gradtx.interop.links import NAMELESS, LinkState, Slot, links_in
from gradtx.interop.pairing import Leaf, pair_leaves, pair_links
from gradtx.interop.renaming import new_names
from gradtx.interop.report import Change, MigrationReport
from gradtx.interop.restored import has_no_classes, with_classes
from gradtx.precision.formats import is_stored

__all__ = ["migrate"]


def migrate(
    state: OptState,
    *,
    to: TransformationLike,
    params: Params,
    from_: TransformationLike | None = None,
    rename: Mapping[str, str] | None = None,
    reset: MaskLike | None = None,
) -> tuple[OptState, MigrationReport]:
    """Turn the state of one transformation into that of another, to change it in mid-run.

        state, report = migrate(state, to=tx, params=params, from_=old_tx)

    What has the same meaning is kept: an array continues the one in the same field of a state of
    the same class, for the parameter with the same path, wherever the two are in chains, groups,
    masks and wrappers. It is decoded and encoded as `store` or a dtype requires. Everything else is
    as `to.init(params)` makes it: moments start at zero, master weights at the parameters.

    The count of a link belongs to its moments, and starts afresh if all of them do. A link that has
    only a count, such as a schedule, takes that of its neighbour if it had none.

    It works under jit, where a donated state is not copied, and keeps shardings. Counts of several
    groups that become one must be equal; under jit, where they are not known, the first is taken.

    Args:
        state: the old state: of gradtx or of Optax, in its named tuples or, if from_ is given, as
            the lists and dicts that Orbax and `flax.serialization` return.
        to: the new transformation.
        params: the parameters as they are now.
        from_: the transformation that made the state. It tells links of one class apart by their
            arguments, and says what lists and dicts were. None suffices for named tuples that are
            not ambiguous.
        rename: new paths of parameters by old ones, for the state of leaves that moved:
            `{"encoder": "backbone", r"layers_(\\d+)": r"blocks/\\1"}`. A key is a regular
            expression that matches a path from its beginning, up to its end or to a "/"; the first
            that does decides.
        reset: parameters whose state starts afresh: a pattern, or anything else that `masked`
            takes as a mask. ".*" starts everything afresh, counts too.

    Returns: the state, and a `MigrationReport` of what was kept, started afresh and dropped, which
    prints as a table.

    Raises: ValueError, with the path, where several parts of the old state could be meant, for
    counts that differ where one is needed, for a state that from_ could not have made, and for a
    rename or reset that matches nothing.

    Example:
        >>> params = {"w": jnp.ones(2)}
        >>> old = gradtx.adamw(1e-3)
        >>> _, state = gradtx.step(old, params, old.init(params), params)
        >>> tx = gradtx.finite_guard(gradtx.adamw(gradtx.cosine_decay_schedule(1e-3, 100)))
        >>> state, report = gradtx.migrate(state, to=tx, params=params)
        >>> print(report)
                 state                       leaves  from
        kept     .inner_state[0].mu          w       [0].mu
        kept     .inner_state[0].nu          w       [0].nu
        kept     .inner_state[0].count               [0].count
        kept     .inner_state[2].count               [0].count  count of a neighbour
        fresh    .skipped                                       new
        fresh    .in_a_row                                      new

    See also: `tree.get` and `tree.set`, for a single value.
    """
    to = as_transformation(to, "migrate: to")
    first = to.init(params)
    new = links_in(first, params, to)
    old = _old_links(state, params, from_)
    if from_ is None:
        _check_named(new, old)
    plan = _Plan(new, old, new_names(rename or {}, old), _selected(reset, params))
    plan.make()
    carrier = Carrier(plan.inside_store)

    def value(path: KeyPath, x: Any) -> Any:
        slot = plan.taken.get(path)
        return x if slot is None else carrier.carried(slot.value, x, path)

    return tree_map_with_path(value, first, is_leaf=is_stored), plan.report()


def _old_links(
    state: OptState, params: Params, from_: TransformationLike | None
) -> list[LinkState]:
    """The links of the old state, which `from_` made."""
    if from_ is None:
        if has_no_classes(state):
            raise ValueError(
                "migrate: the state is of lists and dicts, which do not say what they hold: give "
                "the transformation that made it, from_="
            )
        return links_in(state, params, None)
    from_ = as_transformation(from_, "migrate: from_")
    if has_no_classes(state):
        state = with_classes(state, _made_by(from_, params))
    try:
        return links_in(state, params, from_)
    except StateError as error:
        where = f" at {error.path}" if error.path else ""
        raise ValueError(
            f"migrate: from_ did not make the state, which{where} is {error.problem}"
        ) from error


def _made_by(from_: GradientTransformation, params: Params) -> OptState:
    """The state that from_ makes of the new params, of which only the classes matter."""
    try:
        return jax.eval_shape(from_.init, params)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "migrate: the state is of lists and dicts, which the init of from_ has to explain, but "
            f"it does not take these params ({error}). Restore the checkpoint into the structure "
            "of the old state, jax.eval_shape(old_tx.init, old_params)"
        ) from error


def _check_named(new: Sequence[LinkState], old: Sequence[LinkState]) -> None:
    """Refuse states that only their definitions could tell apart, where those are not known."""
    nameless = [x for x in old if x.kind in NAMELESS]
    if nameless and any(x.kind in NAMELESS for x in new):
        raise ValueError(
            f"migrate: the state at {nameless[0]} does not say which rule made it: give the "
            "transformation that made it, from_="
        )


def _selected(reset: MaskLike | None, params: Params) -> list[str] | None:
    """The paths of the parameters whose state starts afresh; None if that is all of them."""
    if reset is None:
        return []
    leaves = Leaves.of(params)
    flags = Mask(reset).select(leaves, "migrate: reset")
    chosen = [p for p, flag in zip(leaves.paths, flags, strict=True) if flag]
    present = zip(leaves.values, flags, strict=True)
    return None if all(flag for x, flag in present if x is not None) else chosen


@dataclass
class _Plan:
    """What becomes of each array.

    names: the new paths of old leaves. resets: the parameters whose state starts afresh, None for
    everything. taken: the old array that a new one continues; fresh: why it continues none; both by
    its path. notes: how it changes.
    """

    new: Sequence[LinkState]
    old: Sequence[LinkState]
    names: Mapping[str, str]
    resets: Sequence[str] | None
    taken: dict[KeyPath, Slot] = field(default_factory=dict)
    fresh: dict[KeyPath, str] = field(default_factory=dict)
    notes: dict[KeyPath, str] = field(default_factory=dict)
    used: set[KeyPath] = field(default_factory=set)
    # Why an array of the old state was dropped, where that can be said.
    reasons: dict[KeyPath, str] = field(default_factory=dict)

    def make(self) -> None:
        """Decide about every array of the new state."""
        if self.resets is None:
            return
        sources = self._take_leaves()
        for link in self.new:
            if link.leaves:
                self._take_whole(link, sources.get(link, []))
        self._check_reset()
        alone = [x for x in self.new if not x.leaves and not self._is_reset(x)]
        for mine, theirs in pair_links(alone, self.old):
            self._take_link(mine, theirs)
        self._set_clocks([x for x in self.new if not self._is_reset(x)])

    @property
    def inside_store(self) -> frozenset[KeyPath]:
        """The arrays that a `store` keeps, which it rounds at random."""
        links = [x for x in self.new if "StoreState" in x.where.within]
        return frozenset(slot.path for link in links for slot in link.slots)

    # -- what continues what -----------------------------------------------------------------------

    def _take(self, mine: Slot, theirs: Slot, note: str = "") -> bool:
        """Let an array continue an old one, unless it does not fit."""
        problem, change = misfit(theirs.value, mine.value)
        if problem:
            self.fresh[mine.path] = self.reasons[theirs.path] = problem
            return False
        self.taken[mine.path] = theirs
        self.used.add(theirs.path)
        renamed = f"was {theirs.leaf}" if mine.leaf != theirs.leaf else ""
        self.notes[mine.path] = ", ".join(filter(None, (note, renamed, change)))
        return True

    def _take_leaves(self) -> dict[LinkState, list[LinkState]]:
        """Pair what belongs to parameters. Returns the old links that each new one continues."""
        asked = [
            Leaf(link, x) for link in self.new for x in link.leaves if not self._is_reset_leaf(x)
        ]
        held = [Leaf(link, x) for link in self.old for x in link.leaves]
        sources: dict[LinkState, list[LinkState]] = {}
        for mine, theirs in pair_leaves(asked, held, self.names):
            if self._take(mine.slot, theirs.slot):
                known = sources.setdefault(mine.link, [])
                known += [] if theirs.link in known else [theirs.link]
        return sources

    def _take_whole(self, link: LinkState, sources: Sequence[LinkState]) -> None:
        """What belongs to a link as a whole goes where its moments go."""
        for name, mine in link.whole.items():
            theirs = [x.whole[name] for x in sources if name in x.whole]
            if theirs:
                check_equal(mine, [Counted(x, x.value) for x in theirs])
                if self._take(mine, theirs[0]):
                    self.used |= {x.path for x in theirs}

    def _take_link(self, mine: LinkState, theirs: LinkState) -> None:
        """Take all of a link's state or, if a running mean in it cannot be kept, nothing."""
        pairs = [(x, theirs.whole.get(name)) for name, x in mine.whole.items()]
        lost = [x for x, y in pairs if x.is_mean and (y is None or misfit(y.value, x.value)[0])]
        for x, y in pairs:
            if y is not None and (not lost or x in lost):  # taking what is lost says why
                self._take(x, y)

    def _set_clocks(self, links: Sequence[LinkState]) -> None:
        """Give each count of steps that continues nothing the count of a neighbour."""
        kept = [
            Counted(x, self.taken[x.path].value)
            for link in self.new
            for x in link.slots
            if x.first is not None and x.path in self.taken
        ]
        old = [Counted(x, x.value) for link in self.old for x in link.slots if x.first is not None]
        origin = {x.slot.path: self.taken[x.slot.path] for x in kept}
        for link in links:
            fresh = bool(link.leaves) and not any(x.path in self.taken for x in link.leaves)
            starts = fresh and link.counts_its_own
            for clock in link.slots:
                if not clock.clock or starts or clock.path in self.taken:
                    continue
                found = neighbours(clock, kept, old)
                sources = [origin.get(x.slot.path, x.slot) for x in found]
                if found:
                    note = "" if sources[0].clock else "count of a neighbour"
                    self._take(clock, sources[0].having(found[0].steps), note)
                    self.used |= {x.path for x in sources}
                else:
                    self.fresh[clock.path] = "there was no count"

    # -- what starts afresh ------------------------------------------------------------------------

    def _is_reset_leaf(self, slot: Slot) -> bool:
        paths, leaf = self.resets or (), slot.leaf or ""
        return any(leaf == path or leaf.startswith(f"{path}/") or not path for path in paths)

    def _is_reset(self, link: LinkState) -> bool:
        """Whether the state of all parameters around a link starts afresh."""
        if not self.resets:
            return False
        for depth in reversed(range(len(link.where.path) + 1)):
            above = link.where.path[:depth]
            near = [
                x for other in self.new if other.where.path[:depth] == above for x in other.leaves
            ]
            if near:
                return all(map(self._is_reset_leaf, near))
        return False

    def _check_reset(self) -> None:
        """Refuse to reset the state of parameters that have none."""
        held = dict.fromkeys(x.leaf or "" for link in self.new for x in link.leaves)
        reset = any(self._is_reset_leaf(x) for link in self.new for x in link.leaves)
        if self.resets and held and not reset:
            raise ValueError(
                f"migrate: reset: the state holds nothing of {', '.join(self.resets[:8])}; it is "
                f"of {', '.join(list(held)[:8])}" + (", ..." if len(held) > 8 else "")
            )

    # -- the report --------------------------------------------------------------------------------

    def report(self) -> MigrationReport:
        """What was decided."""
        kept, fresh = [], []
        for link in self.new:
            for x in (*link.leaves, *link.whole.values()):
                if (source := self.taken.get(x.path)) is not None:
                    note = self.notes[x.path]
                    kept.append(Change(x.place, x.leaf, source.place, note))
                else:
                    reset = self.resets is None or self._is_reset(link) or self._is_reset_leaf(x)
                    why = self.fresh.get(x.path, "reset" if reset else "new")
                    fresh.append(Change(x.place, x.leaf, "", why))
        dropped = [
            Change(x.place, x.leaf, "", self.reasons.get(x.path, ""))
            for link in self.old
            for x in (*link.leaves, *link.whole.values())
            if x.path not in self.used
        ]
        return MigrationReport(tuple(kept), tuple(fresh), tuple(dropped))
