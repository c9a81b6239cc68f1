"""The classes of which states are made are public, under Optax's names where it has them."""

import functools
from typing import Any

import jax
import optax
import pytest

import gradtx
import gradtx.torch
from gradtx.core.origin import is_nothing
from gradtx.core.per_leaf import LeafTransformation
from gradtx.core.ruled import Ruled

from .registry import Example, for_every
from .running import given, params, spec


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
            module = gradtx.torch if made.__module__.startswith("gradtx.torch.") else gradtx
            assert getattr(module, made.__name__, None) is made, f"{made} is not in {module}"


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


# -- what is no state of it ------------------------------------------------------------------------

# Of every shape that a state may have: a rule's, a chain's, a mask's, a wrapper's, none at all.
OTHERS = {
    "adamw": gradtx.adamw(0.1),
    "lion": gradtx.lion(0.1),
    "momentum": gradtx.trace(0.9),
    "adafactor": gradtx.adafactor(0.1),
    "scheduled": gradtx.trace(gradtx.constant_schedule(0.9)),
    "one in a chain": gradtx.chain(gradtx.scale_by_amsgrad()),
    "named": gradtx.named_chain(("adam", gradtx.adam(0.1))),
    "masked": gradtx.masked(gradtx.scale_by_amsgrad(), True),
    "groups": gradtx.partition({".*": gradtx.adam(0.1)}),
    "accumulated": gradtx.accumulate(gradtx.adam(0.1), 2),
    "injected": gradtx.inject_hyperparams(gradtx.adam)(0.1),
}


@functools.cache
def states() -> dict[str, Any]:
    """Of the others; and what is no state of anything."""
    made = {name: jax.eval_shape(tx.init, spec(params())) for name, tx in OTHERS.items()}
    return made | {"a dict": {"mu": 0}, "a number": 0, "arrays": params()}


def plain(tx: Any, state: Any) -> Any:
    """The structure of a state, without a count that a plain number leaves unused."""
    if isinstance(tx, Ruled) and not tx.counted and isinstance(state, gradtx.ScheduledState):
        return jax.tree.structure(state.inner_state)
    return jax.tree.structure(state)


@for_every(where=lambda e: type(e.make()) is not gradtx.GradientTransformation, slow=True)
def test_a_state_of_another_transformation_is_refused(example: Example) -> None:
    """By a ValueError that says to whom it was given; nothing else, and never in silence. A rule
    of a user's own that does not say what it keeps may have to be run to see that it cannot be."""
    tx, tree = example.make(), params()
    grads, own = given(example, tree), jax.eval_shape(tx.init, spec(tree))
    own_rules = example.name.startswith("own ")
    for name, state in states().items():
        if plain(tx, state) == jax.tree.structure(own) or (is_nothing(own) and is_nothing(state)):
            continue
        if is_nothing(own) and isinstance(state, gradtx.ScheduledState):
            continue  # what keeps nothing may have had a schedule
        with pytest.raises(
            ValueError, match=None if own_rules else f"^{tx.definition.name}: "
        ) as caught:
            jax.eval_shape(lambda s: tx.update(grads, s, tree, **example.extra), state)
        assert own_rules or "Pass the state that its own init made" in str(caught.value), name


@for_every(where=lambda e: not e.foreign)
def test_a_rule_says_which_class_its_state_has(example: Example) -> None:
    """So that another's state is told before anything is computed with it."""
    tx = example.make()
    if isinstance(tx, Ruled) and tx.rule.init is not None and not example.name.startswith("own "):
        made = jax.eval_shape(tx.init, spec(params()))
        own = made.inner_state if isinstance(made, gradtx.ScheduledState) else made
        assert type(own) is tx.state_class


@for_every(where=lambda e: type(e.make()) is not gradtx.GradientTransformation)
def test_none_is_no_tree_of_parameters(example: Example) -> None:
    """It can only stand in the place of parameters that nobody looks at, as in Optax."""
    tx, tree = example.make(), params()
    held = jax.tree.leaves(jax.eval_shape(tx.init, spec(tree)))
    if any(x.shape for x in held):
        with pytest.raises(ValueError, match=f"^{tx.definition.name}: init needs the parameters"):
            tx.init(None)
    if type(tx) is LeafTransformation and tx.keeps_nothing:
        assert jax.tree.structure(tx.init(None)) == jax.tree.structure(tx.init(tree))
