"""`migrate` from a transformation to itself, and from Optax's namesake, keeps everything."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from gradtx.core.dtypes import is_random_key
from gradtx.interop.links import NAMELESS
from gradtx.precision.formats import is_stored

from .registry import Example, for_every
from .running import assert_same, params


def filled(state: Any) -> Any:
    """A state in which every number differs from the others and from a first state's; whole
    numbers, among which are counts, are 3."""
    rng = np.random.default_rng(0)

    def fill(x: Any) -> Any:
        if is_random_key(x):
            return jax.random.key(3, impl=jax.random.key_impl(x))
        if jnp.issubdtype(x.dtype, jnp.inexact):
            return jnp.asarray(rng.uniform(1, 2, x.shape), x.dtype)
        return jnp.full(x.shape, 3, x.dtype)

    return jax.tree.map(fill, state)


def first_state(tx: Any) -> Any:
    with jax.disable_jit():
        return tx.init(params())


def assert_all_kept(state: Any, report: Any, expected: Any) -> None:
    assert (report.fresh, report.dropped) == ((), ()), f"\n{report}"
    assert len(report.kept) == len(jax.tree.leaves(state, is_leaf=is_stored))
    assert_same(state, expected)


@for_every()
def test_to_itself(example: Example) -> None:
    tx = example.make()
    state = filled(first_state(tx))
    assert_all_kept(*gradtx.migrate(state, to=tx, params=params(), from_=tx), state)


@for_every(where=lambda e: not (e.foreign or e.name.startswith("own ")))
def test_to_itself_from_the_names_in_the_state_alone(example: Example) -> None:
    tx = example.make()
    state = filled(first_state(tx))
    nodes = jax.tree.leaves(state, is_leaf=lambda x: type(x).__name__ in NAMELESS)
    if not any(type(x).__name__ in NAMELESS for x in nodes):
        assert_all_kept(*gradtx.migrate(state, to=tx, params=params()), state)


@for_every(where=lambda e: e.twin)
def test_from_the_namesake(example: Example) -> None:
    """In Optax's classes; by `test_optax` the leaves are the same, in the same order."""
    tx, theirs = example.make(), filled(first_state(example.twin()))
    expected = jax.tree.unflatten(jax.tree.structure(first_state(tx)), jax.tree.leaves(theirs))
    assert_all_kept(*gradtx.migrate(theirs, to=tx, params=params()), expected)
