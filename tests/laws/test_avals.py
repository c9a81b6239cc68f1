"""Shapes, dtypes, buffers: what a compiled training step relies on."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

import gradtx

from .registry import Example, ScheduleExample, for_every, for_every_schedule, numbers
from .running import SHAPES, compiled_run, compiled_step, first, grads, mixed, params, run, spec

PAIRS = [
    ("float32", "float32"),
    ("bfloat16", "float32"),
    ("float32", "bfloat16"),
    ("float16", "float16"),
]


def avals(tree: Any) -> Any:
    return jax.tree.map(lambda x: (x.shape, str(x.dtype), jnp.result_type(x), x.weak_type), tree)


@for_every()
def test_state_and_updates_keep_their_avals(example: Example) -> None:
    """Shape, dtype and weak type of the state never change; updates have the dtypes of params."""
    tx = example.make()
    for of_params, of_grads in PAIRS:
        parameters, gradient = spec(params(of_params)), spec(first(grads(of_grads, example)))
        state = jax.eval_shape(tx.init, parameters)
        for _ in range(2):
            updates, new = jax.eval_shape(
                lambda g, s, p: tx.update(g, s, p, **example.extra), gradient, state, parameters
            )
            assert avals(new) == avals(state)
            assert avals(updates) == avals(parameters)
            applied = jax.eval_shape(gradtx.apply_updates, parameters, updates)
            assert avals(applied) == avals(parameters)
            state = new


@for_every(where=lambda e: not e.needs_params)
def test_updates_without_params_have_the_dtypes_of_the_gradients(example: Example) -> None:
    tx, gradient = example.make(), spec(first(grads("bfloat16", example)))
    state = jax.eval_shape(tx.init, spec(params("float32")))
    updates, _ = jax.eval_shape(lambda g, s: tx.update(g, s, **example.extra), gradient, state)
    assert avals(updates) == avals(spec(first(grads("bfloat16"))))


@for_every()
def test_state_of_narrow_params_is_float32(example: Example) -> None:
    """Unless a narrower one was asked for, which must then be there."""
    state = jax.eval_shape(example.make().init, spec(params("bfloat16")))
    narrow = [
        x
        for x in jax.tree.leaves(state)
        if jnp.issubdtype(x.dtype, jnp.inexact) and jnp.finfo(x.dtype).bits < 32
    ]
    if not example.foreign:
        assert bool(narrow) == example.narrow


@for_every()
def test_one_trace_for_many_steps(example: Example) -> None:
    """Also where gradients and params have different dtypes."""
    tx = example.make()

    def step(gradient: Any, state: Any, parameters: Any) -> Any:
        updates, state = tx.update(gradient, state, parameters, **example.extra)
        return state, gradtx.apply_updates(parameters, updates)

    for of_params, of_grads in PAIRS:
        chex.clear_trace_counter()
        jitted = jax.jit(chex.assert_max_traces(step, n=1))
        parameters, gradient = spec(params(of_params)), spec(first(grads(of_grads, example)))
        state = jax.eval_shape(tx.init, parameters)
        for _ in range(3):
            state, parameters = jitted.eval_shape(gradient, state, parameters)


@for_every()
def test_one_compilation_for_many_steps(example: Example) -> None:
    before = compiled_step._cache_size()
    compiled_run(example.make(), mixed(grads(of=example)), mixed(params()), example.extra)
    assert compiled_step._cache_size() <= before + 1


@for_every()
def test_fresh_state_can_be_donated(example: Example) -> None:
    """No buffer is there twice, and none is one of the params."""
    tx, parameters = example.make(), mixed(params())
    state = tx.init(parameters)
    arrays = jax.tree.leaves((state, parameters))
    pointers = [x.unsafe_buffer_pointer() for x in arrays]
    assert len(set(pointers)) == len(pointers)
    compiled_step(tx, first(mixed(grads(of=example))), state, parameters, example.extra)
    taken = jax.tree.leaves(parameters) if example.unread else arrays
    assert all(x.is_deleted() for x in taken)


@for_every()
def test_init_can_be_evaluated_in_shapes_alone(example: Example) -> None:
    tx = example.make()
    abstract, concrete = jax.eval_shape(tx.init, spec(params())), tx.init(params())
    assert jax.tree.structure(abstract) == jax.tree.structure(concrete)
    assert avals(abstract) == avals(concrete)


# -- strict promotion ----------------------------------------------------------------------------


def trace_strictly(example: Example, tx: Any) -> None:
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for of_params, of_grads in PAIRS:
            inputs = spec(grads(of_grads, example)), spec(params(of_params)), example.extra
            jax.eval_shape(lambda g, p, e: run(tx, g, p, e), *inputs)


@for_every(where=lambda e: not e.foreign)
def test_strict_promotion_with_python_numbers(example: Example) -> None:
    trace_strictly(example, example.make())


@for_every(where=lambda e: not e.foreign)
def test_strict_promotion_with_array_hyperparameters(example: Example) -> None:
    dtypes = {int: jnp.int32, float: jnp.float32}
    tx = jax.tree.map(lambda x: jnp.asarray(x, dtypes[type(x)]), example.make())
    trace_strictly(example, tx)


@for_every(where=lambda e: not e.foreign and numbers(e.make()))
def test_strict_promotion_with_schedules(example: Example) -> None:
    tx = example.make()
    for number in numbers(tx):
        falling = gradtx.linear_schedule(number.value, 0.5 * number.value, 5)
        tx = number.in_(tx, falling)
    trace_strictly(example, tx)


@for_every_schedule()
def test_strict_promotion_in_schedules(example: ScheduleExample) -> None:
    schedule = example.make()
    arrays = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), schedule)
    with jax.numpy_dtype_promotion("strict"):
        for step in (3, np.int64(3), jnp.int32(3), jnp.float32(3)):
            schedule(step)
            arrays(step)
        jax.eval_shape(lambda s, t: s(t), arrays, jnp.int32(3))


# -- 64-bit types --------------------------------------------------------------------------------


@for_every()
def test_x64_stays_x64_and_float32_stays_float32(example: Example, x64: None) -> None:
    tx = example.make()
    for dtype in (np.float64, np.float32):
        made = jax.eval_shape(
            lambda g, p, e: run(tx, g, p, e),
            spec(grads(dtype, example)),
            spec(params(dtype)),
            example.extra,
        )
        shaped = [x for x in jax.tree.leaves(made.state) if x.shape in SHAPES.values() and x.shape]
        floating = [x for x in shaped if jnp.issubdtype(x.dtype, jnp.inexact)]
        if not (example.narrow or example.float32):
            assert {x.dtype for x in floating} <= {np.dtype(dtype)}
        assert {x.dtype for x in jax.tree.leaves((made.updates, made.params))} == {np.dtype(dtype)}
