"""Schedules are values too: functions of the step that can be read, compared and mapped."""

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

from .registry import ScheduleExample, for_every_schedule
from .running import assert_close, assert_finite

STEPS = np.arange(16)  # beyond the ends and restarts of the examples


def values(schedule: Any) -> np.ndarray:
    """One call a step, operation by operation."""
    with jax.disable_jit():
        return np.asarray([schedule(int(t)) for t in STEPS], np.float64)


@for_every_schedule()
def test_every_kind_of_step_gives_the_same_value(example: ScheduleExample) -> None:
    schedule = example.make()
    expected = values(schedule)
    assert np.all(np.isfinite(expected))
    for kind in (np.int32, np.int64, np.float32, jnp.int32, jnp.float32):
        with jax.disable_jit():
            got = [schedule(kind(t)) for t in STEPS[::5]]
        assert_close(got, expected[::5], 1e-6, kind.__name__)
    compiled = jax.jit(jax.vmap(lambda s, t: s(t), in_axes=(None, 0), axis_size=len(STEPS)))
    assert_close(compiled(schedule, jnp.asarray(STEPS)), expected, 1e-6, "compiled")


@for_every_schedule()
def test_values_are_scalars_in_the_dtype_of_scalars(example: ScheduleExample) -> None:
    schedule = example.make()
    for x64, dtype in ((False, np.float32), (True, np.float64)):
        with jax.enable_x64(x64):
            value = jax.eval_shape(schedule, jax.ShapeDtypeStruct((), np.int32))
        assert value.shape == ()
        assert value.dtype == dtype


SIX = [[0, 3, 5], [7, 9, 15]]  # arrays of one size share the programs of their operations
ARRAYS = (
    np.asarray(SIX, np.int64),
    np.ravel(SIX).astype(np.float32),
    jnp.asarray(SIX, jnp.int32).reshape(3, 1, 2),
    np.zeros((0, 2), np.int32),
)


@for_every_schedule()
def test_steps_in_an_array_are_taken_one_by_one(example: ScheduleExample) -> None:
    schedule = example.make()
    by_step = {t: float(schedule(t)) for t in np.ravel(SIX)}
    for steps in ARRAYS:
        expected = np.reshape([by_step[int(t)] for t in np.ravel(steps)], steps.shape)
        got = schedule(steps)
        assert got.shape == steps.shape
        assert got.dtype == np.float32
        assert_close(got, expected, 1e-6, f"{steps.dtype}{steps.shape}")
    compiled = jax.jit(lambda s, arrays: [s(t) for t in arrays])(schedule, ARRAYS)
    for steps, got in zip(ARRAYS, compiled, strict=True):
        expected = np.reshape([by_step[int(t)] for t in np.ravel(steps)], steps.shape)
        assert got.shape == steps.shape
        assert_close(got, expected, 1e-6, f"compiled, {steps.dtype}{steps.shape}")


@for_every_schedule()
def test_arrays_among_its_numbers_are_not_those_of_the_steps(example: ScheduleExample) -> None:
    """Three schedules in one are mapped over; three steps do not tell them apart."""
    many = jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)] * 3), example.make())
    with pytest.raises(ValueError, match="must be a scalar when it is used"):
        many(np.arange(3))
    mapped = jax.vmap(lambda s: s(np.arange(3)))(many)
    expected = example.make()(np.arange(3))
    assert_close(mapped, np.stack([expected] * 3), 1e-6)


def test_whole_numbers_of_steps_beyond_32_bits() -> None:
    schedule = gradtx.linear_schedule(0.0, 1.0, 10**10)
    assert_close(schedule(np.asarray([5 * 10**9, 10**10])), [0.5, 1.0], 1e-6)


@for_every_schedule()
def test_compiled_steps_under_x64_are_exact(example: ScheduleExample, x64: None) -> None:
    """The step is an int32: divided by an int it would be float32."""
    schedule = example.make()
    compiled = jax.jit(jax.vmap(schedule))(jnp.asarray(STEPS, jnp.int32))
    assert_close(compiled, values(schedule), 1e-14)


@for_every_schedule()
def test_equality_hash_and_pickle(example: ScheduleExample) -> None:
    schedule, again = example.make(), example.make()
    assert schedule == again
    assert hash(schedule) == hash(again)
    restored = pickle.loads(pickle.dumps(schedule))
    assert restored == schedule
    assert np.array_equal(values(restored), values(schedule))
    if example.slope_in:
        other = schedule.replace(**{example.slope_in: 0.25})
        assert other != schedule
        assert np.any(values(other) != values(schedule))


@for_every_schedule()
def test_repr_names_every_argument_and_can_be_evaluated(example: ScheduleExample) -> None:
    schedule = example.make()
    for name in () if example.infix else schedule.definition.parameters:
        assert f"{name}=" in repr(schedule)
    assert eval(repr(schedule), dict(vars(gradtx))) == schedule


