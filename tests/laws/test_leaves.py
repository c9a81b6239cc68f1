"""Leaves that are absent, empty, of the wrong shape or of the wrong kind."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

from .registry import Example, for_every
from .running import (
    STEPS,
    assert_close,
    assert_finite,
    assert_same,
    first,
    given,
    grads,
    params,
    plain_run,
)

WRONG_SHAPES = [(2,), (3, 1), (1, 2), (2, 3), (3, 2, 1), ()]  # (3, 2) would broadcast with many


def update(example: Example, gradient: Any, state: Any, parameters: Any = None) -> Any:
    with jax.disable_jit():
        return example.make().update(gradient, state, parameters, **example.extra)


def trace(example: Example, gradient: Any, state: Any, parameters: Any = None) -> None:
    """What a jitted update does before it is compiled; errors are raised there."""
    extra = example.extra
    jax.eval_shape(
        lambda g, s, p: example.make().update(g, s, p, **extra), gradient, state, parameters
    )


def init(example: Example, parameters: Any) -> Any:
    with jax.disable_jit():
        return example.make().init(parameters)


# -- absent and empty ----------------------------------------------------------------------------


@for_every()
def test_none_in_params_and_gradients_stays_none(example: Example) -> None:
    """The other leaves are treated as if it were not there."""
    absent = {"w": {"kernel": params()["w"], "bias": None}, "b": None, "s": params()["s"]}
    gradient = {"w": {"kernel": first(grads(of=example))["w"], "bias": None}, "b": None}
    gradient["s"] = first(grads(of=example))["s"]
    state = init(example, absent)
    updates, new_state = update(example, gradient, state, absent)
    assert updates["b"] is None
    assert updates["w"]["bias"] is None
    assert jax.tree.structure(new_state) == jax.tree.structure(state)
    applied = gradtx.apply_updates(absent, updates)
    assert jax.tree.structure(applied) == jax.tree.structure(absent)
    if not example.couples:
        expected, _ = update(example, first(grads(of=example)), init(example, params()), params())
        assert_same(updates["w"]["kernel"], expected["w"])
        assert_same(updates["s"], expected["s"])


@for_every(where=lambda e: not e.one_vector)
def test_none_for_a_gradient_leaves_parameter_and_state(example: Example) -> None:
    gradient, parameters = first(grads(of=example)), params()
    _, state = update(example, gradient, init(example, parameters), parameters)
    updates, new_state = update(example, {**gradient, "b": None}, state, parameters)
    assert updates["b"] is None
    applied = gradtx.apply_updates(parameters, updates)
    assert applied["b"] is parameters["b"]
    if not example.foreign:  # Optax's rules put None into their state
        assert jax.tree.structure(new_state) == jax.tree.structure(state)
        assert_same(of_leaf("b", new_state), of_leaf("b", state))


def of_leaf(name: str, state: Any) -> list[Any]:
    """The parts of a state that belong to one leaf."""
    key = jax.tree_util.DictKey(name)
    return [x for path, x in jax.tree_util.tree_leaves_with_path(state) if key in path]


@for_every(where=lambda e: not e.whole_tree)
def test_empty_tree(example: Example) -> None:
    for empty in ({}, {"w": None}):
        state = init(example, empty)
        for _ in range(2):
            updates, new = update(example, empty, state, empty)
            assert updates == empty
            assert jax.tree.structure(new) == jax.tree.structure(state)
            state = new
        assert gradtx.apply_updates(empty, updates) == empty


@for_every()
def test_zero_size_leaves(example: Example) -> None:
    """Beside other leaves, which do not notice them, and alone."""
    nothing = {"w": jnp.zeros((0, 2)), "b": jnp.zeros((0,))}
    gradient, parameters = (
        {**first(grads(of=example)), **given(example, nothing)},
        {**params(), **nothing},
    )
    updates, _ = update(example, gradient, init(example, parameters), parameters)
    assert {k: x.shape for k, x in updates.items()} == {"w": (0, 2), "b": (0,), "s": ()}
    if not (example.couples or example.one_vector):
        expected, _ = update(example, first(grads(of=example)), init(example, params()), params())
        assert_same(updates["s"], expected["s"])
    alone = {**nothing, "s": jnp.zeros((3, 0))}
    updates, state = update(example, given(example, alone), init(example, alone), alone)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((updates, state)))


@for_every(
    where=lambda e: not (e.whole_tree or e.by_path) and e.name not in ("masked", "own per_tree")
)
def test_a_bare_array_is_a_tree(example: Example) -> None:
    if not isinstance(getattr(example.make(), "mask", None), type(None)):
        return
    gradient, parameter = first(grads(of=example))["w"], params()["w"]
    updates, _ = update(example, gradient, init(example, parameter), parameter)
    in_tree, _ = update(example, {"w": gradient}, init(example, {"w": parameter}), {"w": parameter})
    assert_same(updates, in_tree["w"])


# -- wrong ---------------------------------------------------------------------------------------


@for_every()
def test_gradient_of_another_shape_than_its_parameter_is_named(example: Example) -> None:
    state = init(example, params())
    for shape in WRONG_SHAPES:
        gradient = {**first(grads(of=example)), "w": given(example, jnp.ones(shape))}
        with pytest.raises(ValueError, match=r"\bat w\b") as raised:
            trace(example, gradient, state, params())
        shown = str(list(gradient["w"].shape)).replace(" ", "")
        assert shown in str(raised.value).replace(" ", "")


@for_every(where=lambda e: not e.needs_params and not e.foreign)
def test_gradient_of_another_shape_than_its_state_is_named(example: Example) -> None:
    """Without params only the state can tell."""
    state = init(example, params())
    if not any(x.ndim for x in of_leaf("w", state)):
        return
    for shape in WRONG_SHAPES:
        gradient = {**first(grads(of=example)), "w": given(example, jnp.ones(shape))}
        with pytest.raises(ValueError, match=r"\bw\b"):
            trace(example, gradient, state)


@for_every()
def test_another_structure_is_named(example: Example) -> None:
    """A leaf too few, a leaf too many."""
    state, gradient = init(example, params()), first(grads(of=example))
    fewer = {k: x for k, x in gradient.items() if k != "b"}
    for wrong, leaf in (
        (fewer, "b"),
        ({**gradient, "extra": given(example, jnp.ones(()))}, "extra"),
    ):
        with pytest.raises(ValueError, match=rf"\b{leaf}\b"):
            trace(example, wrong, state, params())


@for_every(where=lambda e: e.needs_params)
def test_missing_params_are_asked_for_by_name(example: Example) -> None:
    with pytest.raises(ValueError, match="needs the parameters") as raised:
        trace(example, first(grads(of=example)), init(example, params()))
    assert "update(grads, state, params)" in str(raised.value)
    # The part that needs them is among what the user wrote.
    named = str(raised.value).split("(")[0]
    assert named in part_names(example.make())


def part_names(tx: Any) -> set[str]:
    held = [x for x in tx.arguments.values() if isinstance(x, gradtx.GradientTransformation)]
    return {tx.definition.name}.union(*map(part_names, (*tx.parts, *held)))


@for_every(where=lambda e: not e.needs_params)
def test_params_are_optional_where_no_part_needs_them(example: Example) -> None:
    updates, _ = update(example, first(grads(of=example)), init(example, params()))
    assert jax.tree.structure(updates) == jax.tree.structure(params())


@for_every(where=lambda e: e.extra)
def test_missing_extra_argument_is_named(example: Example) -> None:
    tx, (name, *_) = example.make(), example.extra
    with pytest.raises(TypeError, match=rf"{name}=\.\.\."):
        tx.update(first(grads(of=example)), tx.init(params()), params())


@for_every(where=lambda e: "value_fn" not in e.extra)
def test_unknown_extra_arguments_are_ignored(example: Example) -> None:
    tx = example.make()
    with jax.disable_jit():
        got = tx.update(
            first(grads(of=example)), tx.init(params()), params(), **example.extra, surely_not=1
        )
    assert_same(got, update(example, first(grads(of=example)), init(example, params()), params()))


@for_every()
def test_integer_leaves_are_refused_by_path_or_untouched(example: Example) -> None:
    """Untouched where no rule sees them, as under a mask."""
    integers = jnp.arange(2)
    gradient, parameters = (
        {**first(grads(of=example)), "b": given(example, integers)},
        {**params(), "b": integers},
    )
    refused = False
    try:
        state = init(example, parameters)
    except TypeError as error:
        refused = True
        assert re.search(r"\bat b\b.*int32", str(error)), error  # noqa: PT017
        state = init(example, params())
    else:
        assert all(x.dtype == integers.dtype for x in of_leaf("b", state)) or example.foreign
    try:
        updates, _ = update(example, gradient, state, parameters)
    except TypeError as error:
        assert re.search(r"\bat b\b.*int32", str(error)), error  # noqa: PT017
    else:
        assert not refused
        assert np.array_equal(updates["b"], integers)
        assert updates["b"].dtype == integers.dtype


@for_every()
def test_something_that_is_no_array_is_refused_by_path(example: Example) -> None:
    gradient = {**first(grads(of=example)), "b": "surely not"}
    with pytest.raises(TypeError, match=r"\bat b\b.*surely not"):
        update(example, gradient, init(example, params()), params())


@for_every(where=lambda e: not (e.foreign or e.name.startswith("GradientTransformation")))
def test_state_of_another_transformation_is_refused(example: Example) -> None:
    state = init(example, params())
    if not jax.tree.leaves(state):
        return
    with pytest.raises((ValueError, TypeError)) as raised:
        trace(example, first(grads(of=example)), gradtx.identity().init(params()), params())
    assert "state" in str(raised.value)
    assert "init" in str(raised.value)


# -- complex -------------------------------------------------------------------------------------


@for_every(where=lambda e: not e.real and (e.narrow_squares or not e.narrow))
def test_complex_leaves_keep_their_avals(example: Example) -> None:
    parameters = {k: x.astype(jnp.complex64) for k, x in params().items()}
    gradient = {k: x.astype(jnp.complex64) for k, x in first(grads(of=example)).items()}
    tx = example.make()
    state = jax.eval_shape(tx.init, parameters)
    updates, new = jax.eval_shape(
        lambda g, s, p: tx.update(g, s, p, **example.extra), gradient, state, parameters
    )
    assert new == state
    assert {x.dtype for x in jax.tree.leaves(updates)} == {np.dtype(np.complex64)}
    for factor in (0, 1j):  # as of no gradient, and on the imaginary axis
        turned = jax.tree.map(lambda g, factor=factor: factor * g, gradient)
        assert_finite(update(example, turned, init(example, parameters), parameters))


@for_every(where=lambda e: not (e.real or e.narrow or e.noisy))
def test_complex_numbers_on_the_real_axis_are_real_numbers(example: Example) -> None:
    inputs = grads(of=example), params()
    on_axis = jax.tree.map(lambda x: x.astype(jnp.complex64), inputs)
    got = plain_run(example.make(), *on_axis, example.extra)
    expected = plain_run(example.make(), *inputs, example.extra)
    for name in params():
        assert_close(got.updates[name], expected.updates[name], 1e-5, name)
        assert_close(got.params[name], expected.params[name], 1e-5, name)
    assert len(got.updates["s"]) == STEPS


@for_every(where=lambda e: e.narrow and not (e.coded or e.narrow_squares))
def test_a_state_too_narrow_for_complex_leaves_is_refused_by_path(example: Example) -> None:
    parameters = {**params(), "b": jnp.ones((2,), jnp.complex64)}
    with pytest.raises(ValueError, match=r"\bat b\b.*complex"):
        init(example, parameters)


@for_every(where=lambda e: e.real and e.name != "torch.muon")  # whose group is w alone
def test_complex_leaves_without_a_meaning_are_refused_by_path(example: Example) -> None:
    gradient = {**first(grads(of=example)), "b": jnp.ones((2,), jnp.complex64)}
    parameters = {**params(), "b": jnp.ones((2,), jnp.complex64)}
    with pytest.raises((TypeError, ValueError), match=r"\bat b\b.*complex") as raised:
        update(example, gradient, init(example, params()), parameters)
    assert example.name in str(raised.value)
