"""Rules of a whole tree, and wrappers: tree rules that run other transformations."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_flatten_with_path

from gradtx.core.absent import misfit_of, seen_by_rule, with_unseen
from gradtx.core.counts import (
    check_uncounted,
    first_state,
    join_count,
    split_count,
    start,
    without_count,
)
from gradtx.core.dtypes import (
    bind_numbers,
    cast,
    drop_weak_type,
    is_inexact,
    real_dtype_of,
    widen_tree,
)
from gradtx.core.flat_updates import FlatUpdates, Selection
from gradtx.core.hyperparameters import Instance, Kind
from gradtx.core.inner import Inner
from gradtx.core.leaves import (
    KeyPath,
    Leaves,
    check_arrays,
    check_floating,
    shown,
    value_at,
    values_needed,
)
from gradtx.core.meshes.manual import named
from gradtx.core.meshes.placing import factors_parted, trees_alike
from gradtx.core.origin import in_classes_of, show_class, show_state
from gradtx.core.place import Place
from gradtx.core.problem import Extra
from gradtx.core.rule import Rule, as_rule, split_result
from gradtx.core.ruled import Ruled
from gradtx.core.run import Stage
from gradtx.core.state import EmptyState, OptState, Params, is_named_tuple
from gradtx.core.step import Step
from gradtx.core.transformation import GradientTransformation, Inside, from_functions


class TreeTransformation(Ruled):
    """A transformation defined by the maths of one tree."""

    init_names = ("params", "step")
    update_names = ("updates", "needed", "unwidened", "state", "params", "step")

    @cached_property
    def _bound_names(self) -> tuple[str, ...]:  # type: ignore[override]
        kinds = self.definition.parameters.items()
        return tuple([n for n, kind in kinds if _is_of_transformation(kind)])

    def _bound(
        self, params: Params | None, extra: Extra, applies: bool = False
    ) -> dict[str, Inner]:
        """The transformations among the arguments, bound to this step."""
        bind = functools.partial(Inner, params=params, extra=extra, applies=applies)
        return {
            name: jax.tree.map(bind, self.arguments[name], is_leaf=_is_transformation)
            for name in self._bound_names
        }

    def _inside_at(self, state: OptState) -> Sequence[Inside]:
        _, own = split_count(state)
        return [Inside(label, tx, value_at(own, keys)) for label, tx, keys in self._places]

    @cached_property
    def _places(self) -> list[tuple[str, GradientTransformation, KeyPath]]:
        """Where in the rule's own state the states of the transformations inside are, found by
        calling its init with ones whose state is a mark. One whose state it does not keep is left
        out."""
        arguments = {name: self.arguments[name] for name in self._bound_names}
        inside, treedef = jax.tree.flatten(arguments, is_leaf=_is_transformation)
        marking = jax.tree.unflatten(treedef, map(_marking, range(len(inside))))
        marked = self._of(self.definition, self._unscheduled | marking)
        try:
            own = jax.eval_shape(lambda: split_count(marked._init({}))[1])
        except (AttributeError, TypeError, ValueError) as error:
            raise TypeError(
                f"{self.definition.name}: its init computes with the state of what is inside, so "
                "that its place cannot be found"
            ) from error
        kept = tree_flatten_with_path(own, is_leaf=_is_mark)[0]
        keys = {x.index: keys for keys, x in reversed(kept) if _is_mark(x)}
        names = tree_flatten_with_path(arguments, is_leaf=_is_transformation)[0]
        labels = [shown(path) if len(inside) > 1 else "" for path, _ in names]
        return [(labels[i], tx, keys[i]) for i, tx in enumerate(inside) if i in keys]

    def _can_ignore(self) -> bool:
        return not self.inputs.names.isdisjoint(("needed", "unwidened")) and any(
            link.transformation._can_ignore() for tx in self._inside for link in tx._links
        )

    def _ignored(self, flat: FlatUpdates, selected: Selection) -> list[bool]:
        if not self._can_ignore():
            return [False] * len(selected)
        return flat.ignored_inside(self._inside, selected)

    @cached_property
    def _counts_are_own(self) -> bool:
        """Whether counts in its state are surely its own: the state of a wrapper may be that of its
        inner transformation, which counts itself."""
        return not self._binds or self.state_class is not None

    def _rule(self, count: Any, dtype: np.dtype) -> Rule:
        """The rule with its hyperparameters at this step; arrays among them in `dtype`."""
        name = self.definition.name
        numbers = {
            n: bind_numbers(x, dtype, f"{name}: {n}") for n, x in self.numbers_at(count).items()
        }
        return as_rule(self.definition.call(self._options | numbers), name)

    def _init(self, params: Params) -> OptState:
        own: OptState = EmptyState()
        name = self.definition.name
        if self.rule.init is not None:
            leaves = Leaves.of(params)
            values = check_arrays(leaves, name, shapes_too=True)
            check_floating(leaves, values, name)
            init: Any = self._rule(start(), real_dtype_of(values)).init
            stored, step = leaves.tree(values), Step(start())
            available = {"params": widen_tree(stored), "stored_params": stored, "step": step}
            available |= self._bound(stored, {})
            with values_needed(name, values), named(name):
                own = self.init_inputs.call(init, available)
            if self._counts_are_own:
                check_uncounted(name, own, step.count)
            own = trees_alike(jax.tree.map(drop_weak_type, own), available["params"])
            own = factors_parted(own, values)
        return first_state(own, counted=self.counted)

    def _run(self, stage: Stage, flat: FlatUpdates) -> tuple[FlatUpdates, list[OptState]]:
        (link,), (state,), (selected,) = stage.links, stage.states, stage.selections
        given, flat, name = flat, flat.widened(), self.definition.name
        own, old_count, count = self.read_count(state)
        rule = self._rule(old_count, flat.widest_real_dtype)
        tree, stored = flat.tree(selected), flat.stored_params_tree(selected)
        seen = seen_by_rule(own, tree, name)
        if self._counts_are_own:
            seen = without_count(seen)
        # Only these: others are costly to translate, or for other links and of any kind.
        asked = stage.extra if self._binds else self.inputs.of(stage.extra)
        extra = flat.visible(asked, link.masks)
        ignored = self._ignored(flat, selected)
        available = {
            "updates": tree,
            "needed": flat.needed_tree(selected, ignored),
            "unwidened": given.needed_tree(selected, ignored),
            "state": seen,
            "params": widen_tree(stored),
            "stored_params": stored,
            "step": Step(count),
        } | self._bound(stored, extra, stage.applying and all(selected) and not flat.frozen)
        try:
            with named(name):
                result = self.inputs.call(rule.update, available, self.inputs.of(extra))
        except AttributeError as error:
            if error.obj is not seen:
                raise
            raise self.foreign_state(state) from error
        except (TypeError, ValueError) as error:
            # JAX's own errors explain themselves, and so does one that begins with the rule's name.
            plain = type(error) in (TypeError, ValueError) and not str(error).startswith(name)
            misfit = misfit_of(own, tree) if plain else None
            if misfit is None:
                raise
            raise ValueError(f"{name}: {misfit}") from error
        updates, new = split_result(rule, result, name)
        flat = flat.put(updates, selected, name, from_examples=Place.FIRST in self.place)
        if self.keeps_nothing:
            return flat, [state]
        if self._counts_are_own:
            check_uncounted(name, new, count)
            own, new = without_count(own), without_count(new)
        new = in_classes_of(own, with_unseen(own, new, tree))
        new = _like(own, factors_parted(new, flat.values), name)
        return flat, [join_count(count, state, new)]


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Mark:
    """Stands for the state of a transformation inside a wrapper; it holds no arrays."""

    index: int


def _is_mark(x: object) -> TypeGuard[_Mark]:
    return isinstance(x, _Mark)


def _marking(index: int) -> GradientTransformation:
    """A transformation whose state is a mark."""
    return from_functions(lambda params: _Mark(index), lambda u, state, params=None: (u, state))


def _is_transformation(x: object) -> bool:
    return isinstance(x, GradientTransformation)


def _is_of_transformation(kind: Kind) -> bool:
    value_class = kind.value_class if isinstance(kind, Instance) else None
    return value_class is not None and issubclass(value_class, GradientTransformation)


def _like(old: OptState, new: OptState, where: str) -> OptState:
    """The new state in the dtypes of the old one; another structure or shape is an error."""

    def same(path: Any, before: Any, after: Any) -> Any:
        if np.shape(before) != np.shape(after):
            raise ValueError(
                f"{where}: the state{jax.tree_util.keystr(path)} changed its shape from "
                f"{np.shape(before)} to {np.shape(after)}"
            )
        if not hasattr(before, "dtype"):  # a Python number that a user put into the state
            return drop_weak_type(after)
        whole = all(jnp.issubdtype(jnp.asarray(x).dtype, jnp.integer) for x in (before, after))
        return cast(after, before.dtype) if whole or is_inexact(before) else drop_weak_type(after)

    if is_named_tuple(old) and type(new) is not type(old):
        raise TypeError(
            f"{where}: update must return the state as {show_class(type(old))}, it returned "
            f"{show_state(new)}"
        )
    structure: Any = jax.tree.structure(old)
    if structure != jax.tree.structure(new):
        raise ValueError(
            f"{where}: the new state has another structure than the old one: "
            f"{jax.tree.structure(new)} instead of {structure}"
        )
    return jax.tree_util.tree_map_with_path(same, old, new)
