"""A transformation is a value: readable, comparable, adjustable, picklable."""

import copy
import inspect
import itertools
import json
import pickle
import re
from collections.abc import Callable
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import ConfigError, ParseError, from_config, parse

from .examples import own, wrappers
from .registry import EXAMPLES, SCHEDULES, Example, ScheduleExample, for_every, numbers
from .running import assert_same, first, grads, params, plain_run, run, spec, traced_run

LANES = 14


def other(x: Any) -> Any:
    """Another number that every kind allows wherever it allows `x`."""
    return x + 1 if isinstance(x, int) else 0.5 * x + (0.53 if x > 1 else 0.03)


def rounding(example: Example) -> float:
    """How far two ways to compute the same may be apart, relative to the largest number.

    1 - b2 of a float32 b2 = 0.999 has lost three digits, the bias correction takes one more.
    """
    if example.narrow:
        return 1e-2
    return 1e-3 if any(0.999 < n.value < 1 for n in numbers(example.make())) else 1e-4


# -- readable ------------------------------------------------------------------------------------


@for_every()
def test_repr_shows_names_and_values(example: Example) -> None:
    tx, text = example.make(), repr(example.make())
    assert " at 0x" not in text
    for number in numbers(tx):
        assert f"{number.argument}=" in text
        assert repr(number.value) in text


# Functions, which no text and no data can hold.
FUNCTIONS = (
    r"GradientTransformation|as_matrices|depth_of|every_second|halve|labels|largest|norm|only_w|"
    r"skip_nonfinite|slower|towards_params|while_small|trace[.]<locals>"
)


def holds(value: Any, words: str) -> bool:
    """Whether a repr holds one of these words, not as the name of an argument or in quotes."""
    return re.search(rf"(?<![\w'])({words})(?![\w'=])", repr(value)) is not None


@for_every(where=lambda e: not e.name.startswith("own"))
def test_repr_can_be_evaluated(example: Example) -> None:
    tx = example.make()
    if not holds(tx, FUNCTIONS):
        names = dict(vars(gradtx)) | dict(vars(own)) | dict(vars(wrappers))
        assert eval(repr(tx), names | {"torch": gradtx.torch}) == tx


@pytest.mark.parametrize("example", [*EXAMPLES, *SCHEDULES], ids=str)
def test_what_is_printed_is_read(example: Example | ScheduleExample) -> None:
    value = example.make()
    if holds(value, f"{FUNCTIONS}|inject_hyperparams"):
        with pytest.raises(ParseError):
            parse(repr(value))
    else:
        assert parse(repr(value)) == value


def through_json(data: Any) -> Any:
    # Sorted, as loggers write it, and without what only Python's JSON has.
    return json.loads(json.dumps(data, sort_keys=True, allow_nan=False))


def through_yaml(data: Any) -> Any:
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load(yaml.safe_dump(data))


@pytest.mark.parametrize("through", [through_json, through_yaml])
@pytest.mark.parametrize("example", [*EXAMPLES, *SCHEDULES], ids=str)
def test_what_is_written_as_data_is_read(
    example: Example | ScheduleExample, through: Callable[[Any], Any]
) -> None:
    value = example.make()
    if holds(value, FUNCTIONS):
        with pytest.raises(ConfigError, match="is no data"):
            value.to_config()
        return
    for data in (value.to_config(), value.to_config(defaults=True)):
        again = from_config(through(data))
        assert again == value
        assert hash(again) == hash(value)
        assert type(again) is type(value)
        assert again.to_config() == value.to_config()


@for_every()
def test_arguments_are_attributes(example: Example) -> None:
    tx = example.make()
    for number in numbers(tx):
        held = getattr(tx, number.argument)
        assert (held if number.index is None else held[number.index]) == number.value
    with pytest.raises(AttributeError, match="has no attribute 'surely_not'"):
        _ = tx.surely_not
    with pytest.raises(AttributeError, match="replace"):
        tx.learning_rate = 1.0


@for_every()
def test_a_pair(example: Example) -> None:
    tx = example.make()
    init, update = tx
    with jax.disable_jit():
        state = init(params())
        assert_same(state, tx.init(params()))
        made = update(first(grads(of=example)), state, params(), **example.extra)
        assert_same(made, tx.update(first(grads(of=example)), state, params(), **example.extra))


