"""Warm-up, plateau and decay; inverse square roots; cycles; arithmetic: against plain Python."""

import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradtx

from . import schedule_formulas as formulas
from .test_schedule_formulas import assert_follows, lengths, values

few = settings(max_examples=max(1, settings().max_examples // 4))  # each compiles


def wsd(
    start: float, peak: float, warmup: int, stable: int, steps: int, end: float, decay: str
) -> formulas.Schedule:
    """Three parts, one after the other; the shapes of the last are those of the papers."""
    shapes = {
        "linear": lambda s: 1 - s,
        "cosine": lambda s: 0.5 * math.cos(math.pi * s) + 0.5,
        "sqrt": lambda s: 1 - math.sqrt(s),
    }

    def rate(t: int) -> float:
        if t < warmup:
            return start + (peak - start) * t / warmup
        if t < warmup + stable:
            return peak
        left = shapes[decay](min(1.0, (t - warmup - stable) / steps))
        return left * peak + (1 - left) * end

    return rate


def inverse_sqrt(start: float, peak: float, warmup: int, timescale: int) -> formulas.Schedule:
    def rate(t: int) -> float:
        if t < warmup:
            return start + (peak - start) * t / warmup
        return peak * (1 + (t - warmup) / timescale) ** -0.5

    return rate


def cyclic(
    low: float, high: float, up: int, down: int, mode: str, gamma: float
) -> formulas.Schedule:
    """Counting within the cycle, which begins at its bottom."""

    def rate(t: int) -> float:
        cycle, within = divmod(t, up + down)
        height = within / up if within <= up else 1 - (within - up) / down
        scale = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": gamma**t}[mode]
        return low + (high - low) * height * scale

    return rate


WSD = st.tuples(
    values,
    values,
    st.integers(0, 20),
    st.integers(0, 20),
    st.integers(1, 20),
    values,
    st.sampled_from(["linear", "cosine", "sqrt"]),
)


@few
@given(arguments=WSD)
def test_wsd(arguments: Any) -> None:
    assert_follows(gradtx.wsd_schedule(*arguments), wsd(*arguments))


@few
@given(arguments=st.tuples(values, values, st.integers(0, 30), lengths))
def test_inverse_sqrt(arguments: Any) -> None:
    assert_follows(gradtx.inverse_sqrt_schedule(*arguments), inverse_sqrt(*arguments))


def test_inverse_sqrt_is_that_of_attention_is_all_you_need() -> None:
    """min(t^-0.5, t * warmup^-1.5), up to a factor."""
    schedule = gradtx.inverse_sqrt_schedule(0.0, 16**-0.5, 16)
    assert_follows(schedule, lambda t: min(t**-0.5, t * 16**-1.5) if t else 0.0)


@few
@given(
    values,
    values,
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from(["triangular", "triangular2", "exp_range"]),
    st.floats(0.9, 1.0),
)
def test_cyclic(low: float, high: float, up: int, down: int, mode: str, gamma: float) -> None:
    given_rate = gamma if mode == "exp_range" else 1.0
    schedule = gradtx.cyclic_schedule(low, high, up, down, mode, given_rate)
    assert_follows(schedule, cyclic(low, high, up, down, mode, gamma))


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
def test_cyclic_is_pytorchs(mode: str) -> None:
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, dtype=torch.float64)], lr=0.1)
    gamma = 0.97 if mode == "exp_range" else 1.0
    scheduler = torch.optim.lr_scheduler.CyclicLR(
        optimizer, 0.1, 0.9, 7, 5, mode=mode, gamma=gamma, cycle_momentum=False
    )
    schedule = gradtx.cyclic_schedule(0.1, 0.9, 7, 5, mode, gamma)
    for t in range(60):
        np.testing.assert_allclose(float(schedule(t)), scheduler.get_last_lr()[0], rtol=1e-12)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("x64", [False, True], ids=["float32", "float64"])
