"""Leaves without an update: a tree rule does not see their state, which stays as it is."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from gradtx.core.dtypes import widen
from gradtx.core.leaves import Leaves, align, at, describe
from gradtx.core.state import (
    OptState,
    Updates,
    fields_by_leaf,
    fields_like_params,
    fields_of_past_params,
    is_named_tuple,
)


def seen_by_rule(own: OptState, updates: Updates, where: str) -> OptState:
    """A tree rule's state, in which fields annotated `LikeParams`, `PastParams` or `Factors` have
    None for leaves without an update and the others widened."""
    if not is_named_tuple(own) or not any(fields_by_leaf(type(own))):
        return own
    for name in fields_of_past_params(type(own)):
        if misfit := _misfit(name, getattr(own, name), updates, exact=True):
            raise ValueError(f"{where}: {misfit}")
    fields = zip(own._fields, own, fields_by_leaf(type(own)), strict=True)
    return type(own)(
        *(
            _seen(updates, x, f"{where}: the state's {name}") if like else x
            for name, x, like in fields
        )
    )


def misfit_of(own: OptState, updates: Updates) -> str | None:
    """An error message if a tree rule's state is for params of other shapes than the updates.

    Leaves of the state may have extra leading axes, such as that of a history of past updates.
    """
    if not is_named_tuple(own):
        return None
    fields = zip(own._fields, own, fields_like_params(type(own)), strict=True)
    found = (_misfit(name, tree, updates) for name, tree, like in fields if like)
    return next(filter(None, found), None)


def _misfit(name: str, tree: Any, updates: Updates, *, exact: bool = False) -> str | None:
    if tree is None:
        return None
    leaves = Leaves.of(updates)
    parts = align(leaves, tree, f"the state's {name}")
    for path, u, x in zip(leaves.paths, leaves.values, parts, strict=True):
        if u is None or x is None or (np.size(x) == 0 and not exact):  # a placeholder
            continue
        shape = np.shape(x) if exact else np.shape(x)[np.ndim(x) - np.ndim(u) :]
        if shape != np.shape(u):
            return (
                f"{at(path)}: updates {describe(u)} do not fit the state's {name}, "
                f"{describe(x)}; was the state made by init on params of these shapes?"
            )
    return None


def _seen(updates: Updates, tree: Any, what: str) -> Any:
    shown = drop_absent(updates, tree, what)

    def widened(u: jax.Array, x: Any) -> Any:
        return jax.tree.map(lambda y: widen(y, u.dtype), x)

    return None if tree is None else jax.tree.map(widened, updates, shown)


def with_unseen(own: OptState, new: OptState, updates: Updates) -> OptState:
    """The inverse of `seen_by_rule`: the new state, with old leaves where there is no update."""
    if type(own) is not type(new) or not is_named_tuple(own):
        return new
    fields = zip(own, new, fields_by_leaf(type(own)), strict=True)
    return type(own)(*(restore_absent(updates, x, y) if like else y for x, y, like in fields))


def drop_absent(updates: Updates, tree: Any, what: str = "the tree") -> Any:
    """A tree structured like the params, with None where there is no update. None stays None."""
    if tree is None:
        return None
    leaves = Leaves.of(updates)
    aligned = align(leaves, tree, what)
    return leaves.tree(
        None if u is None else x for u, x in zip(leaves.values, aligned, strict=True)
    )


def restore_absent(updates: Updates, old: Any, new: Any) -> Any:
    """The new tree, with the old leaves where there is no update."""
    if old is None:
        return new
    leaves = Leaves.of(updates)
    pairs = zip(align(leaves, old, "the old tree"), align(leaves, new, "the new tree"), strict=True)
    return leaves.tree(
        x if u is None else y for u, (x, y) in zip(leaves.values, pairs, strict=True)
    )