# -- comparable ----------------------------------------------------------------------------------


@for_every()
def test_equal_constructions_are_equal(example: Example) -> None:
    tx, again = example.make(), example.make()
    assert tx is not again
    assert tx == again
    assert hash(tx) == hash(again)
    for number in numbers(tx):
        changed = number.in_(tx, other(number.value))
        assert changed != tx
        assert number.in_(changed, number.value) == tx
        assert hash(number.in_(changed, number.value)) == hash(tx)


def test_different_constructions_differ() -> None:
    made = [(example, example.make()) for example in EXAMPLES]
    for (one, tx), (another, other_tx) in itertools.combinations(made, 2):
        same = one.make is another.make  # two names of one thing
        assert (tx == other_tx) == same, f"{one} and {another}"


def test_equality_is_with_values_only() -> None:
    assert gradtx.sgd(0.1) != 0.1
    assert gradtx.sgd(0.1) != "sgd(0.1)"
    assert gradtx.sgd(0.1) in {gradtx.sgd(0.1): 1}


def count_traces() -> tuple[Any, list[int]]:
    """The run, and how often it has been traced."""
    traces = [0]

    def counted(*args: Any) -> Any:
        traces[0] += 1
        return run(*args)

    return counted, traces


@for_every()
def test_static_argument_is_not_traced_again(example: Example) -> None:
    inputs = spec(grads(of=example)), spec(params()), example.extra
    counted, traces = count_traces()
    jitted = jax.jit(counted, static_argnums=0)
    for _ in range(2):
        jitted.eval_shape(example.make(), *inputs)
    assert traces == [1]


# -- a pytree ------------------------------------------------------------------------------------


@for_every()
def test_traced_argument_is_not_traced_again_for_other_numbers(example: Example) -> None:
    inputs, tx = (spec(grads(of=example)), spec(params()), example.extra), example.make()
    counted, traces = count_traces()
    jitted = jax.jit(counted)
    jitted.eval_shape(tx, *inputs)
    jitted.eval_shape(jax.tree.map(other, tx), *inputs)
    for number in numbers(tx):
        tx = number.in_(tx, other(number.value))
    jitted.eval_shape(tx, *inputs)
    assert traces == [1]


@for_every(slow=True)
def test_traced_argument_equals_the_closed_over_value(example: Example) -> None:
    inputs, tx = (grads(of=example), params(), example.extra), example.make()
    got, expected = traced_run(tx, *inputs), plain_run(tx, *inputs)
    if example.coded:
        got, expected = got._replace(state=None), expected._replace(state=None)
    assert_same(got, expected, rounding(example))


@for_every()
def test_numbers_are_the_leaves(example: Example) -> None:
    """Flattening and putting together again is the identity, also with named keys."""
    tx = example.make()
    leaves, treedef = jax.tree.flatten(tx)
    assert jax.tree.unflatten(treedef, leaves) == tx
    with_keys = jax.tree_util.tree_flatten_with_path(tx)[0]
    assert [leaf for _, leaf in with_keys] == leaves
    shown = [jax.tree_util.keystr(path) for path, _ in with_keys]
    for number in numbers(tx):
        key = f".{number.argument}" + ("" if number.index is None else f"[{number.index}]")
        assert leaves[shown.index(key)] == number.value


