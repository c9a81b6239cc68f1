"""Schedules reach their ends, peaks and starts exactly: compiled and not, in either precision.

What is computed may miss them: compiled, a product and a sum are rounded once, and a division by a
constant is a product with its rounded reciprocal. So every length is tried, constant and traced.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import Schedule
from gradtx import torch as gt

from .registry import public

LENGTHS = (1, 7, 41, 49, 55)  # most of their reciprocals are rounded
ENDS = (0.0, 0.1)
START, PEAK = 0.7, 0.3

# Name: what makes the schedule of a start, a peak, an end and a length, and its values at steps.
Case = tuple[Any, list[tuple[Any, Any]]]
EXACT: dict[str, Callable[[Any, Any, Any, Any], Case]] = {
    "linear_schedule": lambda a, p, e, n: (
        gradtx.linear_schedule(a, e, n),
        [(0, a), (n, e), (n + 1, e), (9 * n, e)],
    ),
    "polynomial_schedule": lambda a, p, e, n: (
        gradtx.polynomial_schedule(a, e, 0.5, n, 3),
        [(0, a), (3, a), (n + 3, e), (9 * n + 3, e)],
    ),
    "cosine_decay_schedule": lambda a, p, e, n: (
        gradtx.cosine_decay_schedule(a, n, e, 1.5),
        [(0, a), (n, e * a), (n + 1, e * a), (9 * n, e * a)],
    ),
    "warmup_constant_schedule": lambda a, p, e, n: (
        gradtx.warmup_constant_schedule(a, p, n),
        [(0, a), (n, p), (9 * n, p)],
    ),
    "warmup_cosine_decay_schedule": lambda a, p, e, n: (
        gradtx.warmup_cosine_decay_schedule(a, p, n, 3 * n, e),
        [(0, a), (n, p), (3 * n, e), (9 * n, e)],
    ),
    "warmup_exponential_decay_schedule": lambda a, p, e, n: (
        gradtx.warmup_exponential_decay_schedule(a, p, n, 2, 0.01, end_value=abs(e)),
        [(0, a), (n, p), (n + 400, abs(e))],
    ),
    "exponential_decay": lambda a, p, e, n: (
        gradtx.exponential_decay(a, n, 1e-30, end_value=abs(e)),
        [(0, a), (20 * n, abs(e)), (21 * n, abs(e))],
    ),
    "piecewise_interpolate_schedule": lambda a, p, e, n: (
        gradtx.piecewise_interpolate_schedule("cosine", a, {4: p, 7: 0.1}),
        [(0, a), (4, a * p), (7, a * p * 0.1), (8, a * p * 0.1)],
    ),
    "piecewise_constant_schedule": lambda a, p, e, n: (
        gradtx.piecewise_constant_schedule(a, {4: p, 7: 0.1}),
        [(0, a), (3, a), (4, a * p), (7, a * p * 0.1), (8, a * p * 0.1)],
    ),
    "linear_onecycle_schedule": lambda a, p, e, n: (
        gradtx.linear_onecycle_schedule(4 * n, p, 0.5, 0.75, 25.0, 300.0),
        [(0, p / 25), (2 * n, p), (3 * n, p / 25), (4 * n, p / 7500), (9 * n, p / 7500)],
    ),
    "cosine_onecycle_schedule": lambda a, p, e, n: (
        gradtx.cosine_onecycle_schedule(4 * n, p, 0.5, 25.0, 300.0),
        [(0, p / 25), (2 * n, p), (4 * n, p / 7500), (9 * n, p / 7500)],
    ),
    "cosine_annealing_schedule": lambda a, p, e, n: (
        gradtx.cosine_annealing_schedule(a, n, e),
        [(0, a), (n, e), (2 * n, a), (7 * n, e)],
    ),
    "warm_restarts_schedule": lambda a, p, e, n: (
        gradtx.warm_restarts_schedule(a, n, 2, e),
        [(0, a), (n, a), (3 * n, a), (7 * n, a)],
    ),
    "sgdr_schedule": lambda a, p, e, n: (
        gradtx.sgdr_schedule(2 * [dict(zip(_COSINE, (a, p, n, 3 * n, e), strict=True))]),
        [(0, a), (n, p), (3 * n, a), (4 * n, p), (6 * n, e), (9 * n, e)],
    ),
    "join_schedules": lambda a, p, e, n: (
        gradtx.join_schedules((gradtx.linear_schedule(a, p, n), _line(p, e, n)), (n,)),
        [(0, a), (n, p), (2 * n, e), (9 * n, e)],
    ),
    "wsd_schedule": lambda a, p, e, n: (
        gradtx.wsd_schedule(a, p, n, n, n, e),
        [(0, a), (n, p), (2 * n, p), (3 * n, e), (3 * n + 1, e), (9 * n, e)],
    ),
    "wsd_schedule-cosine": lambda a, p, e, n: (
        gradtx.wsd_schedule(a, p, n, n, n, e, "cosine"),
        [(0, a), (n, p), (2 * n, p), (3 * n, e), (3 * n + 1, e), (9 * n, e)],
    ),
    "wsd_schedule-sqrt": lambda a, p, e, n: (
        gradtx.wsd_schedule(a, p, n, n, n, e, "sqrt"),
        [(0, a), (n, p), (2 * n, p), (3 * n, e), (3 * n + 1, e), (9 * n, e)],
    ),
    "inverse_sqrt_schedule": lambda a, p, e, n: (
        gradtx.inverse_sqrt_schedule(a, p, n),
        [(0, a), (n, p)],
    ),
    "cyclic_schedule": lambda a, p, e, n: (
        gradtx.cyclic_schedule(e, p, n),
        [(0, e), (n, p), (2 * n, e), (3 * n, p), (8 * n, e)],
    ),
    "cyclic_schedule-triangular2": lambda a, p, e, n: (
        gradtx.cyclic_schedule(e, p, n, mode="triangular2"),
        [(0, e), (n, p), (2 * n, e), (8 * n, e)],
    ),
    "Schedule-shift": lambda a, p, e, n: (
        _line(a, e, n).shift(5),
        [(0, a), (5, a), (n + 5, e), (9 * n + 5, e)],
    ),
    "Schedule-clip": lambda a, p, e, n: (
        _line(a, -1.0, n).clip(low=e),
        [(0, a), (n, e), (9 * n, e)],
    ),
    "torch.multi_step_lr": lambda a, p, e, n: (
        gt.multi_step_lr(a, (n,), 0.0),
        [(0, a), (n - 1, a), (n, 0.0), (9 * n, 0.0)],
    ),
    "torch.constant_lr": lambda a, p, e, n: (
        gt.constant_lr(a, 0.0, n),
        [(0, 0.0), (n - 1, 0.0), (n, a), (9 * n, a)],
    ),
    "torch.linear_lr": lambda a, p, e, n: (
        gt.linear_lr(a, 0.0, 1.0, n),
        [(0, 0.0), (n, a), (9 * n, a)],
    ),
    "torch.polynomial_lr": lambda a, p, e, n: (
        gt.polynomial_lr(a, n, 2.0),
        [(0, a), (n, 0.0), (9 * n, 0.0)],
    ),
    "torch.cyclic_lr": lambda a, p, e, n: (
        gt.cyclic_lr(abs(e), abs(e), n),
        [(0, abs(e)), (n, abs(e)), (9 * n, abs(e))],
    ),
    "torch.one_cycle_lr": lambda a, p, e, n: (
        gt.one_cycle_lr(a, n + 1, div_factor=1.0, final_div_factor=1.0),
        [(0, a), (n, a), (9 * n + 9, a)],
    ),
    "torch.sequential_lr": lambda a, p, e, n: (
        gt.sequential_lr([_line(a, e, n), _line(e, p, n)], [n]),
        [(0, a), (n, e), (2 * n, p), (9 * n, p)],
    ),
    "torch.cosine_annealing_lr": lambda a, p, e, n: (
        gt.cosine_annealing_lr(a, n, abs(e)),
        [(0, a), (n, abs(e)), (2 * n, a)],
    ),
    "torch.cosine_annealing_warm_restarts": lambda a, p, e, n: (
        gt.cosine_annealing_warm_restarts(a, n, 2, abs(e)),
        [(0, a), (n, a), (3 * n, a)],
    ),
}
ENDLESS = {"constant_schedule", "inverse_time_decay_schedule", "torch.step_lr"}
ENDLESS |= {"torch.exponential_lr", "precond_update_prob_schedule"}
_COSINE = ("init_value", "peak_value", "warmup_steps", "decay_steps", "end_value")
_line = gradtx.linear_schedule

every = pytest.mark.parametrize("case", EXACT.values(), ids=EXACT)
precisions = pytest.mark.parametrize("x64", [False, True], ids=["float32", "float64"])


def test_every_schedule_is_tried() -> None:
    tried = {name.partition("-")[0] for name in EXACT} - {"Schedule"}
    assert tried | ENDLESS == set(public(Schedule))


@every
@precisions
def test_known_numbers_are_met_exactly(case: Any, x64: bool) -> None:
    cases = [case(START, PEAK, end, n) for end in ENDS for n in LENGTHS]
    with jax.enable_x64(x64):
        dtype = np.float64 if x64 else np.float32
        expected = [[dtype(x) for _, x in points] for _, points in cases]
        steps = [jnp.asarray([t for t, _ in points], jnp.int32) for _, points in cases]
        compiled = jax.jit(lambda steps: [s(t) for (s, _), t in zip(cases, steps, strict=True)])
        for got, wanted, t in zip(compiled(steps), expected, steps, strict=True):
            assert got.dtype == dtype
            assert got.tolist() == wanted, f"compiled, at {t}"
        for (schedule, _), wanted, t in list(zip(cases, expected, steps, strict=True))[4::5]:
            assert schedule(t).tolist() == wanted, f"{schedule} at {t}"
            assert [float(schedule(int(x))) for x in t] == wanted, f"{schedule} at each of {t}"


@every
@precisions
def test_traced_numbers_are_met_exactly(case: Any, x64: bool) -> None:
    with jax.enable_x64(x64):
        dtype = np.float64 if x64 else np.float32

        @jax.jit
        def differences(end: Any, n: Any) -> Any:
            schedule, points = case(dtype(START), dtype(PEAK), end, n)
            # Products and quotients of the numbers themselves are the compiler's to round.
            return [schedule(t) - x for t, x in points]

        ends, lengths = np.meshgrid(np.asarray([*ENDS, -0.3, 1e-8], dtype), np.arange(1, 68))
        got = jax.vmap(differences)(jnp.asarray(ends.ravel()), jnp.asarray(lengths.ravel()))
        worst = [float(jnp.max(jnp.abs(x))) for x in got]
        assert max(worst) <= (0 if case not in PRODUCTS else 2 * np.finfo(dtype).eps)


# Whose ends are products or quotients of their arguments.
PRODUCTS = [EXACT[name] for name in EXACT if "onecycle" in name or "piecewise" in name]
PRODUCTS.append(EXACT["cosine_decay_schedule"])


@precisions
def test_the_plateau_of_schedule_free_is_its_rate(x64: bool) -> None:
    """The rate of its last step of warm-up, read off the parameters of a first step."""
    from gradtx.optimizers.schedule_free import rise

    with jax.enable_x64(x64):
        dtype = np.float64 if x64 else np.float32
        for n in LENGTHS:
            rates = jax.jit(jax.vmap(rise(0.1, n)))(jnp.asarray([n - 1, n, 9 * n], jnp.int32))
            assert rates.tolist() == [dtype(0.1)] * 3, f"{n} steps"


@pytest.mark.parametrize("decay", ["linear", "cosine", "sqrt"])
def test_an_end_that_was_missed_when_compiled(decay: str) -> None:
    schedule = gradtx.wsd_schedule(0.0, 1.0, 10, 10, 10, 0.0, decay)
    assert float(jax.jit(schedule)(30)) == 0.0
    assert float(jax.jit(lambda s, t: s(t))(schedule, 30)) == 0.0
    lengths = range(1, 68)
    schedules = [gradtx.wsd_schedule(0.0, 1.0, 10, 10, n, 0.1, decay) for n in lengths]
    at_ends = jax.jit(lambda ends: [s(t) for s, t in zip(schedules, ends, strict=True)])
    assert {float(x) for x in at_ends([20 + n for n in lengths])} == {float(np.float32(0.1))}


@pytest.mark.parametrize("steps", [(100, 29), (200, 58)])
def test_one_cycle_turns_where_the_share_of_its_steps_says(steps: tuple[int, int]) -> None:
    """int(0.29 * 100) is 28 in float64, and rounded to float32 it would be 29."""
    length, _ = steps
    turn = int(0.29 * length)
    for x64 in (False, True):
        with jax.enable_x64(x64):
            schedule = gradtx.cosine_onecycle_schedule(length, 1.0, 0.29)
            assert float(schedule(turn)) == 1.0
            assert float(schedule(turn + 1)) < 1.0