def test_cycles_begin_on_time(x64: bool) -> None:
    """Also where a compiled quotient of whole numbers is rounded to just below one."""
    with jax.enable_x64(x64):
        for length in (1, 3, 7, 25, 41, 47, 49, 55):
            schedule = gradtx.cyclic_schedule(0.0, 1.0, length, length, "triangular2")
            tops = jnp.asarray([length, 3 * length, 5 * length], jnp.int32)
            assert jax.jit(jax.vmap(lambda t, s=schedule: s(t)))(tops).tolist() == [1.0, 0.5, 0.25]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: gradtx.wsd_schedule(0, 1, 2, 3, 4, 0, "lin"),
            "decay must be one of 'linear'",
        ),
        (lambda: gradtx.wsd_schedule(0, 1, 2, 3, 0), "decay_steps must be finite and > 0, got 0"),
        (lambda: gradtx.cyclic_schedule(0, 1, 2, mode="sine"), "mode must be one of 'triangular'"),
        (lambda: gradtx.linear_schedule(1, 0, 5) / 0, "right must be a finite number and not 0"),
        (lambda: gradtx.linear_schedule(1, 0, 5).clip(), "Schedule.clip: give low, high or both"),
        (lambda: gradtx.linear_schedule(1, 0, 5).clip(2, 1), "low must not be above high"),
        (
            lambda: gradtx.join_schedules([lambda t: t] * 3, np.array([1])),
            "3 schedules need 2 boundaries",
        ),
    ],
)
def test_bad_arguments(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# -- arithmetic ----------------------------------------------------------------------------------

A, B = formulas.linear(0.5, 0.1, 10), formulas.cosine_decay(0.4, 30)
a, b = gradtx.linear_schedule(0.5, 0.1, 10), gradtx.cosine_decay_schedule(0.4, 30)


@pytest.mark.parametrize(
    ("schedule", "oracle", "text"),
    [
        (a + b, lambda t: A(t) + B(t), "{a} + {b}"),
        (a - 0.2, lambda t: A(t) - 0.2, "{a} - 0.2"),
        (1 - a, lambda t: 1 - A(t), "1 - {a}"),
        (2 + a, lambda t: 2 + A(t), "2 + {a}"),
        (0.5 * a, lambda t: 0.5 * A(t), "0.5 * {a}"),
        (a * b, lambda t: A(t) * B(t), "{a} * {b}"),
        (b / a, lambda t: B(t) / A(t), "{b} / {a}"),
        (1 / a, lambda t: 1 / A(t), "1 / {a}"),
        (a / 4, lambda t: A(t) / 4, "{a} / 4"),
        (-a, lambda t: -A(t), "-{a}"),
        (a - (b - a), lambda t: 2 * A(t) - B(t), "{a} - ({b} - {a})"),
        (-(a + b) * 2, lambda t: -2 * (A(t) + B(t)), "-({a} + {b}) * 2"),
        (a.clip(0.2, 0.4), lambda t: min(max(A(t), 0.2), 0.4), "{a}.clip(low=0.2, high=0.4)"),
        (a.clip(high=b), lambda t: min(A(t), B(t)), "{a}.clip(high={b})"),
        ((a * b).clip(0.1), lambda t: max(A(t) * B(t), 0.1), "({a} * {b}).clip(low=0.1)"),
        (a.shift(5), lambda t: A(max(t - 5, 0)), "{a}.shift(steps=5)"),
        (b.shift(-7), lambda t: B(t + 7), "{b}.shift(steps=-7)"),
        (np.float32(0.5) * a, lambda t: 0.5 * A(t), "0.5 * {a}"),
        (np.float64(3.0) / a, lambda t: 3 / A(t), "3.0 / {a}"),
        (jnp.float32(0.5) * a, lambda t: 0.5 * A(t), "array(0.5, 'float32') * {a}"),
        (a**2, lambda t: A(t) ** 2, "{a} ** 2"),
        (a**-1.5, lambda t: A(t) ** -1.5, "{a} ** -1.5"),
        (a**b, lambda t: A(t) ** B(t), "{a} ** {b}"),
        (2**a, lambda t: 2 ** A(t), "2 ** {a}"),
        (np.float64(0.5) ** a, lambda t: 0.5 ** A(t), "0.5 ** {a}"),
        ((a + b) ** 2, lambda t: (A(t) + B(t)) ** 2, "({a} + {b}) ** 2"),
        (-(a**2), lambda t: -(A(t) ** 2), "-({a} ** 2)"),
        ((-a) ** 2, lambda t: A(t) ** 2, "(-{a}) ** 2"),
        ((a**b) ** 3, lambda t: A(t) ** (3 * B(t)), "({a} ** {b}) ** 3"),
        (a ** (b**2), lambda t: A(t) ** B(t) ** 2, "{a} ** {b} ** 2"),
        (a**-b, lambda t: A(t) ** -B(t), "{a} ** -{b}"),
        ((-2.0) ** (0 * a), lambda t: 1.0, "(-2.0) ** (0 * {a})"),
        (3 * a**2, lambda t: 3 * A(t) ** 2, "3 * {a} ** 2"),
        ((3 * a) ** 2, lambda t: 9 * A(t) ** 2, "(3 * {a}) ** 2"),
        ((a**2).clip(0.1), lambda t: max(A(t) ** 2, 0.1), "({a} ** 2).clip(low=0.1)"),
        (gradtx.constant_schedule(-8.0) ** 3, lambda t: -512.0, None),
        (a * gradtx.constant_schedule(2.0), lambda t: 2 * A(t), None),
        (a + (lambda t: 0.1 * t), lambda t: A(t) + 0.1 * t, None),
    ],
)
def test_arithmetic(schedule: Any, oracle: formulas.Schedule, text: str | None) -> None:
    assert_follows(schedule, oracle)
    if text:
        assert str(schedule) == text.format(a=a, b=b)
        again = eval(str(schedule), dict(vars(gradtx)) | {"array": jnp.array})
        assert str(again) == str(schedule)
        assert float(again(7)) == float(schedule(7))


def test_arithmetic_with_anything_else_is_refused() -> None:
    for other in ("a", None, True, gradtx.adam(0.1), [1.0]):
        with pytest.raises(TypeError):
            a + other


def test_both_factors_have_derivatives() -> None:
    def value(k: Any, start: Any) -> Any:
        return (k * gradtx.linear_schedule(start, 0.0, 10))(5)

    np.testing.assert_allclose(jax.grad(value, (0, 1))(3.0, 0.5), (0.25, 1.5), rtol=1e-12)


def test_boundaries_as_arrays() -> None:
    tuples = gradtx.join_schedules((a, b, a), (5, 20))
    for boundaries in (np.array([5, 20]), np.array([5.0, 20.0]), jnp.array([5, 20]), [5, 20]):
        joined = gradtx.join_schedules((a, b, a), boundaries)
        assert [float(joined(t)) for t in (4, 5, 30)] == [float(tuples(t)) for t in (4, 5, 30)]
    assert gradtx.join_schedules((a, b, a), np.array([5, 20])) == tuples
    joined = jax.jit(lambda x, t: gradtx.join_schedules((a, b, a), x)(t))
    assert joined(jnp.array([5, 20]), 7) == tuples(7)


def test_one_boundary_too_many_is_taken_with_a_warning() -> None:
    """As Levanter gives them: the last one after everything."""
    plain = gradtx.join_schedules((a, b, a), (5, 20))
    with pytest.warns(UserWarning, match="need 2 boundaries between them, got 3.*last, 30,") as all:
        joined = gradtx.join_schedules((a, b, a), (5, 20, 30))
    assert [w.filename for w in all] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it has been said once
        steps = jnp.arange(40)
        np.testing.assert_array_equal(joined(steps), plain(steps))
        np.testing.assert_array_equal(
            jax.jit(lambda s, t: s(t))(joined, steps), jax.jit(lambda s, t: s(t))(plain, steps)
        )
        gradtx.sgd(joined).init(jnp.ones(2))
        gradtx.join_schedules((a, b, a), (5, 20))
    with pytest.raises(ValueError, match="3 schedules need 2 boundaries between them, got 4"):
        gradtx.join_schedules((a, b, a), (5, 20, 30, 40))
