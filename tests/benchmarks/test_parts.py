"""The parts of the benchmarks, without a measurement."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

from benchmarks.measure import Rounds, interleave
from benchmarks.parameters import PARAMETER_SETS, draw, size
from benchmarks.program import count_equations
from benchmarks.recipes import RECIPES
from benchmarks.run import Clock


@pytest.mark.parametrize(
    ("name", "leaves", "parameters"),
    [
        ("gpt2", 148, 124_439_808),
        ("resnet50", 161, 25_557_032),
        ("matrices", 1000, 1000 * 64 * 64),
        ("small", 200, 200 * 32),
        ("vector", 1, 2**26),
        ("mlp", 6, 71_942),
        ("llama1b", 146, 1_235_814_400),
    ],
)
def test_parameter_sets_are_what_they_are_called(name, leaves, parameters):
    assert size(PARAMETER_SETS[name].shapes(quick=False)) == (leaves, parameters)


@pytest.mark.parametrize("name", PARAMETER_SETS)
def test_quick_sets_are_tiny_and_drawn(name):
    shapes = PARAMETER_SETS[name].shapes(quick=True)
    tree = draw(shapes, 0, 0.5, jax.devices()[0])
    leaves, parameters = size(shapes)
    assert parameters < 20_000
    assert [x.dtype for x in jax.tree.leaves(tree)] == [jnp.float32] * leaves


def test_every_recipe_has_a_floor_of_at_least_sgd():
    assert all(recipe.floor >= 12 for recipe in RECIPES.values())


def test_equations_are_counted_once_and_at_each_use():
    @jax.jit
    def twice(x):
        return x * 2 + 1

    traced = jax.jit(lambda x, y: twice(x) + twice(y)).trace(1.0, 2.0)
    # Outside: two calls and a sum; inside: a product and a sum.
    assert count_equations(traced.jaxpr) == (3 + 2, 3 + 2 * 2)


def test_equations_in_branches_are_counted():
    traced = jax.jit(lambda p, x: jax.lax.cond(p, jnp.sin, lambda y: y * y + y, x)).trace(True, 1.0)
    outside = len(traced.jaxpr.eqns)
    assert count_equations(traced.jaxpr) == (outside + 3, outside + 3)


def test_interleaved_rounds_alternate_who_goes_first():
    calls: list[str] = []

    def timer(name: str) -> Callable[[], str]:
        return lambda: calls.append(name) or name

    samples = interleave([timer("a"), timer("b")], Rounds(3, 3, until=0.0))
    assert samples == [["a"] * 3, ["b"] * 3]
    assert "".join(calls) == "abbaab"


def test_rounds_fit_their_time():
    now = time.perf_counter()
    assert Rounds(2, 5, until=now).more(1, longest=9.0)
    assert not Rounds(2, 5, until=now + 5).more(2, longest=9.0)
    assert Rounds(2, 5, until=now + 50).more(4, longest=9.0)
    assert not Rounds(2, 5, until=now + 50).more(5, longest=9.0)


def test_a_clock_gives_what_is_left_to_those_that_follow():
    clock = Clock(100.0, [1.0, 3.0])
    assert clock.next() == pytest.approx(25, abs=1)
    assert clock.next() == pytest.approx(100, abs=1)
    assert Clock(-1.0, [1.0]).next() == 0.0