@for_every(where=lambda e: not e.foreign, slow=True)
def test_mapping_over_each_number_equals_a_loop(example: Example) -> None:
    """In lane i > 0 the i-th number is another one, and that changes the updates."""
    inputs, tx = (grads(of=example), params(), example.extra), example.make()
    leaves, treedef = jax.tree.flatten(tx)
    keys = [str(path[0]) for path, _ in jax.tree_util.tree_leaves_with_path(tx)]
    # With quite other coefficients Newton-Schulz diverges.
    others = [
        0.99 * x if key == ".ns_coeffs" else other(x) for key, x in zip(keys, leaves, strict=True)
    ]
    lanes = [leaves]
    lanes += [[*leaves[:i], x, *leaves[i + 1 :]] for i, x in enumerate(others)]
    used = len(lanes)
    # As many lanes for every example, so that operations are compiled once for all.
    lanes += [leaves] * (LANES - used)
    stacked = [jnp.asarray(column) for column in zip(*lanes, strict=True)]
    with jax.disable_jit():
        mapped = jax.vmap(run, in_axes=(0, None, None, None), axis_size=len(lanes))(
            jax.tree.unflatten(treedef, stacked), *inputs
        )
    for i, lane in enumerate(lanes[:used]):
        alone = traced_run(jax.tree.unflatten(treedef, lane), *inputs)
        got = jax.tree.map(lambda x, i=i: x[i], mapped)
        assert_same(got, alone, rounding(example), f"lane {i}")
        if i == 0:
            unchanged = alone
        elif keys[i - 1].removeprefix(".") not in example.idle:
            assert differ(alone.updates, unchanged.updates), f"{keys[i - 1]} changes nothing"


def differ(one: Any, another: Any) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(another), strict=True)
    return any(np.any(np.asarray(x) != np.asarray(y)) for x, y in pairs)


# -- adjustable ----------------------------------------------------------------------------------


@for_every()
def test_replace_equals_a_fresh_construction(example: Example) -> None:
    tx = example.make()
    for number in numbers(tx):
        changed = number.in_(tx, other(number.value))
        arguments = {name: getattr(tx, name) for name in tx.definition.parameters}
        arguments[number.argument] = getattr(changed, number.argument)
        assert changed == tx.definition(**arguments)
    assert tx.replace() == tx


@for_every()
def test_replacing_an_unknown_argument_lists_the_known(example: Example) -> None:
    tx = example.make()
    with pytest.raises(TypeError, match=tx.definition.name) as raised:
        tx.replace(surely_not=1)
    assert "surely_not" in str(raised.value)
    # A chain changes the arguments of its parts, so it is they that it lists; what is injected
    # changes those of its factory.
    match tx.definition.name:
        case "chain" | "named_chain":
            names = [part.definition.name for part in tx.parts]
        case "inject_hyperparams":
            names = list(inspect.signature(tx.arguments["factory"]).parameters)
        case _:
            names = list(tx.definition.parameters)
    for name in names:
        assert name in str(raised.value)


def test_a_chain_replaces_in_the_one_part_that_has_the_argument() -> None:
    tx = gradtx.chain(gradtx.clip(0.5), gradtx.adam(0.1))
    changed = tx.replace(b1=0.5, max_delta=1.0)
    assert changed == gradtx.chain(gradtx.clip(1.0), gradtx.adam(0.1, b1=0.5))
    with pytest.raises(TypeError, match="2 parts have an argument 'learning_rate'"):
        gradtx.chain(gradtx.adam(0.1), gradtx.sgd(0.1)).replace(learning_rate=1.0)


# -- picklable -----------------------------------------------------------------------------------


@for_every(where=lambda e: not e.foreign)
def test_pickled_value_is_the_same(example: Example) -> None:
    tx = example.make()
    again = pickle.loads(pickle.dumps(tx))
    assert again == tx
    assert hash(again) == hash(tx)
    assert repr(again) == repr(tx)
    assert copy.deepcopy(tx) == tx


@for_every()
def test_restored_state_continues_identically(example: Example) -> None:
    """From a pickle, and from flax's serialised bytes."""
    tx, parameters = example.make(), params()
    gradients = [jax.tree.map(lambda g, i=i: g[i], grads(of=example)) for i in range(4)]
    with jax.disable_jit():
        fresh = state = tx.init(parameters)
        for gradient in gradients[:3]:
            _, state = tx.update(gradient, state, parameters, **example.extra)
        expected = tx.update(gradients[3], state, parameters, **example.extra)
        pickled = pickle.loads(pickle.dumps(state))
        serialised = flax.serialization.from_bytes(fresh, flax.serialization.to_bytes(state))
        for restored in (pickled, serialised):
            assert_same(restored, state)
            got = tx.update(gradients[3], restored, parameters, **example.extra)
            assert_same(got, expected)
