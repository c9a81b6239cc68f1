"""Leaves for which there is no update: a rule of trees does not see their state, which stays."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from gradtx.core.dtypes import widen
from gradtx.core.leaves import Leaves, align, at, describe
from gradtx.core.state import (
    Updates,
    fields_like_params,
    fields_of_past_params,
    is_named_tuple,
)


def seen_by_rule(own: Any, updates: Updates, where: str) -> Any:
    """A tree rule's state without the leaves for which there is no update."""
    if not is_named_tuple(own) or not any(fields_like_params(type(own))):
        return own
    for name in fields_of_past_params(type(own)):
        if misfit := _misfit(name, getattr(own, name), updates, exact=True):
            raise ValueError(f"{where}: {misfit}")
    fields = zip(own._fields, own, fields_like_params(type(own)), strict=True)
    return type(own)(
        *(
            _seen(updates, x, f"{where}: the state's {name}") if like else x
            for name, x, like in fields
        )
    )


def misfit_of(own: Any, updates: Updates) -> str | None:
    """What to say of a tree rule's state if it is of parameters of other shapes than the updates.

    A leaf of the state may have axes before those of the parameter, as a memory has.
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
        if u is None or x is None:
            continue
        shape = np.shape(x) if exact else np.shape(x)[np.ndim(x) - np.ndim(u) :]
        if shape != np.shape(u):
            return (
                f"{at(path)}: updates {describe(u)} do not fit the state's {name}, "
                f"{describe(x)}; was the state made by init on params of these shapes?"
            )
    return None


def _seen(updates: Updates, tree: Any, what: str) -> Any:
    shown = given(updates, tree, what)

    def widened(u: Any, x: Any) -> Any:
        return None if x is None else widen(x, u.dtype)

    return None if tree is None else jax.tree.map(widened, updates, shown)


def with_unseen(own: Any, new: Any, updates: Updates) -> Any:
    """The new state with the old leaves for which there is no update."""
    if type(own) is not type(new) or not is_named_tuple(own):
        return new
    fields = zip(own, new, fields_like_params(type(own)), strict=True)
    return type(own)(*(kept(updates, x, y) if like else y for x, y, like in fields))


def given(updates: Updates, tree: Any, what: str = "the tree") -> Any:
    """A tree like the params with None where there is no update. None as a whole stays None."""
    if tree is None:
        return None
    leaves = Leaves.of(updates)
    aligned = align(leaves, tree, what)
    return leaves.tree(
        None if u is None else x for u, x in zip(leaves.values, aligned, strict=True)
    )


def kept(updates: Updates, old: Any, new: Any) -> Any:
    """The new tree, but the old leaf where there is no update."""
    if old is None:
        return new
    leaves = Leaves.of(updates)
    pairs = zip(align(leaves, old, "the old tree"), align(leaves, new, "the new tree"), strict=True)
    return leaves.tree(
        x if u is None else y for u, (x, y) in zip(leaves.values, pairs, strict=True)
    )
