"""What a hyperparameter may be, kind by kind, and what its error says."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.core.hyperparameters import (
    FractionOrOff,
    NonNegativeInt,
    NonNegativeOrOff,
    PositiveInt,
    is_static_zero,
)

NAN, INF = float("nan"), float("inf")

GOOD = {
    "Real": (gradtx.Real, [0, -1.5, 1e30]),
    "NonNegative": (gradtx.NonNegative, [0, 0.0, 1e30]),
    "Positive": (gradtx.Positive, [1, 1e-30]),
    "Decay": (gradtx.Decay, [0, 0.5, 0.9999]),
    "Fraction": (gradtx.Fraction, [0, 0.5, 1]),
    "Steps": (gradtx.Steps, [0, 1, 10.0]),
    "PositiveSteps": (gradtx.PositiveSteps, [1, 10.0]),
    "NonNegativeOrOff": (NonNegativeOrOff, [0, 0.5]),
    "FractionOrOff": (FractionOrOff, [0, 0.5]),
}
BAD = {
    "Real": (gradtx.Real, "a finite number", [NAN, INF, -INF]),
    "NonNegative": (gradtx.NonNegative, "finite and >= 0", [-1e-30, NAN, INF]),
    "Positive": (gradtx.Positive, "finite and > 0", [0, -1, NAN, INF]),
    "Decay": (gradtx.Decay, "in [0, 1)", [1, 1.5, -0.1, NAN]),
    "Fraction": (gradtx.Fraction, "in [0, 1]", [1.5, -0.1, NAN]),
    "Steps": (gradtx.Steps, "finite and >= 0", [-1, NAN, INF]),
    "PositiveSteps": (gradtx.PositiveSteps, "finite and > 0", [0, -0.5, NAN, INF]),
    "NonNegativeOrOff": (NonNegativeOrOff, "finite and >= 0", [-1, NAN]),
    "FractionOrOff": (FractionOrOff, "in [0, 1]", [2, NAN]),
}


def rule(kind: Any) -> Any:
    """A transformation with one argument x of this kind."""

    def rule(x: Any) -> Any:
        return lambda grad: grad

    rule.__annotations__["x"] = kind
    return gradtx.per_leaf(rule)


@pytest.mark.parametrize(("kind", "values"), GOOD.values(), ids=GOOD)
def test_accepts(kind: Any, values: list[float]) -> None:
    for value in values:
        assert rule(kind)(value).x == value
        assert rule(kind)(np.float64(value)).x == value
    assert rule(kind)(jnp.asarray(values)).x.shape == (len(values),)
    assert rule(kind)(np.asarray(values)).x.shape == (len(values),)


@pytest.mark.parametrize(("kind", "text", "values"), BAD.values(), ids=BAD)
def test_refuses(kind: Any, text: str, values: list[float]) -> None:
    for value in values:
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            rule(kind)(value)
        assert str(caught.value) == f"rule: x must be {text}, got {value!r}"
    with pytest.raises(ValueError, match=r"rule: x must be .*, got \[0.75, .*\]"):
        rule(kind)(jnp.asarray([0.75, values[-1]]))


@pytest.mark.parametrize(("kind", "text", "values"), BAD.values(), ids=BAD)
def test_none_is_no_number_unless_it_is_the_default(kind: Any, text: str, values: Any) -> None:
    with pytest.raises(TypeError) as caught:
        rule(kind)(None)
    assert str(caught.value) == f"rule: x must be {text}, got None"
    assert gradtx.sgd(0.1, momentum=None).momentum is None


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("0.1", "'0.1' (str)"),
        (True, "True (bool)"),
        (np.True_, "True (bool)"),
        (1j, "1j (complex)"),
        (np.array(["a"]), "['a'] (ndarray)"),
        (np.array([True]), "[ True] (ndarray)"),
        (object, None),
    ],
)
def test_what_is_no_number(value: Any, shown: str | None) -> None:
    if shown is None:  # a class can be called, so that it passes for a function of the step
        assert rule(gradtx.Real)(value)
        return
    with pytest.raises(TypeError) as caught:
        rule(gradtx.Real)(value)
    assert str(caught.value) == f"rule: x must be a number, an array or a schedule, got {shown}"


def test_numpy_scalars_become_pythons_and_arrays_stay() -> None:
    for value in (np.float32(0.5), np.array(0.5), np.float64(0.5)):
        assert type(rule(gradtx.Real)(value).x) is float
    assert type(rule(gradtx.Real)(np.int64(2)).x) is int
    array = jnp.float32(0.5)
    assert rule(gradtx.Real)(array).x is array
    assert rule(gradtx.Real)(jnp.bfloat16(0.5)).x.dtype == jnp.bfloat16


def test_schedules_are_kept_and_not_checked() -> None:
    schedule = gradtx.constant_schedule(5.0)
    assert rule(gradtx.Decay)(schedule).x == schedule
    assert isinstance(rule(gradtx.Decay)(lambda step: 5.0).x, gradtx.Schedule)


def test_steps_take_no_schedule() -> None:
    with pytest.raises(TypeError) as caught:
        rule(gradtx.Steps)(gradtx.constant_schedule(5))
    assert str(caught.value) == (
        "rule: x must be a number or an array, got constant_schedule(value=5) (Schedule)"
    )


def test_traced_numbers_are_not_checked() -> None:
    assert jax.jit(lambda x: rule(gradtx.Decay)(x).x)(5.0) == 5.0


@pytest.mark.parametrize(
    "annotation",
    [
        tuple[gradtx.Decay, ...],
        list[gradtx.Decay],
        dict[str, gradtx.Decay],
        Mapping[str, tuple[gradtx.Decay, dict[str, gradtx.Decay]]],
        tuple[gradtx.Decay, ...] | None,
    ],
)
def test_numbers_in_tuples_and_dicts_where_the_annotation_says_so(annotation: Any) -> None:
    schedule = gradtx.constant_schedule(0.5)
    tx = rule(annotation)((0.5, {"a": schedule, "b": np.float32(0.25)}))
    assert tx.x == (0.5, {"a": schedule, "b": 0.25})
    assert jax.tree.leaves(tx) == [0.5, 0.5, 0.25]
    with pytest.raises(ValueError, match=r"rule: x must be in \[0, 1\), got 1.5"):
        rule(annotation)((0.5, 1.5))
    with pytest.raises(
        TypeError, match=r"rule: x must be a number, an array or a schedule, got 'a'"
    ):
        rule(annotation)({"key": "a"})


@pytest.mark.parametrize("kind", [kind for kind, _ in GOOD.values()], ids=GOOD)
def test_a_container_is_no_number(kind: Any) -> None:
    for annotation in (kind, kind | None):
        for container in ((1,), [1], {"a": 1}, ()):
            with pytest.raises(TypeError) as caught:
                rule(annotation)(container)
            assert str(caught.value).startswith("rule: x must be a number")
            assert f"got {container} ({type(container).__name__})" in str(caught.value)


def test_a_tuple_says_how_many() -> None:
    pair = rule(tuple[gradtx.Decay, gradtx.Decay])
    assert pair((0.5, 0.25)).x == (0.5, 0.25)
    assert pair(np.array([0.5, 0.25])).x.shape == (2,)
    for bad in (0.5, (0.5,), [0.1, 0.2, 0.3], {"a": 0.5}, np.ones(3), lambda step: (0.5, 0.5)):
        with pytest.raises(TypeError, match="rule: x must be a tuple of 2 numbers, got "):
            pair(bad)


def test_decays_in_a_tuple_have_their_biases_corrected() -> None:
    """1 - b^t of each, in a rule that takes two."""

    @gradtx.per_leaf
    def biases(betas: tuple[gradtx.Decay, gradtx.Decay] = (0.9, 0.5)) -> Any:
        def update(grad: Any, step: Any) -> Any:
            return step.debias(step.debias(grad, betas[0]), betas[1])

        return update

    tx = biases((0.75, 0.5))
    update, _ = tx.update(jnp.float32(1.0), tx.init(0.0))
    assert float(update) == pytest.approx(1 / (0.25 * 0.5), rel=1e-6)


def test_a_literal_zero_switches_off() -> None:
    for kind in (NonNegativeOrOff, FractionOrOff):
        assert is_static_zero(rule(kind)(0).x)
        assert is_static_zero(rule(kind)(np.float32(0.0)).x)
        assert not is_static_zero(rule(kind)(0.5).x)
        assert not is_static_zero(
            rule(kind)(jnp.float32(0.0)).x
        )  # an array's value is not structure
        assert jax.tree.leaves(rule(kind)(0)) == []
    assert is_static_zero(None)


@pytest.mark.parametrize(
    "value", ["bfloat16", jnp.bfloat16, np.dtype("bfloat16"), jnp.zeros(1, jnp.bfloat16).dtype]
)
def test_dtypes_by_any_name(value: Any) -> None:
    tx = rule(gradtx.DType)(value)
    assert tx.x == jnp.bfloat16
    assert repr(tx) == "rule(x='bfloat16')"
    assert jax.tree.leaves(tx) == []


@pytest.mark.parametrize("value", ["float31", 3, object()])
def test_what_is_no_dtype(value: Any) -> None:
    with pytest.raises(TypeError) as caught:
        rule(gradtx.DType)(value)
    assert str(caught.value) == f"rule: x must be a dtype such as 'float32', got {value!r}"


def test_flags() -> None:
    assert rule(bool)(True).x is True
    assert rule(bool)(np.False_).x is False
    for value in (1, "yes", None):
        with pytest.raises(TypeError) as caught:
            rule(bool)(value)
        assert str(caught.value) == f"rule: x must be True or False, got {value!r}"


def test_the_transformation_is_named_in_the_error_of_a_recipe() -> None:
    with pytest.raises(ValueError, match=r"^adamw: b2 must be in \[0, 1\), got 1$"):
        gradtx.adamw(1e-3, b2=1)
    with pytest.raises(ValueError, match=r"^linear_schedule: transition_steps must be finite"):
        gradtx.linear_schedule(1.0, 0.0, -1)


@gradtx.per_leaf
def worded(
    way: Literal["up", "down"],
    other: Literal["a", "b"] | None = None,
    size: PositiveInt = 1,
    start: NonNegativeInt = 0,
) -> Any:
    """u = g"""
    return lambda grad: grad


def test_words_and_whole_numbers() -> None:
    assert worded("up").other is None
    assert worded("down", "b", np.int64(3)) == worded("down", "b", 3)
    assert type(worded("down", size=np.int32(3)).size) is int
    assert jax.tree.leaves(worded("up", size=3, start=0)) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"way": "left"}, "way must be one of 'up', 'down', got 'left'"),
        ({"way": None}, "way must be one of 'up', 'down', got None"),
        ({"way": np.ones(2)}, "way must be one of 'up', 'down', got [1., 1.]"),
        ({"other": 1}, "other must be one of 'a', 'b', got 1"),
        *(
            ({"size": bad}, f"size must be a whole number >= 1, got {bad!r}")
            for bad in (0, 2.5, True, "3", None)
        ),
        ({"start": -1}, "start must be a whole number >= 0, got -1"),
    ],
)
def test_what_is_no_such_word_or_number(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"worded: {message}") + "$"):
        worded(**({"way": "up"} | arguments))


def test_literals_that_are_not_words_say_nothing() -> None:
    @gradtx.per_leaf
    def free(
        order: Literal[1, 2] = 2,
        mode: Literal["a"] | int = 3,
        function: Callable[[Any], Literal["a", "b"]] = repr,
        several: tuple[Literal["a", "b"], ...] = ("a",),
        maybe: Literal["a"] | None = None,
    ) -> Any:
        return lambda grad: grad

    assert free(order=7, mode="a", several=("c",)).order == 7
    with pytest.raises(ValueError, match="free: maybe must be one of 'a', got 'b'"):
        free(maybe="b")


def test_whole_numbers_may_be_beside_what_a_derivative_is_taken_of() -> None:
    """They stay whole, since `g ** 2` is not `g ** 2.0`; `allow_int` lets JAX pass them by."""

    def length(tx: Any) -> Any:
        x = jnp.array([1.0, 2.0])
        return jnp.sum(gradtx.step(tx, x, tx.init(x), x)[0])

    tx = gradtx.sgd(gradtx.linear_schedule(1.0, 0.0, 10), momentum=0)
    with pytest.raises(TypeError, match="allow_int"):
        jax.grad(length)(tx)
    slope = jax.grad(length, allow_int=True)(tx)
    assert slope.learning_rate.init_value == -3
    assert slope.learning_rate.transition_steps.dtype == slope.momentum.dtype == jax.dtypes.float0
    assert jax.grad(length)(gradtx.sgd(1.0, momentum=0.0)).learning_rate == -3
