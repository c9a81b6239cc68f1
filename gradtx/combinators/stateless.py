"""Transformations from plain functions, and the two that need no formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gradtx.core.decorators import per_leaf, per_tree
from gradtx.core.state import EmptyState, Params
from gradtx.core.transformation import GradientTransformation, as_transformation


@per_leaf
def identity() -> Any:
    """u = g"""
    return lambda grad: grad


@per_leaf
def set_to_zero() -> Any:
    """u = 0"""
    return lambda: 0.0


@per_tree
def stateless(f: Callable[..., Any]) -> Any:
    """u = f(g, params), on whole trees; f keeps the shapes of the leaves.

    params is None for f when update was called without it.
    """
    return lambda updates, params=None: f(updates, params)


@per_leaf
def stateless_with_tree_map(f: Callable[..., Any]) -> Any:
    """u = f(g, param), leaf by leaf; param is None when update was called without params."""
    return lambda grad, param=None: f(grad, param)


def init_empty_state(params: Params) -> EmptyState:
    """The first state of a transformation that keeps none."""
    return EmptyState()


def with_extra_args_support(tx: Any) -> Any:
    """A transformation whose update takes extra arguments, and passes on those that it knows.

    Those of gradtx do by themselves; it is for a pair of functions, or Optax's.
    """
    return as_transformation(tx, "with_extra_args_support: tx")


# Optax's name for a transformation whose update takes extra arguments: here all do.
GradientTransformationExtraArgs = GradientTransformation

# Optax's names for the states of transformations that keep none.
AdaptiveGradClipState = EmptyState
AddDecayedWeightsState = EmptyState
ClipByGlobalNormState = EmptyState
ClipState = EmptyState
NonNegativeParamsState = EmptyState
NormalizeState = EmptyState
ScaleByTrustRatioState = EmptyState
ScaleState = EmptyState
