"""Rules that need the whole tree at once."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.dtypes import (
    bind_numbers,
    cast,
    is_inexact,
    real_dtype_of,
    strengthen,
    widen_tree,
)
from gradtx.core.leaves import Leaves, check_arrays, check_floating, values_needed
from gradtx.core.origin import in_classes_of
from gradtx.core.rule import Rule, Step, as_rule, split_result
from gradtx.core.state import (
    EmptyState,
    OptState,
    Params,
    join_count,
    misfit_of,
    new_state,
    seen_by_rule,
    start,
    with_unseen,
)
from gradtx.core.transformation import Link, Ruled
from gradtx.core.work import Work


class TreeTransformation(Ruled):
    """A transformation given by the maths of one tree."""

    names = ("updates", "needed", "state", "params", "stored_params", "step")

    def _can_ignore(self) -> bool:
        return "needed" in self.asks.names and any(
            link.transformation._can_ignore() for tx in self._inside for link in tx._links()
        )

    def _ignored(self, work: Work, selected: list[bool]) -> list[bool]:
        if not self._can_ignore():
            return [False] * len(selected)
        return work.ignored_inside(self._inside, selected)

    def _init(self, params: Params) -> OptState:
        own: Any = EmptyState()
        if self.rule.init is not None:
            leaves = Leaves.of(params)
            values = check_arrays(leaves, self.definition.name, shapes_too=True)
            check_floating(leaves, values, self.definition.name)
            rule = self._rule(start(), real_dtype_of(values))
            init: Any = rule.init
            stored = leaves.tree(values)
            available = {
                "params": widen_tree(stored),
                "stored_params": stored,
                "step": Step(start()),
            }
            with values_needed(self.definition.name, values):
                own = jax.tree.map(strengthen, self.init_asks.call(init, available))
        return new_state(own, counted=self.counted)

    def _rule(self, count: Any, dtype: Any) -> Rule:
        """The rule with the numbers of this step."""
        name = self.definition.name
        numbers = {
            n: bind_numbers(x, dtype, f"{name}: {n}") for n, x in self.numbers_at(count).items()
        }
        return as_rule(self.definition.call(dict(self.arguments) | numbers), name)

    def _run(self, state: OptState, work: Work, link: Link, extra: dict[str, Any]) -> OptState:
        own, old_count, count = self.read_count(state)
        selected = work.selected(link.masks)
        rule = self._rule(old_count, work.widest_real_dtype())
        tree = work.tree(selected)
        seen = seen_by_rule(own, tree, self.definition.name)
        given = work.visible(self.asks.of(extra), link.masks)
        available = {
            "updates": tree,
            "needed": work.needed_tree(selected, self._ignored(work, selected)),
            "state": seen,
            "params": work.params_tree(selected),
            "stored_params": work.stored_params_tree(selected),
            "step": Step(count),
        }
        try:
            result = self.asks.call(rule.update, available, given)
        except AttributeError as error:
            if error.obj is not seen:
                raise
            raise self.foreign_state(state) from error
        except (TypeError, ValueError) as error:
            misfit = misfit_of(own, tree) if type(error) in (TypeError, ValueError) else None
            if misfit is None:
                raise
            raise ValueError(f"{self.definition.name}: {misfit}") from error
        updates, new = split_result(rule, result, self.definition.name)
        work.put(updates, selected, self.definition.name, self.per_example)
        if self.keeps_nothing:
            return state
        new = in_classes_of(own, with_unseen(own, new, tree))
        return join_count(count, state, _like(own, new, self.definition.name))


def _like(old: Any, new: Any, where: str) -> Any:
    """The new state in the dtypes of the old one; another structure or shape is an error."""

    def same(path: Any, before: Any, after: Any) -> Any:
        if np.shape(before) != np.shape(after):
            raise ValueError(
                f"{where}: the state{jax.tree_util.keystr(path)} changed its shape from "
                f"{np.shape(before)} to {np.shape(after)}"
            )
        if not hasattr(before, "dtype"):  # a number that a user set in the state
            return strengthen(after)
        whole = all(jnp.issubdtype(jnp.asarray(x).dtype, jnp.integer) for x in (before, after))
        return cast(after, before.dtype) if whole or is_inexact(before) else strengthen(after)

    structure: Any = jax.tree.structure(old)
    if structure != jax.tree.structure(new):
        raise ValueError(
            f"{where}: the new state has another structure than the old one: "
            f"{jax.tree.structure(new)} instead of {structure}"
        )
    return jax.tree_util.tree_map_with_path(same, old, new)
