"""The updates on their way through a line of links: flattened once, rounded once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core.dtypes import cast, compute_dtype, is_inexact, real_dtype, widen_tree
from gradtx.core.leaves import Leaves, align, at, check_arrays, check_floating, describe, flatten
from gradtx.core.mask import Mask, hide
from gradtx.core.problem import PROBLEM, negated, seen_as
from gradtx.core.state import Params, Updates

if TYPE_CHECKING:
    from gradtx.core.transformation import GradientTransformation, Link

_HINT = ", as jax.vmap(jax.grad(loss), (None, 0)) makes them"


class Work:
    """`values[i]` is the update of leaf i so far, None where the tree has none."""

    def __init__(self, name: str, updates: Updates, params: Params | None):
        self.name = name
        self.leaves = Leaves.of(updates)
        self.values = check_arrays(self.leaves, name)
        self.params: list[Any] = [None] * len(self.values)
        self._all_params = list(self.params)
        if params is not None:
            self._all_params = align(self.leaves, params, f"{self.name}: params")
            self.params = self._shown(self._all_params)
        self.has_params = params is not None
        pairs = list(zip(self.values, self.params, strict=True))
        self.out_dtypes = [
            None if v is None else (p if p is not None and is_inexact(v) else v).dtype
            for v, p in pairs
        ]
        self._compute_dtypes = [None if v is None else _wide_dtype(v, p) for v, p in pairs]
        self._selections: dict[tuple[Mask, ...], list[bool]] = {}
        self._left: dict[tuple[bool, ...], Leaves] = {}
        self._frozen: dict[int, jax.Array] = {}

    def _shown(self, aligned: list[Any]) -> list[Any]:
        # Where there is no update the parameter is not looked at: it may be a whole subtree.
        shown = [None if v is None else p for v, p in zip(self.values, aligned, strict=True)]
        return check_arrays(Leaves(self.leaves.treedef, shown), f"{self.name}: params")

    def check_shapes(self, per_example: list[bool]) -> None:
        """Refuse updates that do not have the shape of their parameter, where `per_example` behind
        a first axis of examples, of one length for all."""
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

    def _at(self, i: int) -> str:
        return f"{self.name}: {at(self.leaves.paths[i])}: updates {describe(self.values[i])}"

    def compute_dtype(self, i: int) -> Any:
        """The dtype in which the maths of leaf i is done."""
        return self._compute_dtypes[i]

    def widest_real_dtype(self) -> Any:
        """The dtype of numbers that belong to the whole tree."""
        return real_dtype(compute_dtype(*(d for d in self._compute_dtypes if d is not None)))

    def check_floating(self, selections: list[list[bool]]) -> None:
        """Refuse a leaf without a gradient, such as an integer, unless it is masked everywhere."""
        seen = [any(flags) for flags in zip(*selections, strict=True)] if selections else []
        for name, arrays in ((self.name, self.values), (f"{self.name}: params", self.params)):
            acted_on = [x if s else None for x, s in zip(arrays, seen, strict=bool(seen))]
            check_floating(self.leaves, acted_on, name)

    def selected(self, masks: tuple[Mask, ...]) -> list[bool]:
        """For each leaf, whether every mask selects it. Masks look at params if they are given."""
        if masks not in self._selections:
            seen = self.params if self.has_params else self.values
            selected = [True] * len(seen)
            # From the outermost, the last, inwards: each sees the leaves that are left, as in init.
            for mask in reversed(masks):
                left = tuple(selected)
                if left not in self._left:
                    self._left[left] = Leaves.of(hide(self.leaves, seen, selected))
                flags = iter(mask.select(self._left[left], f"{self.name}: mask"))
                selected = [s and next(flags) for s in selected]
            self._selections[masks] = selected
        return self._selections[masks]

    def visible(self, extra: dict[str, Any], masks: tuple[Mask, ...]) -> dict[str, Any]:
        """The extra arguments as a link under these masks sees them: those that say the problem are
        of the leaves that it sees, the others alone; further trees like the updates are masked by
        those masks that say so."""
        if not extra:
            return extra
        if sum(mask.negates for mask in masks) % 2:
            extra = negated(extra)
        return self._of_group(self._covered(extra, masks), self.selected(masks))

    def _covered(self, extra: dict[str, Any], masks: tuple[Mask, ...]) -> dict[str, Any]:
        """With leaves hidden in trees like the updates, by the outermost masks that say so."""
        covering = tuple(itertools.takewhile(lambda mask: mask.covers_extra, reversed(masks)))
        if not covering:
            return extra
        selected = self.selected(covering[::-1])

        def seen(x: Any) -> Any:
            values, treedef = flatten(x)
            return hide(self.leaves, values, selected) if treedef == self.leaves.treedef else x

        return {name: x if name in PROBLEM else seen(x) for name, x in extra.items()}

    def _of_group(self, extra: dict[str, Any], selected: list[bool]) -> dict[str, Any]:
        """The same problem for the selected leaves alone: the others are where they are now."""
        seen = [s and v is not None for s, v in zip(selected, self.values, strict=True)]
        triples = zip(seen, selected, self._all_params, strict=True)
        if all(s and (v or p is None) for v, s, p in triples):
            return extra

        def whole(group: Params, others: list[Any] = self._all_params) -> Params:
            parts = align(self.leaves, group, f"{self.name}: params of a group")
            triples = zip(seen, parts, others, strict=True)
            return self.leaves.tree(x if s else p for s, x, p in triples)

        def searched(group: Params) -> Params:
            return whole(group, lax.stop_gradient(self._all_params))

        def group(grad: Updates) -> Updates:
            parts = align(self.leaves, grad, f"{self.name}: grad")
            pairs = zip(self.values, parts, strict=True)
            return self._hide([None if v is None else g for v, g in pairs], selected)

        if not self.has_params:
            return seen_as(extra, grad=group)
        return seen_as(extra, grad=group, params=whole, searched=searched)

    def tree(self, selected: list[bool]) -> Updates:
        """The updates so far as a tree, in float32 or wider."""
        self.values = [
            v if v is None or v.dtype == d else cast(v, d)
            for v, d in zip(self.values, self._compute_dtypes, strict=True)
        ]
        return self._hide(self.values, selected)

    def params_tree(self, selected: list[bool]) -> Params | None:
        """The params as a tree, in float32 or wider."""
        return widen_tree(self.stored_params_tree(selected))

    def stored_params_tree(self, selected: list[bool]) -> Params | None:
        """The params as a tree, in the dtypes in which they were given."""
        return self._hide(self.params, selected) if self.has_params else None

    def needed_tree(self, selected: list[bool], ignored: list[bool]) -> Updates:
        """The updates so far, with zeros where the gradient is ignored."""
        if not any(ignored):
            return self.tree(selected)
        pairs = zip(self.values, ignored, strict=True)
        shown = [None if v is None else jnp.zeros_like(v) if i else v for v, i in pairs]
        return self._hide(shown, selected)

    def ignored_by(self, links: Sequence[Link]) -> list[bool]:
        """For each leaf, whether the first link that acts on it does not look at its gradient."""
        ignored = [False] * len(self.values)
        if not any(link.transformation._can_ignore() for link in links):
            return ignored
        undecided = [value is not None for value in self.values]
        for link in links:
            selected = self.selected(link.masks)
            here = link.transformation._ignored(self, selected)
            for i, chosen in enumerate(selected):
                if chosen and undecided[i]:
                    ignored[i], undecided[i] = here[i], False
        return ignored

    def ignored_inside(
        self, inside: Sequence[GradientTransformation], selected: list[bool]
    ) -> list[bool]:
        """The same of transformations inside of a link, on those leaves that the link sees."""
        seen = Work(self.name, self.tree(selected), self.stored_params_tree(selected))
        flags = [seen.ignored_by(tx._links()) for tx in inside]
        together = iter(map(all, zip(*flags, strict=True)))
        return [next(together) if shown else False for shown in self.shown(selected)]

    def without_update(self, selected: list[bool]) -> list[str]:
        """The paths of the selected parameters that have no update."""
        triples = zip(self.leaves.paths, self.values, self._all_params, selected, strict=True)
        return [path for path, v, p, s in triples if s and v is None and p is not None]

    def shown(self, selected: list[bool]) -> list[bool]:
        """Which leaves a link is shown. An absent one always: what a mask says of it now may differ
        from what it said of the parameter in init, and the state may hold the leaf."""
        return [s or v is None for s, v in zip(selected, self.values, strict=True)]

    def _hide(self, values: list[Any], selected: list[bool]) -> Any:
        return hide(self.leaves, values, self.shown(selected))

    def put(
        self, tree: Updates, selected: list[bool], where: str, per_example: bool = False
    ) -> None:
        """Take the selected leaves of a transformed tree as the new updates; per_example: without
        the first axis of the old ones."""
        for i, new in enumerate(align(self.leaves, tree, f"{where}: what it returned")):
            old = self.values[i]
            if not selected[i] or old is None:
                continue
            if new is None or np.shape(new) != np.shape(old)[per_example:]:
                raise ValueError(
                    f"{where}: {at(self.leaves.paths[i])}: updates {describe(old)} became "
                    f"{'None' if new is None else describe(new)}"
                )
            self.values[i] = cast(new, self._compute_dtypes[i])

    def freeze(self, selected: list[bool]) -> None:
        """These leaves are absent to what follows, and their updates leave as zeros."""
        for i, (value, chosen) in enumerate(zip(self.values, selected, strict=True)):
            if chosen and value is not None:
                self._frozen[i] = cast(jnp.zeros_like(value), self._compute_dtypes[i])
                self.values[i] = self.params[i] = None

    def result(self, *, rounded: bool = True) -> Updates:
        """The updates as they leave: each in the dtype of its parameter, or unrounded for a
        combinator that goes on with them."""
        dtypes = self.out_dtypes if rounded else self._compute_dtypes
        leaving = [self._frozen.get(i, v) for i, v in enumerate(self.values)]
        return self.leaves.tree(
            v if v is None or v.dtype == d else cast(v, d)
            for v, d in zip(leaving, dtypes, strict=True)
        )


def _wide_dtype(update: Any, param: Any) -> Any:
    """The dtype of the maths of one leaf; its own, where it has no gradient."""
    if not is_inexact(update):
        return update.dtype
    return compute_dtype(update.dtype, *([] if param is None else [param.dtype]))
