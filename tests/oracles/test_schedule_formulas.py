"""Every schedule against its definition in plain Python: 1e-12 in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradtx

from . import schedule_formulas as formulas
from .replay import assert_close

LAST = 60
few = settings(max_examples=max(1, settings().max_examples // 4))  # each compiles

values = st.floats(0.01, 10.0)
lengths = st.integers(1, LAST)
begins = st.integers(0, 10)
factors = st.floats(0.0, 3.0)
powers = st.sampled_from([0.5, 1, 2, 2.5, 3.0])
boundaries = st.dictionaries(st.integers(1, LAST), factors, min_size=1, max_size=4)
ends = st.none() | values

# Name: (oracle, strategies for its arguments in order). Both take the same ones.
SCHEDULES: dict[str, tuple[Any, tuple[st.SearchStrategy[Any], ...]]] = {
    "constant_schedule": (formulas.constant, (values,)),
    "linear_schedule": (formulas.linear, (values, values, st.integers(0, LAST), begins)),
    "polynomial_schedule": (
        formulas.polynomial,
        (values, values, powers, st.integers(0, LAST), begins),
    ),
    "exponential_decay": (
        formulas.exponential,
        (values, lengths, st.floats(0.1, 2.0), begins, st.booleans(), ends),
    ),
    "piecewise_constant_schedule": (formulas.piecewise_constant, (values, boundaries)),
    "piecewise_interpolate_schedule": (
        formulas.piecewise_interpolate,
        (st.sampled_from(["linear", "cosine"]), values, boundaries),
    ),
    "cosine_decay_schedule": (
        formulas.cosine_decay,
        (values, lengths, st.floats(0.0, 1.0), st.sampled_from([1.0, 2.0, 3])),
    ),
    "warmup_constant_schedule": (formulas.warmup_constant, (values, values, lengths)),
    "warmup_cosine_decay_schedule": (
        formulas.warmup_cosine,
        (values, values, st.integers(0, 20), st.integers(21, LAST), values, powers),
    ),
    "warmup_exponential_decay_schedule": (
        formulas.warmup_exponential,
        (
            values,
            values,
            st.integers(0, 20),
            lengths,
            st.floats(0.1, 2.0),
            begins,
            st.booleans(),
            ends,
        ),
    ),
    "linear_onecycle_schedule": (
        formulas.linear_onecycle,
        (st.integers(10, LAST), values, st.floats(0.1, 0.4), st.floats(0.55, 0.9), values, values),
    ),
    "cosine_onecycle_schedule": (
        formulas.cosine_onecycle,
        (st.integers(10, LAST), values, st.floats(0.1, 0.9), values, values),
    ),
    "cosine_annealing_schedule": (formulas.cosine_annealing, (values, st.integers(1, 25), values)),
    "warm_restarts_schedule": (
        formulas.warm_restarts,
        (values, st.integers(1, 20), st.integers(1, 3), values),
    ),
}


def assert_follows(schedule: Any, oracle: formulas.Schedule) -> None:
    """At Python ints, at traced int32 steps as an optimizer asks, and in float32."""
    expected = np.array([oracle(t) for t in range(LAST + 10)])
    steps = jnp.arange(LAST + 10, dtype=jnp.int32)
    traced = jax.jit(jax.vmap(lambda t: jnp.asarray(schedule(t))))
    assert_close(np.array([schedule(t) for t in (0, 7, LAST)]), expected[[0, 7, LAST]], what="int")
    assert_close(traced(steps), expected, what="traced int32")
    with jax.enable_x64(False):
        traced = jax.jit(jax.vmap(lambda t: jnp.asarray(schedule(t))))
        got = traced(jnp.arange(LAST + 10, dtype=jnp.int32))
        assert got.dtype == jnp.float32
        assert_close(got, expected, 5e-5, what="float32")


@pytest.mark.parametrize("name", SCHEDULES)
@few
@given(data=st.data())
def test_schedule_follows_its_formula(name: str, data: st.DataObject) -> None:
    oracle, strategies = SCHEDULES[name]
    arguments = data.draw(st.tuples(*strategies))
    assert_follows(getattr(gradtx, name)(*arguments), oracle(*arguments))


@few
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "init_value": values,
                "peak_value": values,
                "warmup_steps": st.integers(0, 5),
                "decay_steps": st.integers(6, 30),
            },
            optional={"end_value": values, "exponent": powers},
        ),
        min_size=1,
        max_size=3,
    )
)
def test_sgdr(cycles: list[dict[str, Any]]) -> None:
    assert_follows(gradtx.sgdr_schedule(cycles), formulas.sgdr(cycles))


@few
@given(st.lists(values, min_size=1, max_size=4), st.data())
def test_join(starts: list[float], data: st.DataObject) -> None:
    """Each part is a line down to zero over 20 steps, counted from its own boundary."""
    boundaries = sorted(
        data.draw(
            st.lists(
                st.integers(1, LAST),
                min_size=len(starts) - 1,
                max_size=len(starts) - 1,
                unique=True,
            )
        )
    )
    assert_follows(
        gradtx.join_schedules([gradtx.linear_schedule(v, 0.0, 20) for v in starts], boundaries),
        formulas.join([formulas.linear(v, 0.0, 20) for v in starts], boundaries),
    )


# A compiled division by a constant may be a product with its rounded reciprocal: 49 / 49 < 1.
# What must happen at a whole number must happen there all the same, in either precision.

LENGTHS = (1, 3, 7, 25, 41, 47, 49, 55)  # most of them are such
WIDTHS = pytest.mark.parametrize("x64", [False, True], ids=["float32", "float64"])


def traced(schedule: Any, steps: Any) -> list[float]:
    """At int32 steps, compiled."""
    return jax.jit(jax.vmap(lambda t: schedule(t)))(jnp.asarray(steps, jnp.int32)).tolist()


@WIDTHS
@pytest.mark.parametrize("power", [0.5, 1, 2.5])
def test_a_polynomial_ends_at_the_end_value(power: float, x64: bool) -> None:
    """Exactly; not beside it, and not NaN, which a base that rounds below zero would give."""
    with jax.enable_x64(x64):
        for length in LENGTHS:
            schedule = gradtx.polynomial_schedule(0.5, 0.0, power, length, 3)
            ends = traced(schedule, [length + 3, length + 4])
            assert ends == [0.0, 0.0], f"over {length} steps"


@WIDTHS
def test_a_staircase_steps_on_time(x64: bool) -> None:
    with jax.enable_x64(x64):
        for length in LENGTHS:
            schedule = gradtx.exponential_decay(1.0, length, 0.5, staircase=True)
            steps = [length - 1, length, 2 * length - 1, 2 * length, 3 * length]
            assert traced(schedule, steps) == [1.0, 0.5, 0.5, 0.25, 0.125], f"{length} steps wide"


@WIDTHS
@pytest.mark.parametrize("multiplier", [1, 2, 3])
def test_restarts_are_on_time(multiplier: int, x64: bool) -> None:
    with jax.enable_x64(x64):
        for length in LENGTHS:
            schedule = gradtx.warm_restarts_schedule(1.0, length, multiplier)
            restarts = np.cumsum([0, *(length * multiplier**i for i in range(4))])
            assert traced(schedule, restarts) == [1.0] * 5, f"first period {length}"


def test_annealing_is_periodic() -> None:
    schedule = gradtx.cosine_annealing_schedule(1.0, 10, 0.1)
    got = np.array([schedule(t) for t in (0, 10, 20, 30, 5, 25, 35)])
    assert_close(got, np.array([1.0, 0.1, 1.0, 0.1, 0.55, 0.55, 0.55]))


def test_restarts_begin_where_they_should() -> None:
    schedule = gradtx.warm_restarts_schedule(1.0, 10, 2, 0.1)
    assert [t for t in range(100) if float(schedule(t)) == 1.0] == [0, 10, 30, 70]


def test_lengths_beyond_32_bits() -> None:
    schedule = jax.jit(gradtx.cosine_decay_schedule(1000.0, 10**10))
    assert float(schedule(10**9)) == pytest.approx(500 * (1 + np.cos(np.pi / 10)), rel=1e-6)
