"""Transformations from plain functions, and the two that need no formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from gradtx.core.decorators import per_leaf, per_tree
from gradtx.core.state import Updates

__all__ = ["identity", "set_to_zero", "stateless", "stateless_with_tree_map"]


@per_leaf
def identity() -> Callable[[jax.Array], jax.Array]:
    """u = g"""
    return lambda grad: grad


@per_leaf
def set_to_zero() -> Callable[[], float]:
    """u = 0"""
    return lambda: 0.0


@per_tree
def stateless(f: Callable[..., Any]) -> Callable[..., Updates]:
    """u = f(g, params), on whole trees; f keeps the shapes of the leaves.

    params is None if update was called without it.
    """
    return lambda updates, params=None: f(updates, params)


@per_leaf
def stateless_with_tree_map(f: Callable[..., Any]) -> Callable[..., jax.Array]:
    """u = f(g, param), leaf by leaf; param is None if update was called without params."""
    return lambda grad, param=None: f(grad, param)
