"""States of tree rules: fields like the params, and counts from one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.core.absent import drop_absent, restore_absent
from gradtx.core.hyperparameters import Real
from gradtx.core.state import Count, CountFromOne, LikeParams


class MemoryState(NamedTuple):
    total: LikeParams
    steps: CountFromOne


@gradtx.per_tree
def remember(rate: Real = 1.0, dtype: Any = None) -> Any:
    """total <- total + g, u = rate total"""

    def init(params: Any) -> MemoryState:
        zeros = jax.tree.map(lambda p: jnp.zeros_like(p, dtype=dtype), params)
        return MemoryState(zeros, None)

    def update(updates: Any, state: MemoryState) -> Any:
        assert all(x.dtype == np.float32 for x in jax.tree.leaves(state.total))
        total = jax.tree.map(jnp.add, state.total, updates)  # of one structure
        return gradtx.tree.scale(rate, total), MemoryState(total, state.steps)

    return gradtx.Rule(init, update)


def test_an_absent_leaf_is_not_seen_and_stays() -> None:
    tx = remember()
    params = {"w": jnp.ones(2), "b": {"c": jnp.ones(3)}}
    _, state = tx.update(params, tx.init(params))
    updates, state = tx.update({"w": jnp.ones(2), "b": {"c": None}}, state)
    assert updates["b"] == {"c": None}
    assert state.total["w"].tolist() == [2, 2]
    assert state.total["b"]["c"].tolist() == [1, 1, 1]


def test_a_masked_leaf_is_not_seen() -> None:
    tx = gradtx.masked(remember(), "w")
    params = {"w": jnp.ones(2), "b": jnp.ones(3)}
    updates, state = tx.update(params, tx.init(params))
    assert updates["b"].tolist() == [1, 1, 1]
    assert len(jax.tree.leaves(state.inner_state.total)) == 1


def test_a_narrow_field_is_seen_wide_and_stored_narrow() -> None:
    tx, params = remember(dtype="bfloat16"), jnp.ones(2)
    state = tx.init(params)
    for _ in range(2):
        _, state = tx.update(params, state)
        assert state.total.dtype == jnp.bfloat16


def test_counts_from_one_begin_there_and_schedules_at_zero() -> None:
    tx, params = remember(lambda t: jnp.asarray(t, jnp.float32)), jnp.ones(())
    state, made = tx.init(params), []
    for i in range(3):
        assert int(state.steps) == i + 1
        assert state.steps.dtype == np.int32
        updates, state = tx.update(params, state)
        made.append(float(updates))
    assert made == [0, 2, 6]


def test_a_field_of_another_structure_is_named() -> None:
    tx = remember()
    state = tx.init({"w": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"remember: the state's total .*extra is in the updates"):
        tx.update({"w": jnp.ones(2), "extra": jnp.ones(())}, state)


def test_given_and_kept() -> None:
    updates = {"a": None, "b": 1.0}
    assert drop_absent(updates, {"a": [1, 2], "b": 3}) == {"a": None, "b": 3}
    assert drop_absent(updates, None) is None
    assert restore_absent(updates, {"a": [1, 2], "b": 3}, {"a": None, "b": 4}) == {
        "a": [1, 2],
        "b": 4,
    }


def test_a_plain_number_may_be_set_in_the_state_of_a_search() -> None:
    tx = gradtx.scale_by_backtracking_linesearch(max_backtracking_steps=5)
    params = jnp.ones(2)
    state = gradtx.tree.set(tx.init(params), learning_rate=0.5)
    value, grad = jax.value_and_grad(lambda x: (x**2).sum())(params)
    _, state = tx.update(
        -grad, state, params, value=value, grad=grad, value_fn=lambda x: (x**2).sum()
    )
    assert state.learning_rate.dtype == jnp.float32


class TwoCountsState(NamedTuple):
    """Counts from one and from zero."""

    steps: CountFromOne
    again: Count
    total: LikeParams


def test_counts_stay_at_the_largest_integer() -> None:
    """Also one from one, and a second one that is not as far."""

    @gradtx.per_tree
    def counting() -> Any:
        def update(updates: Any, state: TwoCountsState) -> Any:
            return updates, state

        return gradtx.Rule(lambda params: TwoCountsState(None, None, params), update)

    tx, params, top = counting(), jnp.ones(2), 2**31 - 1
    for first, second in [(top - 2, 0), (top - 1, top - 1), (top, top), (3, top)]:
        state = TwoCountsState(jnp.int32(first), jnp.int32(second), params)
        for _ in range(3):
            _, state = jax.jit(tx.update)(params, state)
        assert int(state.steps) == min(first + 3, top)
        assert int(state.again) == min(second + min(3, top - first + 1), top)
