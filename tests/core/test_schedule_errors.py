"""A user's schedule that cannot be a number of a compiled program is named, and so is the way out.

JAX's own error, which says where in the function it happened, stays the cause.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

PARAMS = jnp.ones(3)


def wave(step: Any) -> Any:
    return 0.1 * np.cos(step)


def branch(step: Any) -> Any:
    return 0.1 if step < 3 else 0.2


def smaller(step: Any) -> Any:
    return min(step, 3)


def plain_wave(step: Any) -> Any:
    return 0.1 * math.cos(step)


def table(step: Any) -> Any:
    return [0.1, 0.2, 0.3][step]


UNTRACEABLE = {
    wave: ("it calls NumPy on the step", "jnp.cos"),
    branch: ("it uses Python's if", "jnp.where(step < n, a, b) or jax.lax.cond"),
    smaller: ("it uses Python's if, and, or, min", "jnp.minimum"),
    plain_wave: ("it makes a Python number of the step", "jnp.cos"),
    table: ("an index of a list", "jnp.asarray(list)[step]"),
}
# Name: (a transformation with the schedule in it, where the error says it is).
PLACES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "recipe": (gradtx.adamw, "adamw: learning_rate"),
    "another number": (lambda f: gradtx.adamw(0.1, weight_decay=f), "adamw: weight_decay"),
    "arithmetic": (lambda f: gradtx.sgd(0.5 * gradtx.constant_schedule(1.0) * f), "sgd: learning"),
    "link": (gradtx.scale_by_learning_rate, "scale_by_learning_rate: learning_rate"),
    "chain": (lambda f: gradtx.chain(gradtx.clip(1.0), gradtx.adam(f)), "adam: learning_rate"),
    "wrapper": (lambda f: gradtx.flatten(gradtx.adam(f)), "adam: learning_rate"),
    "mask": (lambda f: gradtx.masked(gradtx.sgd(f), True), "sgd: learning_rate"),
    "tuple": (lambda f: gradtx.torch.adam(betas=(f, 0.9)), "torch.adam: betas[0]"),
    "injected": (gradtx.inject_hyperparams(gradtx.sgd), "inject_hyperparams: numbers['learning_ra"),
    "cycle": (lambda f: gradtx.accumulate(gradtx.sgd(0.1), f), "accumulate: every"),
}


def step(tx: Any) -> Any:
    state = jax.jit(tx.init)(PARAMS)
    return jax.jit(tx.update)(PARAMS, state, PARAMS)


@pytest.mark.parametrize("function", UNTRACEABLE, ids=lambda f: f.__name__)
def test_what_cannot_be_traced_is_named_with_what_to_write(function: Any) -> None:
    what, advice = UNTRACEABLE[function]
    with pytest.raises(TypeError) as caught:
        step(gradtx.adamw(function))
    message = str(caught.value)
    name = function.__name__
    assert message.startswith(f"adamw: learning_rate: the schedule {name} cannot be traced: ")
    assert what in message
    assert advice in message
    assert isinstance(caught.value.__cause__, jax.errors.JAXTypeError)


@pytest.mark.parametrize(("make", "place"), PLACES.values(), ids=PLACES)
def test_the_hyperparameter_is_named_wherever_it_is(make: Any, place: str) -> None:
    with pytest.raises(TypeError) as caught:
        step(make(wave))
    assert str(caught.value).startswith(place)
    assert str(caught.value).count("the schedule wave cannot be traced") == 1
    assert isinstance(caught.value.__cause__, jax.errors.TracerArrayConversionError)


def test_a_schedule_called_by_itself_is_named() -> None:
    joined = gradtx.join_schedules((wave, gradtx.constant_schedule(0.1)), (5,))
    for schedule in (joined, 2 * joined, gradtx.sgd(wave).learning_rate):
        with pytest.raises(TypeError, match=r"^the schedule wave cannot be traced: it calls NumPy"):
            jax.jit(schedule)(3)

    @gradtx.schedule
    def stairs(height: gradtx.Real) -> Any:
        """height, later half of it"""
        return lambda t: height if t < 3 else height / 2

    with pytest.raises(TypeError, match=r"^sgd: learning_rate: the schedule stairs\(height=0.5\)"):
        step(gradtx.sgd(stairs(0.5)))


def test_outside_of_jit_they_do() -> None:
    """One operation after the other, the step is a number."""
    tx = gradtx.sgd(wave)
    with jax.disable_jit():
        update, _ = tx.update(PARAMS, tx.init(PARAMS))
    np.testing.assert_allclose(update, -0.1 * np.ones(3), rtol=1e-6)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "must return a number, it returned None"),
        ("0.1", "must return a number, it returned '0.1' (str)"),
        ((0.1,), "must return a number, it returned (0.1,) (tuple)"),
        (0.1j, "must return a number, it returned 0.1j (complex)"),
        (jnp.ones(3), "must return one number for a step, it returned an array of shape (3,)"),
        (np.ones((1, 1)), "must return one number for a step, it returned an array of shape (1, 1"),
    ],
)
def test_what_is_no_number_is_named(returned: Any, message: str) -> None:
    def schedule(step: Any) -> Any:
        return returned

    for run in (step, lambda tx: tx.init(PARAMS) and tx.update(PARAMS, tx.init(PARAMS), PARAMS)):
        with pytest.raises(TypeError) as caught:
            run(gradtx.adamw(schedule))
        assert str(caught.value).startswith("adamw: learning_rate: the schedule ")
        assert message in str(caught.value)


def test_errors_of_the_functions_own_pass_through() -> None:
    def broken(step: Any) -> Any:
        raise KeyError("rate")

    with pytest.raises(KeyError, match="rate"):
        step(gradtx.sgd(broken))


def test_numbers_of_every_type_are_taken() -> None:
    for number in (1, 0.5, np.float32(0.5), np.int64(2), True, jnp.bfloat16(0.5), jnp.int32(2)):
        update, _ = step(gradtx.sgd(lambda step, number=number: number))
        assert float(update[0]) == -float(number)
