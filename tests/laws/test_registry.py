"""The registry holds every public transformation and schedule."""

import pytest

import gradtx
from gradtx import GradientTransformation, Schedule
from gradtx.core.per_leaf import LeafTransformation
from gradtx.core.per_tree import TreeTransformation
from gradtx.core.recipe import Recipe

from .registry import EXAMPLES, SCHEDULES, definitions, public

TRANSFORMATIONS = sorted(public(GradientTransformation))
PUBLIC_SCHEDULES = sorted(public(Schedule))


def test_discovery_finds_definitions_functions_and_both_modules() -> None:
    known = {"adam", "scale_by_adam", "chain", "named_chain", "masked", "torch.adam"}
    assert known <= set(TRANSFORMATIONS)
    known = {"linear_schedule", "sgdr_schedule", "join_schedules", "torch.step_lr"}
    assert known <= set(PUBLIC_SCHEDULES)


def test_every_public_name_has_an_example() -> None:
    without = set(TRANSFORMATIONS) - {example.name for example in EXAMPLES}
    assert not without, "they are public: give each an Example in tests/laws/examples"
    without = set(PUBLIC_SCHEDULES) - {example.name for example in SCHEDULES}
    assert not without, "they are public: give each a ScheduleExample in tests/laws/examples"


def test_examples_are_of_public_names() -> None:
    own = {e.name for e in EXAMPLES if e.name.startswith("own ")}
    assert {e.name for e in EXAMPLES} - own <= set(TRANSFORMATIONS)
    # Expressions are made by the operators and methods of the class.
    assert {e.name for e in SCHEDULES} <= {*PUBLIC_SCHEDULES, "Schedule"}


@pytest.mark.parametrize("kind", [GradientTransformation, Schedule])
def test_definitions_are_called_what_they_are_reached_by(kind: type) -> None:
    """So that a repr can be evaluated and an error says which of two it is."""
    found = definitions(kind)
    assert any(name.startswith("torch.") for name, _ in found)
    for name, definition in found:
        assert definition.name == name
        assert repr(definition).startswith(f"<{name}(")


def test_labels_tell_examples_apart() -> None:
    labels = [str(e) for e in (*EXAMPLES, *SCHEDULES)]
    assert len(labels) == len(set(labels))


def test_every_optimizer_has_an_example_with_rates() -> None:
    with_rates = {example.name for example in EXAMPLES if example.rates}
    optimizers = list(gradtx.optimizers.__all__)
    optimizers += [name for name in TRANSFORMATIONS if name.startswith("torch.")]
    # The last takes no vectors, which the laws of convergence have.
    others = {"torch.reduce_lr_on_plateau", "torch.adafactor", "torch.muon"}
    assert set(optimizers) - others <= with_rates


@pytest.mark.parametrize("kind", [GradientTransformation, Schedule])
def test_names_of_arguments_can_be_read(kind: type) -> None:
    """What a user's definition is refused for as it is made; the library's own are made unseen."""
    for _, definition in definitions(kind):
        if definition.value_class in (LeafTransformation, TreeTransformation, Recipe, Schedule):
            definition.check_names()
