"""The updates on their way along a line of links: flattened once, rounded once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core.apply import Applied, apply_updates
from gradtx.core.dtypes import cast, compute_dtype, is_inexact, real_dtype, widen_tree
from gradtx.core.leaves import Leaves, align, at, check_arrays, check_floating, describe, flatten
from gradtx.core.mask import Mask, hide
from gradtx.core.problem import PROBLEM, Extra, negated, seen_as
from gradtx.core.state import Params, Updates

if TYPE_CHECKING:
    from gradtx.core.transformation import GradientTransformation, Link

_HINT = ", as jax.vmap(jax.grad(loss), (None, 0)) makes them"

# For each leaf, whether a link acts on it.
Selection = list[bool]
# For each leaf, an array, or None where there is none.
Arrays = Sequence[Any]
# For each leaf, a dtype, or None where there is no update.
DTypes = Sequence[Any]


class Selections:
    """Which leaves the masks of links select, each combination of masks evaluated once.

    seen: the arrays that a mask is shown: the params, or the updates if no params were given.
    """

    def __init__(self, name: str, leaves: Leaves, seen: Arrays):
        self._name, self._leaves, self._seen = name, leaves, seen
        # Memos: links share masks, and masks inside the same ones are shown the same leaves.
        self._known: dict[tuple[Mask, ...], Selection] = {(): [True] * len(seen)}
        self._left: dict[tuple[bool, ...], Leaves] = {}

    def of(self, masks: tuple[Mask, ...]) -> Selection:
        """For each leaf, whether every mask selects it."""
        if masks not in self._known:
            selected = [True] * len(self._seen)
            # From the outermost, the last, inwards: each sees the remaining leaves, as in init.
            for mask in reversed(masks):
                left = tuple(selected)
                if left not in self._left:
                    self._left[left] = Leaves.of(hide(self._leaves, self._seen, selected))
                flags = iter(mask.select(self._left[left], f"{self._name}: mask"))
                selected = [s and next(flags) for s in selected]
            self._known[masks] = selected
        return self._known[masks]


@dataclass(frozen=True)
class FlatUpdates:
    """The updates so far: `values[i]` is that of leaf i, None where the tree has none.

    name: the transformation's, for errors. leaves: the updates that were given.
    params: the parameters in their stored dtypes, None where there is no update or none were given.
    aligned_params: the same, but also where there is no update; there it may be a whole subtree.
    dtypes: those used to compute with each leaf; out_dtypes: those in which updates leave the line.
    frozen: by index, the zero updates of frozen leaves, which are absent from values.
    applied: the params after these updates, if a wrapper has applied them.
    """

    name: str
    leaves: Leaves
    values: Arrays
    params: Arrays
    aligned_params: Sequence[Any]
    has_params: bool
    dtypes: DTypes
    out_dtypes: DTypes
    selections: Selections
    frozen: dict[int, jax.Array]
    applied: Params | None = None

    @classmethod
    def of(cls, name: str, updates: Updates, params: Params | None) -> FlatUpdates:
        """Flatten a tree of updates and align the params with it; `name` is for errors."""
        leaves = Leaves.of(updates)
        values = check_arrays(leaves, name)
        shown: list[Any] = [None] * len(values)
        aligned = shown
        if params is not None:
            aligned = align(leaves, params, f"{name}: params")
            shown = [None if v is None else p for v, p in zip(values, aligned, strict=True)]
            shown = check_arrays(Leaves(leaves.treedef, shown), f"{name}: params")
        dtypes: list[Any] = [None] * len(values)
        out_dtypes = list(dtypes)
        for i, (v, p) in enumerate(zip(values, shown, strict=True)):
            if v is not None and not is_inexact(v):
                dtypes[i] = out_dtypes[i] = v.dtype  # integer or float0: it has no gradient
            elif v is not None:
                dtypes[i] = compute_dtype(v.dtype) if p is None else compute_dtype(v.dtype, p.dtype)
                out_dtypes[i] = v.dtype if p is None else p.dtype
        return cls(
            name=name,
            leaves=leaves,
            values=values,
            params=shown,
            aligned_params=aligned,
            has_params=params is not None,
            dtypes=dtypes,
            out_dtypes=out_dtypes,
            selections=Selections(name, leaves, values if params is None else shown),
            frozen={},
        )

    # -- checks ------------------------------------------------------------------------------------

    def check_shapes(self, per_example: Sequence[bool]) -> None:
        """Refuse an update whose shape is not its parameter's.

        Where `per_example` is true, a leading axis of examples comes before that shape, and has the
        same length in all such leaves.
        """
        known: int | None = None
        for i, (value, param) in enumerate(zip(self.values, self.params, strict=True)):
            if value is None:
                continue
            fits = param is not None and value.shape[per_example[i] :] == param.shape
            if self.has_params and not fits:
                needed = "one more axis, of examples, before" if per_example[i] else ""
                raise ValueError(
                    f"{self._at(i)} do not fit the parameter "
                    f"{'None' if param is None else describe(param)}; they must have "
                    + (f"{needed} its shape{_HINT}" if needed else "the same shape")
                )
            if per_example[i]:
                length = value.shape[0] if value.shape else None
                if not length or known not in (None, length):
                    expected = f"{known or 'at least one'} along the first axis"
                    raise ValueError(
                        f"{self._at(i)} must be gradients of single examples, {expected}{_HINT}"
                    )
                known = length

    def check_floating(self, selections: Sequence[Selection]) -> None:
        """Refuse a leaf that is neither floating nor complex, unless no link acts on it."""
        seen = [any(flags) for flags in zip(*selections, strict=True)] if selections else []
        for name, arrays in ((self.name, self.values), (f"{self.name}: params", self.params)):
            acted_on = [x if s else None for x, s in zip(arrays, seen, strict=bool(seen))]
            check_floating(self.leaves, acted_on, name)

    def _at(self, i: int) -> str:
        return f"{self.name}: {at(self.leaves.paths[i])}: updates {describe(self.values[i])}"

    # -- what a link sees --------------------------------------------------------------------------

    @cached_property
    def widest_real_dtype(self) -> np.dtype:
        """The dtype of scalars that belong to the whole tree, such as its norm."""
        return real_dtype(compute_dtype(*[d for d in self.dtypes if d is not None]))

    def widened(self) -> FlatUpdates:
        """The same updates in float32 or wider."""
        pairs = zip(self.values, self.dtypes, strict=True)
        return self.with_values([v if v is None else cast(v, d) for v, d in pairs])

    def with_values(self, values: Arrays) -> FlatUpdates:
        """The same leaves with other updates."""
        return replace(self, values=values)

    def tree(self, selected: Selection) -> Updates:
        """The selected updates so far, as a tree with the other leaves hidden."""
        return self._hide(self.values, selected)

    def params_tree(self, selected: Selection) -> Params | None:
        """The selected params as a tree, in float32 or wider."""
        return widen_tree(self.stored_params_tree(selected))

    def stored_params_tree(self, selected: Selection) -> Params | None:
        """The selected params as a tree, in their stored dtypes."""
        return self._hide(self.params, selected) if self.has_params else None

    def needed_tree(self, selected: Selection, ignored: Sequence[bool]) -> Updates:
        """Like `tree`, with zeros in place of gradients that are ignored."""
        if not any(ignored):
            return self.tree(selected)
        pairs = zip(self.values, ignored, strict=True)
        shown = [None if v is None else jnp.zeros_like(v) if i else v for v, i in pairs]
        return self._hide(shown, selected)

    def _hide(self, values: Arrays, selected: Selection) -> Updates:
        return hide(self.leaves, values, self.shown(selected))

    def shown(self, selected: Selection) -> Selection:
        """Which leaves a link is shown: the selected ones, and absent ones as None. A mask may
        judge an absent leaf differently than its parameter in init, and the state may hold it."""
        return [s or v is None for s, v in zip(selected, self.values, strict=True)]

    def without_update(self, selected: Selection) -> list[str]:
        """The paths of the selected leaves that have a parameter and no update."""
        triples = zip(self.leaves.paths, self.values, self.aligned_params, selected, strict=True)
        return [path for path, v, p, s in triples if s and v is None and p is not None]

    def visible(self, extra: Extra, masks: tuple[Mask, ...]) -> Extra:
        """The extra arguments as a link under these masks sees them.

        Those that describe the objective become functions, or gradients, of the selected leaves
        alone. Other trees like the updates are masked by the masks that cover extra arguments.
        """
        if not extra:
            return extra
        if sum(mask.negates for mask in masks) % 2:
            extra = negated(extra)
        return self._of_group(self._covered(extra, masks), self.selections.of(masks))

    def _covered(self, extra: Extra, masks: tuple[Mask, ...]) -> Extra:
        """The extra arguments with leaves hidden in trees structured like the updates: by the masks
        that cover extra arguments, from the outermost to the first that does not."""
        covering = tuple(itertools.takewhile(lambda mask: mask.covers_extra, reversed(masks)))
        if not covering:
            return extra
        selected = self.selections.of(covering[::-1])

        def seen(x: Any) -> Any:
            values, treedef = flatten(x)
            return hide(self.leaves, values, selected) if treedef == self.leaves.treedef else x

        return {name: x if name in PROBLEM else seen(x) for name, x in extra.items()}

    def _of_group(self, extra: Extra, selected: Selection) -> Extra:
        """The same objective as a function of the selected leaves alone, the others held fixed."""
        seen = [s and v is not None for s, v in zip(selected, self.values, strict=True)]
        triples = zip(seen, selected, self.aligned_params, strict=True)
        if all(s and (v or p is None) for v, s, p in triples):
            return extra

        def whole(group: Params, others: Sequence[Any] = self.aligned_params) -> Params:
            parts = align(self.leaves, group, f"{self.name}: params of a group")
            triples = zip(seen, parts, others, strict=True)
            return self.leaves.tree(x if s else p for s, x, p in triples)

        def searched(group: Params) -> Params:
            return whole(group, lax.stop_gradient(list(self.aligned_params)))

        def group(grad: Updates) -> Updates:
            parts = align(self.leaves, grad, f"{self.name}: grad")
            pairs = zip(self.values, parts, strict=True)
            return self._hide([None if v is None else g for v, g in pairs], selected)

        if not self.has_params:
            return seen_as(extra, grad=group)
        return seen_as(extra, grad=group, params=whole, searched=searched)

    # -- what a link ignores -----------------------------------------------------------------------

    def ignored_by(self, links: Sequence[Link]) -> list[bool]:
        """For each leaf, whether the first link that acts on it does not read its gradient."""
        ignored = [False] * len(self.values)
        if not any(link.transformation._can_ignore() for link in links):
            return ignored
        undecided = [value is not None for value in self.values]
        for link in links:
            selected = self.selections.of(link.masks)
            here = link.transformation._ignored(self, selected)
            for i, chosen in enumerate(selected):
                if chosen and undecided[i]:
                    ignored[i], undecided[i] = here[i], False
        return ignored

    def ignored_inside(
        self, inside: Sequence[GradientTransformation], selected: Selection
    ) -> list[bool]:
        """For each leaf, whether it is ignored by every transformation inside a link."""
        params = self.stored_params_tree(selected)
        seen = FlatUpdates.of(self.name, self.tree(selected), params)
        flags = [seen.ignored_by(tx._links) for tx in inside]
        together = iter(map(all, zip(*flags, strict=True)))
        return [next(together) if shown else False for shown in self.shown(selected)]

    # -- what a link returns -----------------------------------------------------------------------

    def put(
        self, tree: Updates, selected: Selection, where: str, *, from_examples: bool = False
    ) -> FlatUpdates:
        """The same, with the selected leaves of the tree that a link returned as the new updates.

        from_examples: the old updates have a leading axis of examples, which the new ones lack.
        """
        if isinstance(tree, Applied):
            return replace(self, applied=tree.params)
        values = list(self.values)
        for i, new in enumerate(align(self.leaves, tree, f"{where}: what it returned")):
            old = values[i]
            if not selected[i] or old is None:
                continue
            if new is None or np.shape(new) != np.shape(old)[from_examples:]:
                raise ValueError(
                    f"{where}: {at(self.leaves.paths[i])}: updates {describe(old)} became "
                    f"{'None' if new is None else describe(new)}"
                )
            values[i] = cast(new, self.dtypes[i])
        return self.with_values(values)

    def freeze(self, selected: Selection) -> FlatUpdates:
        """The same, with the selected leaves absent from here on and zeros as final updates."""
        values, params, frozen = list(self.values), list(self.params), dict(self.frozen)
        for i, (value, chosen) in enumerate(zip(self.values, selected, strict=True)):
            if chosen and value is not None:
                frozen[i] = cast(jnp.zeros_like(value), self.dtypes[i])
                values[i] = params[i] = None
        return replace(self, values=values, params=params, frozen=frozen)

    def leaving(self, *, rounded: bool) -> FlatUpdates:
        """The final updates.

        rounded: each is in the dtype of its parameter; otherwise it is in float32 or wider, for a
        wrapper or for a link that is LAST.
        """
        values = [
            v if v is None or v.dtype == dtype else cast(v, dtype)
            for v, dtype in zip(
                [self.frozen.get(i, v) for i, v in enumerate(self.values)],
                self.out_dtypes if rounded else self.dtypes,
                strict=True,
            )
        ]
        return replace(self, values=values, frozen={})

    def result(self) -> Updates:
        """The updates as a tree."""
        return self.leaves.tree(self.values)

    def applied_to(self, params: Params) -> Params:
        """The params after the updates, which may have been applied already."""
        if self.applied is None:
            return apply_updates(params, self.result())
        pairs = zip(align(self.leaves, self.applied, self.name), self.aligned_params, strict=True)
        return self.leaves.tree(old if new is None else new for new, old in pairs)
