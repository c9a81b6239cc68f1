"""A transformation is a value: read, compared, hashed, adjusted, pickled, flattened."""

import copy
import pickle
import xml.etree.ElementTree
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

ADAMW = (
    "adamw(learning_rate=0.001, b1=0.9, b2=0.999, eps=1e-08, eps_root=0.0, mu_dtype=None, "
    "weight_decay=0.0001, mask=None, nesterov=False, nu_dtype=None, independent_decay=False, "
    "cautious_weight_decay=False)"
)


def half(step: Any) -> Any:
    return 0.5 * 0.9**step


def is_kernel(params: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim > 1, params)


# Each makes a new value that is equal to the last one that it made.
CONSTRUCTIONS = {
    "numbers": lambda: gradtx.adamw(1e-3),
    "schedule": lambda: gradtx.sgd(gradtx.linear_schedule(0.1, 0.0, 10), momentum=0.9),
    "function": lambda: gradtx.sgd(half),
    "array": lambda: gradtx.sgd(jnp.array([0.1, 0.2])),
    "numpy array": lambda: gradtx.sgd(np.array([0.1, 0.2])),
    "dtype": lambda: gradtx.adam(1e-3, mu_dtype=jnp.bfloat16),
    "mask tree": lambda: gradtx.adamw(1e-3, mask={"kernel": True, "bias": (False, True)}),
    "mask function": lambda: gradtx.masked(gradtx.clip(1.0), is_kernel),
    "pattern": lambda: gradtx.masked(gradtx.clip(1.0), ~gradtx.matching("bias")),
    "chain": lambda: gradtx.chain(gradtx.clip(1.0), gradtx.adam(1e-3)),
    "named_chain": lambda: gradtx.named_chain(("clip", gradtx.clip(1.0)), ("sgd", gradtx.sgd(0.1))),
    "nested": lambda: gradtx.maximize(
        gradtx.chain(gradtx.chain(), gradtx.masked(gradtx.sgd(1.0), "x"))
    ),
    "schedule alone": lambda: gradtx.warmup_cosine_decay_schedule(0.0, 1.0, 10, 100),
    "joined schedules": lambda: gradtx.join_schedules(
        [gradtx.constant_schedule(0.1), gradtx.linear_schedule(0.1, 0.0, 10)], [5]
    ),
    "off": lambda: gradtx.scale_by_momentum(0.9, dampening=0.0),
}
constructions = pytest.mark.parametrize("make", CONSTRUCTIONS.values(), ids=CONSTRUCTIONS)


# -- read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (gradtx.adamw(1e-3), ADAMW),
        (gradtx.identity(), "identity()"),
        (gradtx.clip(1), "clip(max_delta=1)"),
        (gradtx.clip(np.float64(0.1)), "clip(max_delta=0.1)"),
        (gradtx.clip(jnp.float32(0.5)), "clip(max_delta=array(0.5, 'float32'))"),
        (gradtx.clip(jnp.array([0.5, 2.0])), "clip(max_delta=array([0.5, 2.], 'float32'))"),
        (gradtx.scale(half), "scale(step_size=half)"),
        (
            gradtx.trace(0.9, accumulator_dtype="bfloat16"),
            "trace(decay=0.9, nesterov=False, accumulator_dtype='bfloat16')",
        ),
        (
            gradtx.scale(gradtx.constant_schedule(2.0)),
            "scale(step_size=constant_schedule(value=2.0))",
        ),
        (gradtx.chain(), "chain()"),
        (
            gradtx.chain(gradtx.clip(1.0), gradtx.scale(-1)),
            "chain(clip(max_delta=1.0), scale(step_size=-1))",
        ),
        (gradtx.named_chain(("a", gradtx.clip(1.0))), "named_chain(('a', clip(max_delta=1.0)))"),
        (gradtx.masked(gradtx.clip(1.0), "bias"), "masked(inner=clip(max_delta=1.0), mask='bias')"),
        (
            gradtx.masked(gradtx.clip(1.0), ~gradtx.matching("bias")),
            "masked(inner=clip(max_delta=1.0), mask=~matching('bias'))",
        ),
        (
            gradtx.masked(gradtx.clip(1.0), {"w": (True, False)}),
            "masked(inner=clip(max_delta=1.0), mask={'w': (True, False)})",
        ),
        (
            gradtx.masked(gradtx.clip(1.0), is_kernel),
            "masked(inner=clip(max_delta=1.0), mask=is_kernel)",
        ),
        (
            gradtx.scale_by_momentum(0.9),
            "scale_by_momentum(decay=0.9, nesterov=False, dampening=0.0)",
        ),
    ],
)
def test_repr_is_the_construction(value: Any, text: str) -> None:
    assert str(value) == text


