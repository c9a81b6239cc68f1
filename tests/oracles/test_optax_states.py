"""A run that Optax began goes on: with Optax's own state objects, to the same numbers.

Of everything that both have, at the first set of arguments of `optax_cases`: some steps of Optax,
then some more with its state given to gradtx, compiled, in a scan and one by one, against as many
more of Optax. Of the essential names every time, of the others if asked.
"""

import functools
import pickle
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

from .optax_cases.case import LINEAR, Args, build, resolve
from .replay import assert_trees_close
from .test_against_optax import ESSENTIAL, OPTIMIZERS, TRANSFORMATIONS, one_step, pushes, start

BEFORE = 3


def rate_of(name: str) -> float:
    return -0.1 if name in TRANSFORMATIONS else 1.0


def inputs(first: int, last: int, dtype: Any = np.float64) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x[first:last], dtype), pushes())


def walk(lib: Any, tx: Any, case: Args, rate: float, at: Any, steps: Any) -> Any:
    """Step by step, as each library runs outside of a scan."""
    for i in range(len(jax.tree.leaves(steps)[0])):
        push = jax.tree.map(lambda x, i=i: x[i], steps)
        at = one_step(lib, case.extra, tx, rate, *at, push)
    return at


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def scanned(tx: Any, case_extra: Any, rate: float, at: Any, steps: Any) -> Any:
    """In a scan, whose carry must leave as it came in, classes included."""

    def step(carry: Any, push: Any) -> Any:
        return one_step(gradtx, case_extra, tx, rate, *carry, push), None

    return jax.lax.scan(step, at, steps)[0]


def cases() -> list[Any]:
    return [
        pytest.param(
            name, table[0], id=name, marks=pytest.mark.one_in(4 if name in ESSENTIAL else 16)
        )
        for name, table in (TRANSFORMATIONS | OPTIMIZERS).items()
        if table[0].states
    ]


@pytest.mark.parametrize(("name", "case"), cases())
def test_a_run_of_optax_goes_on(name: str, case: Args) -> None:
    ours, theirs, rate = build(gradtx, name, case), build(optax, name, case), rate_of(name)
    after = min(BEFORE + 5, case.steps)
    params = jax.tree.map(lambda x: jnp.asarray(x, np.float64), start())
    at = walk(optax, theirs, case, rate, (params, theirs.init(params)), inputs(0, BEFORE))
    got = scanned(ours, case.extra, rate, at, inputs(BEFORE, after))
    eager = walk(gradtx, ours, case, rate, at, inputs(BEFORE, BEFORE + 1))
    for last, mine in ((BEFORE + 1, eager), (after, got)):
        expected = walk(optax, theirs, case, rate, at, inputs(BEFORE, last))
        assert jax.tree.structure(mine) == jax.tree.structure(at)
        assert_trees_close(mine, expected, case.rtol)


P = {"w": np.array([1.0, -2.0]), "b": np.float64(0.5)}
WRAPPED = {
    "MultiSteps": lambda lib: lib.MultiSteps(lib.adam(0.1), 2).gradient_transformation(),
    "inject_hyperparams": lambda lib: lib.inject_hyperparams(lib.adamw)(0.1),
    "injected schedule": lambda lib: lib.inject_hyperparams(lib.sgd)(resolve(lib, LINEAR)),
    "chain of one": lambda lib: lib.chain(
        lib.masked(lib.trace(0.9), {"w": True, "b": False}), lib.chain(lib.scale(-0.1))
    ),
    "a mask that is a prefix": lambda lib: lib.masked(lib.adam(0.1), False),
    "a mask on a tree rule": lambda lib: lib.chain(
        lib.masked(lib.scale_by_optimistic_gradient(), {"w": True, "b": False}), lib.scale(-0.1)
    ),
    "named": lambda lib: lib.named_chain(("z", lib.trace(0.9)), ("a", lib.scale(-0.1))),
    "add_noise": lambda lib: lib.chain(lib.add_noise(0.0, 0.55, 0), lib.adam(0.1)),
    "scheduled": lambda lib: lib.adamw(resolve(lib, LINEAR), weight_decay=0.1),
    "groups": lambda lib: lib.partition(
        {"a": lib.adam(0.1), "b": lib.set_to_zero()}, {"w": "a", "b": "b"}
    ),
    "deep": lambda lib: lib.apply_if_finite(
        lib.chain(lib.clip(1.0), lib.masked(lib.lamb(0.1), {"w": True, "b": False})), 2
    ),
}


@pytest.mark.parametrize("make", WRAPPED.values(), ids=WRAPPED)
def test_wrappers_go_on(make: Any) -> None:
    """Restored from a pickle."""
    ours, theirs = make(gradtx), make(optax)

    def go(tx: Any, lib: Any, at: Any) -> Any:
        updates, state = tx.update(jax.tree.map(lambda p: p + 1, at[0]), at[1], at[0])
        return lib.apply_updates(at[0], updates), state

    at = jax.tree.map(jnp.asarray, (P, theirs.init(jax.tree.map(jnp.asarray, P))))
    for _ in range(3):
        at = go(theirs, optax, at)
    expected, got = at, pickle.loads(pickle.dumps(at))
    for _ in range(4):  # to the middle of a cycle: at its end the mean has no meaning
        expected = go(theirs, optax, expected)
        got = jax.jit(functools.partial(go, ours, gradtx))(got)
    assert jax.tree.structure(got) == jax.tree.structure(at)
    # Two means of the same float32 numbers.
    rtol = 1e-6 if ours.definition.name == "multi_steps" else 1e-12
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(x, y, rtol=rtol)


def test_bfloat16_moments_stay_bfloat16() -> None:
    """As Optax's are where the parameters are; one step of each rounds to the same numbers."""
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), P)
    ours, theirs = gradtx.adamw(0.1), optax.adamw(0.1)
    _, state = theirs.update(params, theirs.init(params), params)
    updates, new = ours.update(params, state, params)
    expected, last = theirs.update(params, state, params)
    assert jax.tree.map(jnp.dtype, new) == jax.tree.map(jnp.dtype, last)
    assert new[0].nu["w"].dtype == jnp.bfloat16
    for x, y in zip(
        jax.tree.leaves((updates, new)), jax.tree.leaves((expected, last)), strict=True
    ):
        np.testing.assert_allclose(*(np.asarray(a, np.float32) for a in (x, y)), rtol=2**-6)


def test_what_optax_wraps_around_ours_goes_on_too() -> None:
    """Its mask marks what it leaves out by its own class, in updates and in state alike."""
    mask = {"w": True, "b": False}
    ours, theirs = optax.masked(gradtx.adam(0.1), mask), optax.masked(optax.adam(0.1), mask)
    state = theirs.init(P)
    got, new = jax.jit(ours.update)(P, state, P)
    expected, _ = theirs.update(P, state, P)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    np.testing.assert_allclose(got["w"], expected["w"], rtol=1e-5)


def test_fields_are_read_by_name() -> None:
    """Whatever order another library has them in."""

    class TraceLike(NamedTuple):
        nu: Any
        count: Any
        mu: Any

    TraceLike.__name__ = "ScaleByAdamState"
    ours = gradtx.scale_by_adam()
    _, own = ours.update(P, ours.init(P))
    expected, last = ours.update(P, own)
    updates, new = ours.update(P, TraceLike(own.nu, own.count, own.mu))
    assert type(new) is TraceLike
    for name in own._fields:
        jax.tree.map(np.testing.assert_array_equal, getattr(new, name), getattr(last, name))
    jax.tree.map(np.testing.assert_array_equal, updates, expected)