@for_every_schedule()
def test_numbers_are_leaves(example: ScheduleExample) -> None:
    """A schedule can be passed into a jitted function, and other numbers do not retrace it."""
    schedule = example.make()
    traces = [0]

    @jax.jit
    def value(schedule: Any, step: Any) -> Any:
        traces[0] += 1
        return schedule(step)

    one = value.eval_shape(schedule, 3)
    if example.slope_in:
        assert value.eval_shape(schedule.replace(**{example.slope_in: 0.25}), 4) == one
    assert traces == [1]
    leaves, treedef = jax.tree.flatten(schedule)
    assert jax.tree.unflatten(treedef, leaves) == schedule


@for_every_schedule()
def test_slope_in_a_number_is_the_difference_quotient(example: ScheduleExample, x64: None) -> None:
    if not example.slope_in:
        return
    schedule, step = example.make(), 3
    base = getattr(schedule, example.slope_in)

    def at(x: Any) -> Any:
        return jnp.asarray(schedule.replace(**{example.slope_in: x})(step))

    with jax.disable_jit():
        slope = jax.grad(at)(base)
        quotient = (at(base + 1e-6) - at(base - 1e-6)) / 2e-6
    assert_close(slope, quotient, 1e-6)


@for_every_schedule()
def test_all_slopes_are_finite(example: ScheduleExample) -> None:
    """Also at the step where the schedule ends, and at zero."""
    schedule = jax.tree.map(float, example.make())
    slopes = jax.vmap(jax.grad(lambda s, t: jnp.asarray(s(t))), in_axes=(None, 0))
    with jax.disable_jit():
        assert_finite(slopes(schedule, jnp.asarray(STEPS)))


@for_every_schedule()
def test_mapping_over_the_numbers_equals_a_loop(example: ScheduleExample) -> None:
    schedule = example.make()
    scaled = [jax.tree.map(lambda x, k=k: x * k, schedule) for k in (1, 2)]
    stacked = jax.tree.map(lambda *x: jnp.asarray(x), *scaled)
    with jax.disable_jit():
        got = jax.vmap(lambda s: jnp.asarray(s(3)))(stacked)
        assert_close(got, [float(s(3)) for s in scaled], 1e-6)


@for_every_schedule()
def test_as_a_learning_rate(example: ScheduleExample) -> None:
    """Evaluated at 0 in the first update, at 1 in the second."""
    tx, gradient = gradtx.sgd(example.make()), jnp.asarray([1.0, -2.0])
    with jax.disable_jit():
        state = tx.init(gradient)
        for t in range(3):
            updates, state = tx.update(gradient, state)
            rate = np.float64(example.make()(t))
            assert_close(updates, -rate * np.asarray(gradient, np.float64), 1e-6)


@for_every_schedule()
def test_unknown_arguments_list_the_known(example: ScheduleExample) -> None:
    schedule = example.make()
    with pytest.raises(TypeError, match=schedule.definition.name) as raised:
        schedule.replace(surely_not=1)
    for name in schedule.definition.parameters:
        assert name in str(raised.value)
    with pytest.raises(AttributeError, match="value"):
        schedule.surely_not = 1


def test_a_plain_function_is_a_schedule() -> None:
    tx = gradtx.sgd(lambda step: 0.1 * (step + 1))
    with jax.disable_jit():
        state = tx.init(jnp.ones(()))
        first, state = tx.update(jnp.ones(()), state)
        second, state = tx.update(jnp.ones(()), state)
    assert_close([first, second], [-0.1, -0.2], 1e-6)


def test_a_schedule_of_the_users_own() -> None:
    @gradtx.schedule
    def sawtooth(top: gradtx.Real, period: gradtx.PositiveSteps) -> Any:
        """top * (t mod period) / period"""
        return lambda t: top * (t % period) / period

    assert repr(sawtooth(0.5, 4)) == "sawtooth(top=0.5, period=4)"
    assert_close(values(sawtooth(0.5, 4)), 0.5 * (STEPS % 4) / 4, 1e-6)
    with pytest.raises(ValueError, match="sawtooth: period must be finite and > 0, got 0"):
        sawtooth(0.5, 0)


def test_a_schedule_of_schedules() -> None:
    """A number among a schedule's arguments may itself follow a schedule, if it is accepted."""
    falling = gradtx.linear_schedule(1.0, 0.0, 10)
    try:
        schedule = gradtx.exponential_decay(falling, 4, 0.5)
    except TypeError as refused:
        assert "exponential_decay: init_value must be a number" in str(refused)  # noqa: PT017
        return
    expected = [falling(int(t)) * 0.5 ** (t / 4) for t in STEPS]
    assert_close(values(schedule), expected, 1e-6)