def test_a_repr_that_is_too_long_for_a_line_takes_several() -> None:
    assert repr(gradtx.clip(1.0)) == "clip(max_delta=1.0)"
    inner = gradtx.masked(gradtx.clip(0.5), {"a, (b": True, "the second, of a long name": False})
    assert repr(gradtx.chain(gradtx.scale(2.0), inner)) == (
        "chain(\n"
        "    scale(step_size=2.0),\n"
        "    masked(\n"
        "        inner=clip(max_delta=0.5),\n"
        "        mask={'a, (b': True, 'the second, of a long name': False},\n"
        "    ),\n"
        ")"
    )


def test_long_arithmetic_takes_a_line_for_each_operand() -> None:
    rise = gradtx.warmup_constant_schedule(0.0, 0.5, 1000)
    fall = gradtx.linear_schedule(1.0, 0.5, 1000)
    assert repr(gradtx.scale(1 - 2 * rise)) == (
        "scale(\n"
        "    step_size=(\n"
        "        1\n"
        "        - 2 * warmup_constant_schedule("
        "init_value=0.0, peak_value=0.5, warmup_steps=1000)\n"
        "    ),\n"
        ")"
    )
    for made in (
        rise * fall,
        2 * rise - fall - 1,
        -(rise + fall),
        (rise / fall).clip(0.1),
        rise**fall**0.5,
        fall.shift(3).clip(fall, 0.5),
        gradtx.chain(gradtx.masked(gradtx.sgd(rise - fall), {"a - b, (": True, "c": (False,)})),
    ):
        assert len(repr(made).splitlines()) > 1
        assert max(map(len, repr(made).splitlines())) < 88
        assert eval(repr(made), dict(vars(gradtx))) == made


def test_repr_inside_a_traced_program() -> None:
    seen = []
    jax.jit(lambda tx: seen.append(repr(tx)))(gradtx.clip(1.0))
    assert seen == ["clip(max_delta=<traced float32[]>)"]


def test_arguments_are_attributes() -> None:
    mask = {"kernel": True, "bias": False}
    tx = gradtx.adamw(1e-3, mask=mask)
    assert (tx.learning_rate, tx.b1, tx.nesterov, tx.mu_dtype) == (1e-3, 0.9, False, None)
    assert tx.mask == mask
    assert gradtx.sgd(half).learning_rate(0) == half(0)
    assert gradtx.masked(tx, "x").inner == tx
    assert not hasattr(tx, "momentum")


def test_unknown_attribute_names_the_known_ones() -> None:
    with pytest.raises(AttributeError) as caught:
        _ = gradtx.sgd(0.1).b1
    assert str(caught.value) == (
        "sgd has no attribute 'b1'; its arguments: learning_rate, momentum, nesterov, "
        "accumulator_dtype"
    )


def test_parts_are_listed() -> None:
    tx = gradtx.adamw(1e-3, mask="kernel")
    assert [part.definition.name for part in tx.parts] == [
        "scale_by_adam",
        "add_decayed_weights",
        "scale_by_learning_rate",
    ]
    assert tx.parts[1].parts == (gradtx.transforms.decay.decay_weights(1e-4),)
    assert gradtx.clip(1.0).parts == ()


def test_unpacks_like_a_pair() -> None:
    params = {"w": jnp.ones(2)}
    init, update = gradtx.sgd(0.5, momentum=0.9)
    updates, _ = update(params, init(params))
    assert updates["w"].tolist() == [-0.5, -0.5]


# -- adjusted, not changed -----------------------------------------------------------------------


def test_replace_makes_a_new_value() -> None:
    tx = gradtx.adamw(1e-3, mask={"a": True})
    new = tx.replace(learning_rate=half, b1=0.8)
    assert (tx.learning_rate, tx.b1) == (1e-3, 0.9)
    assert new == gradtx.adamw(half, 0.8, mask={"a": True})
    assert tx.replace() == tx
    assert type(new) is type(tx)


def test_replace_checks_as_construction_does() -> None:
    with pytest.raises(ValueError, match=r"adamw: b1 must be in \[0, 1\), got 1"):
        gradtx.adamw(1e-3).replace(b1=1)
    with pytest.raises(TypeError, match=r"sgd has no argument 'lr'; it takes learning_rate, mom"):
        gradtx.sgd(1e-3).replace(lr=1)


