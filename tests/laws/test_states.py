"""The classes of which states are made are public, under Optax's names where it has them."""

from typing import Any

import jax
import optax
import pytest

import gradtx

from .registry import Example, for_every
from .running import params, spec


def classes(state: Any) -> set[type]:
    """Of every named tuple in a state."""
    found = set()

    def look(x: Any) -> bool:
        if isinstance(x, tuple) and hasattr(x, "_fields"):
            found.add(type(x))
        return False

    jax.tree.map(lambda x: None, state, is_leaf=look)
    return found


@for_every(where=lambda e: not (e.foreign or e.name.startswith("own ")))
def test_every_class_in_a_state_is_public(example: Example) -> None:
    for made in classes(jax.eval_shape(example.make().init, spec(params()))):
        if made.__module__.startswith("gradtx."):  # a test's own examples have classes of their own
            assert getattr(gradtx, made.__name__, None) is made, f"{made} is not in gradtx"


def test_classes_are_found() -> None:
    """So that the law above is known to fail: within tuples, dicts and other classes."""
    inside = {"a": (gradtx.EmptyState(), gradtx.MaskedState(gradtx.TraceState(1.0)))}
    assert classes(inside) == {gradtx.EmptyState, gradtx.MaskedState, gradtx.TraceState}


def empty(lib: Any) -> list[str]:
    return [name for name in dir(lib) if getattr(lib, name) is optax.EmptyState]


@pytest.mark.parametrize("name", [*empty(optax), *empty(optax.contrib)])
def test_empty_states_of_optax_are_empty_here(name: str) -> None:
    assert getattr(gradtx, name) is gradtx.EmptyState
    assert name in gradtx.__all__
