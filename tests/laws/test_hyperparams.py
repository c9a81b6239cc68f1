"""What `hyperparams` says is what the next step uses."""

from typing import Any

import jax
import numpy as np

import gradtx

from .registry import Example, Number, for_every, numbers
from .running import STEPS, assert_same, first, grads, params


def changing(tx: Any, number: Number) -> Any:
    """A schedule that differs at every step, of numbers that are allowed."""
    x, allowed = number.value, tx.definition.parameters[number.argument].accepts
    by = -0.125 if allowed(np.float64(0.875 * x)) else 0.125
    return lambda t: x * (1 + by * t / (1 + t))


def schedulable(tx: Any) -> list[Number]:
    return [n for n in numbers(tx) if tx.definition.parameters[n.argument].scheduled]


@for_every(where=lambda e: schedulable(e.make()), slow=True)
def test_schedules_are_told_as_they_are_used(example: Example) -> None:
    """Numbers in their places make the same update."""
    tx = example.make()
    scheduled = tx
    for number in schedulable(tx):
        scheduled = number.in_(scheduled, changing(tx, number))
    state, gradient = scheduled.init(params()), first(grads(of=example))
    step = jax.jit(scheduled.update)
    for _ in range(STEPS - 1):
        _, state = step(gradient, state, params(), **example.extra)
    told = gradtx.hyperparams(scheduled, state)
    constant = scheduled
    for number in schedulable(tx):
        names = [n for n in told if n.endswith(f"{tx.definition.name}.{number.label}")]
        for name in names:  # none if another argument switches it off
            constant = number.in_(constant, told[name])
    expected, _ = step(gradient, state, params(), **example.extra)
    got, _ = jax.jit(constant.update)(gradient, state, params(), **example.extra)
    assert_same(got, expected, 1e-5)


@for_every(slow=True)
def test_everything_can_be_reported(example: Example) -> None:
    """In whatever state, without running anything."""
    tx, gradient = example.make(), first(grads(of=example))
    if tx._is_pair:
        return  # of which nothing can be read

    def report(gradient: Any, state: Any, p: Any) -> Any:
        return gradtx.hyperparams(tx, state), gradtx.report(tx, gradient, p, state, p)

    state = jax.eval_shape(tx.init, params())
    numbers, found = jax.eval_shape(report, gradient, state, params())
    assert all(x.shape == () and x.dtype == np.float32 for x in found.values())
    assert {"norm/grads", "norm/updates", "norm/params", "ratio"} <= found.keys()
    assert all(np.shape(x) == () for x in numbers.values())