@pytest.mark.parametrize(
    "chain",
    [gradtx.chain, lambda *parts: gradtx.named_chain(*zip("abc", parts, strict=False))],
    ids=["chain", "named_chain"],
)
def test_replace_reaches_into_a_chain(chain: Any) -> None:
    tx = chain(gradtx.clip(1.0), gradtx.chain(gradtx.trace(0.9), gradtx.scale(-1)))
    new = tx.replace(max_delta=2.0, step_size=-2)
    assert new == chain(gradtx.clip(2.0), gradtx.chain(gradtx.trace(0.9), gradtx.scale(-2)))
    with pytest.raises(TypeError) as caught:
        tx.replace(b1=0.5)
    assert str(caught.value) == (
        f"{tx.definition.name}: no part has an argument 'b1'; replace it in the part itself. "
        "The parts: clip, chain"
    )
    with pytest.raises(TypeError, match="2 parts have an argument 'max_delta'; replace it in the"):
        chain(gradtx.clip(1.0), gradtx.clip(2.0)).replace(max_delta=3.0)


def test_a_chain_is_read_as_it_is_replaced() -> None:
    adam = gradtx.adam(0.1)
    for tx in (
        gradtx.chain(gradtx.clip(1.0), gradtx.chain(adam)),
        gradtx.named_chain(("clip", gradtx.clip(1.0)), ("adam", adam)),
        gradtx.partition({"w": gradtx.clip(1.0), ".*": adam}),
    ):
        assert (tx.learning_rate, tx.max_delta) == (0.1, 1.0)
        assert tx.replace(learning_rate=0.2).learning_rate == 0.2
        assert {"learning_rate", "max_delta"} <= {*dir(tx)}
    injected = gradtx.inject_hyperparams(gradtx.adam)(0.1)
    assert gradtx.chain(gradtx.clip(1.0), injected).learning_rate == injected.learning_rate == 0.1


TWO = gradtx.adam(0.1), gradtx.sgd(0.1)


@pytest.mark.parametrize(
    ("tx", "name", "said"),
    [
        (
            gradtx.chain(*TWO),
            "learning_rate",
            "chain: 2 parts have 'learning_rate': read tx.parts[0].learning_rate or "
            "tx.parts[1].learning_rate",
        ),
        (
            gradtx.partition({"w": TWO[0], ".*": TWO[1]}),
            "learning_rate",
            "partition: 2 groups have 'learning_rate': read tx.transforms['w'].learning_rate or "
            "tx.transforms['.*'].learning_rate",
        ),
        (
            gradtx.chain(gradtx.clip(1.0), gradtx.adam(0.1)),
            "typo",
            "chain has no attribute 'typo', nor has a part of it (clip, adam)",
        ),
        (
            gradtx.chain(gradtx.clip(1.0), gradtx.accumulate(gradtx.adam(0.1), 2)),
            "learning_rate",
            "chain has no attribute 'learning_rate', nor has a part of it (clip, accumulate); "
            "read tx.inner.learning_rate",
        ),
        (
            gradtx.store(gradtx.adam(0.1), "int8"),
            "learning_rate",
            "store has no attribute 'learning_rate'; its arguments: inner, format, seed, min_size, "
            "kernel; read tx.inner.learning_rate",
        ),
    ],
)
def test_an_argument_that_is_not_read_is_an_error_that_says_where_it_is(
    tx: Any, name: str, said: str
) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(tx, name)
    assert str(caught.value) == said
    assert name not in dir(tx)


@pytest.mark.parametrize(
    ("tx", "name", "way"),
    [
        (
            gradtx.store(gradtx.adam(0.1), "int8"),
            "learning_rate",
            "tx.replace(inner=tx.inner.replace(learning_rate=...))",
        ),
        (
            gradtx.accumulate(gradtx.store(gradtx.chain(gradtx.clip(1.0), TWO[0]), "int8"), 2),
            "b1",
            "tx.replace(inner=tx.inner.replace(inner=tx.inner.inner.replace(b1=...)))",
        ),
        (
            gradtx.chain(gradtx.clip(1.0), gradtx.masked(gradtx.adam(0.1), "w")),
            "b1",
            "tx.replace(inner=tx.inner.replace(b1=...))",
        ),
        (
            gradtx.adam(gradtx.cosine_decay_schedule(0.1, 100)),
            "decay_steps",
            "tx.replace(learning_rate=tx.learning_rate.replace(decay_steps=...))",
        ),
    ],
)
def test_replace_says_how_what_is_inside_is_replaced(tx: Any, name: str, way: str) -> None:
    with pytest.raises(TypeError) as caught:
        tx.replace(**{name: 0.25})
    assert f"argument {name!r}" in str(caught.value)
    assert f"; write {way}" in str(caught.value)
    # What it says to write works.
    changed = eval(way.replace("...", "0.25"), {"tx": tx})
    assert f"{name}=0.25" in str(changed)
    assert f"{name}=0.25" not in str(tx)


def test_replace_in_a_masked_transformation() -> None:
    tx = gradtx.masked(gradtx.clip(1.0), "kernel")
    assert tx.replace(inner=tx.inner.replace(max_delta=2.0)).inner.max_delta == 2.0
    assert tx.replace(mask="bias").mask == "bias"


def test_a_value_cannot_be_changed_in_place() -> None:
    tx = gradtx.sgd(0.1)
    with pytest.raises(AttributeError) as caught:
        tx.learning_rate = 0.2
    assert str(caught.value) == (
        "sgd is a value and cannot be changed in place: use tx.replace(learning_rate=...)"
    )
    assert tx.learning_rate == 0.1


# -- compared ------------------------------------------------------------------------------------


@constructions
def test_equal_constructions_are_equal(make: Any) -> None:
    first, second = make(), make()
    assert first is not second
    assert first == second
    assert hash(first) == hash(second)


def test_different_constructions_differ() -> None:
    values = [make() for name, make in CONSTRUCTIONS.items() if name != "numpy array"]
    values += [
        gradtx.adamw(2e-3),
        gradtx.adamw(1e-3, mask="kernel"),
        gradtx.adamw(1e-3, nesterov=True),
        gradtx.nadamw(1e-3, nesterov=False),
        gradtx.adam(1e-3, mu_dtype=jnp.float32),
        gradtx.sgd(jnp.array([0.1, 0.3])),
        gradtx.sgd(jnp.array([[0.1, 0.2]])),
        gradtx.sgd(lambda step: 0.1),
        gradtx.sgd(lambda step: 0.1),
        gradtx.masked(gradtx.clip(1.0), gradtx.matching("bias")),
        gradtx.chain(gradtx.adam(1e-3), gradtx.clip(1.0)),
        gradtx.named_chain(("clap", gradtx.clip(1.0)), ("sgd", gradtx.sgd(0.1))),
        gradtx.scale_by_momentum(0.9, dampening=0.5),
    ]
    assert len(set(values)) == len(values)
    assert gradtx.sgd(0.1) != "sgd(0.1)"


def test_where_a_number_comes_from_does_not_matter() -> None:
    assert gradtx.sgd(np.float64(0.5)) == gradtx.sgd(0.5) == gradtx.sgd(np.array(0.5))
    assert gradtx.sgd(np.float32([0.5])) == gradtx.sgd(jnp.array([0.5]))
    assert gradtx.sgd(0.5) == gradtx.sgd(learning_rate=0.5) == gradtx.sgd(0.5, None)


def test_a_static_jit_argument_does_not_retrace() -> None:
    traces = []

    def step(tx: Any, grads: Any) -> Any:
        traces.append(tx)
        return tx.update(grads, tx.init(grads))[0]

    jitted = jax.jit(step, static_argnums=0)
    grads = {"w": jnp.ones(3)}
    for rate in (0.1, 0.1, 0.2, 0.1):
        jitted(gradtx.sgd(rate, momentum=0.9), grads)
    assert len(traces) == 2


# -- copied and pickled --------------------------------------------------------------------------


@constructions
def test_pickles(make: Any) -> None:
    value = make()
    again = pickle.loads(pickle.dumps(value))
    assert again == value
    assert repr(again) == repr(value)
    assert jax.tree.structure(again) == jax.tree.structure(value)


@constructions
def test_copies(make: Any) -> None:
    value = make()
    assert copy.copy(value) == value
    assert copy.deepcopy(value) == value


def test_a_run_goes_on_after_pickling() -> None:
    params = {"w": jnp.arange(3.0), "b": None}
    tx = gradtx.adamw(gradtx.linear_schedule(0.1, 0.0, 10), mask={"w": True, "b": False})
    state = tx.init(params)
    updates, state = tx.update(params, state, params)
    tx2, state2 = pickle.loads(pickle.dumps((tx, state)))
    for a, b in zip(
        jax.tree.leaves(tx.update(updates, state, params)),
        jax.tree.leaves(tx2.update(updates, state2, params)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


# -- flattened -----------------------------------------------------------------------------------


def leaves(value: Any) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(value)
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (gradtx.clip(0.5), {".max_delta": 0.5}),
        (gradtx.sgd(0.5, momentum=0.9, nesterov=True), {".learning_rate": 0.5, ".momentum": 0.9}),
        (gradtx.sgd(0.5), {".learning_rate": 0.5}),
        (gradtx.identity(), {}),
        (
            gradtx.scale(gradtx.linear_schedule(1.0, 0.5, 10)),
            {
                ".step_size.init_value": 1.0,
                ".step_size.end_value": 0.5,
                ".step_size.transition_steps": 10,
                ".step_size.transition_begin": 0,
            },
        ),
        (gradtx.scale(half), {}),
        (
            gradtx.chain(gradtx.clip(0.5), gradtx.scale(2)),
            {".args[0].max_delta": 0.5, ".args[1].step_size": 2},
        ),
        (gradtx.named_chain(("a", gradtx.clip(0.5))), {".args['a'].max_delta": 0.5}),
        (gradtx.masked(gradtx.clip(0.5), {"w": True}), {".inner.max_delta": 0.5}),
        (gradtx.scale_by_momentum(0.9), {".decay": 0.9}),
        (gradtx.scale_by_momentum(0.9, dampening=0.5), {".decay": 0.9, ".dampening": 0.5}),
    ],
)
def test_hyperparameters_are_the_leaves(value: Any, expected: dict[str, Any]) -> None:
    assert leaves(value) == expected


@constructions
def test_unflatten_undoes_flatten(make: Any) -> None:
    value = make()
    numbers, treedef = jax.tree.flatten(value)
    assert jax.tree.unflatten(treedef, numbers) == value
    keyed, treedef2 = jax.tree_util.tree_flatten_with_path(value)
    assert treedef2 == treedef
    assert [leaf for _, leaf in keyed] == numbers


@constructions
def test_unflatten_takes_placeholders(make: Any) -> None:
    value = make()
    treedef = jax.tree.structure(value)
    placeholders = [object() for _ in range(treedef.num_leaves)]
    assert jax.tree.leaves(jax.tree.unflatten(treedef, placeholders)) == placeholders
    assert jax.tree.structure(jax.tree.map(lambda x: x, value)) == treedef


def test_a_transformation_passes_through_jit_vmap_and_grad() -> None:
    tx = gradtx.sgd(0.5, momentum=0.25)
    doubled = jax.jit(lambda tx: jax.tree.map(lambda x: 2 * x, tx))(tx)
    assert (doubled.learning_rate, doubled.momentum) == (1.0, 0.5)
    made = jax.vmap(gradtx.sgd)(jnp.arange(3.0))
    assert made.learning_rate.shape == (3,)

    def first_update(tx: Any) -> Any:
        return tx.update(jnp.float32(2.0), tx.init(jnp.float32(0.0)))[0]

    slope = jax.grad(first_update)(tx)
    assert isinstance(slope, gradtx.GradientTransformation)
    assert (slope.learning_rate, slope.momentum) == (-2.0, 0.0)


def test_a_new_rate_as_a_jit_argument_does_not_retrace() -> None:
    traces = []

    @jax.jit
    def step(tx: Any, grads: Any) -> Any:
        traces.append(tx)
        return tx.update(grads, tx.init(grads), grads)[0]

    grads = {"w": jnp.ones(3)}
    for rate in (0.1, 0.2, 0.3):
        tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(rate))
        np.testing.assert_allclose(step(tx, grads)["w"], -rate * (1 + 1e-4), rtol=1e-5)
    assert len(traces) == 1


def test_a_structural_zero_is_no_leaf() -> None:
    on, off = (gradtx.scale_by_momentum(0.9, dampening=d) for d in (0.5, 0.0))
    assert off.dampening == 0
    assert jax.tree.structure(on) != jax.tree.structure(off)
    assert pickle.loads(pickle.dumps(off)) == off


def test_in_a_notebook_it_is_the_tree_of_its_parts() -> None:
    rate = gradtx.linear_schedule(1.0, 0.5, 10)
    groups = gradtx.partition({"a<b": gradtx.sgd(rate), ".*": gradtx.freeze()})
    text = gradtx.chain(gradtx.clip(1.0), groups)._repr_html_()
    root = xml.etree.ElementTree.fromstring(text)
    names = ["chain", "clip", "partition", "sgd", "linear_schedule", "freeze"]
    assert [found.text for found in root.iter("b")] == names
    said = ["".join(item.itertext()) for item in root.iter("li")]
    assert said[1] == "1: clip(max_delta=1.0)"
    assert said[3].startswith("'a<b': sgd(momentum=None, ")
    assert said[4].startswith("learning_rate: linear_schedule(init_value=1.0")
