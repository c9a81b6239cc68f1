"""What the numbers do: zeros, rounding, derivatives, NaN."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx

from .registry import Example, Number, for_every, numbers
from .running import (
    STEPS,
    as_dtype,
    assert_close,
    assert_finite,
    assert_same,
    compiled_run,
    eager_run,
    given,
    grads,
    mixed,
    params,
    plain_run,
    run,
)

# -- zero gradients ------------------------------------------------------------------------------


@for_every()
def test_zero_gradients_give_finite_updates(example: Example) -> None:
    """In every dtype, at the first step and after it; and params stay finite."""
    zeros = jax.tree.map(lambda g: jnp.zeros_like(g[:2]), mixed(grads(of=example)))
    assert_finite(compiled_run(example.make(), zeros, mixed(params()), example.extra))
    if example.couples:  # a norm over leaves of one dtype is another computation
        for dtype in (jnp.float16, jnp.bfloat16):
            inputs = as_dtype(zeros, dtype), params(dtype), example.extra
            assert_finite(plain_run(example.make(), *inputs))


@for_every(where=lambda e: not e.foreign, slow=True)
def test_gradients_through_updates_are_finite_at_zero(example: Example) -> None:
    """With respect to gradients, params and hyperparameters."""
    zeros = jax.tree.map(lambda g: jnp.zeros_like(g[:2]), grads(of=example))
    some = {**zeros, "b": grads(of=example)["b"][:2].at[..., 0].set(0.0)}

    def loss(tx: Any, gradients: Any, parameters: Any) -> Any:
        made = plain_run(tx, gradients, parameters, example.extra)
        return sum(jnp.sum(x * jnp.cos(x)) for x in jax.tree.leaves(made.updates))

    tx = jax.tree.map(lambda x: x if isinstance(x, int) else jnp.float32(x), example.make())
    for gradients in (some, zeros) if example.couples else (some,):
        with jax.disable_jit():
            slopes = jax.grad(loss, argnums=(0, 1, 2), allow_int=True)(tx, gradients, params())
        slopes = [x for x in jax.tree.leaves(slopes) if x.dtype != jax.dtypes.float0]
        assert_finite(slopes)


# -- one result, however it is computed ----------------------------------------------------------


@for_every(slow=True)
def test_jit_equals_eager(example: Example) -> None:
    inputs = mixed(grads(of=example)), mixed(params()), example.extra
    expected = plain_run(example.make(), *inputs)
    assert_same(compiled_run(example.make(), *inputs), expected, rounding(example))
    if example.name == "torch.muon":  # which takes nothing but matrices
        return
    # Leaves of one shape, because call by call each shape is compiled alone.
    gradients = jax.tree.map(lambda g: g.reshape(STEPS, -1)[:, :1], grads())
    inputs = (
        given(example, gradients, axis=1),
        jax.tree.map(lambda p: p.reshape(-1)[:1], params()),
        example.extra,
    )
    expected = plain_run(example.make(), *inputs)
    assert_same(eager_run(example.make(), *inputs), expected, rounding(example))


def rounding(example: Example) -> float:
    return 1e-2 if example.narrow else 1e-5


@for_every(where=lambda e: e.rates)
def test_x64_is_precise(example: Example, x64: None) -> None:
    """Compiled and by hand agree as float64 does: nothing was rounded to float32 on the way."""
    inputs = grads(np.float64, example), params(np.float64), example.extra
    thirds = *jax.tree.map(lambda x: x / 3, inputs[:2]), example.extra  # not exact in float32
    expected = plain_run(example.make(), *thirds)
    assert_same(compiled_run(example.make(), *thirds), expected, 1e-12)


@for_every(where=lambda e: numbers(e.make()), slow=True)
def test_constant_schedule_equals_the_number(example: Example, x64: None) -> None:
    """For every hyperparameter, all at once and each alone, also as a plain function."""
    tx, gradients = example.make(), jax.tree.map(lambda g: g[:3], grads(np.float64, example))
    inputs = gradients, params(np.float64), example.extra
    expected = plain_run(tx, *inputs)
    every = tx
    for number in numbers(tx):
        got = plain_run(number.in_(tx, lambda step, x=number.value: x), *inputs)
        assert_same((got.updates, got.params), (expected.updates, expected.params), 1e-11)
        every = number.in_(every, gradtx.constant_schedule(number.value))
        flat = gradtx.linear_schedule(number.value, number.value, 3)  # an array at every step
        got = plain_run(number.in_(tx, flat), *inputs)
        assert_same((got.updates, got.params), (expected.updates, expected.params), 1e-11)
    got = plain_run(every, *inputs)
    assert_same((got.updates, got.params), (expected.updates, expected.params), 1e-11)


def moving(example: Example) -> list[Number]:
    """The numbers that change the update of their own step."""
    still = (*example.idle, *example.unmoved)
    found = [n for n in numbers(example.make()) if n.argument not in still]
    return [n for n in found if not n.argument.startswith("initial_")]


@for_every(where=moving)
def test_schedule_is_evaluated_at_the_number_of_updates_before(example: Example) -> None:
    """A schedule that changes at step 2 leaves the updates of steps 0 and 1 as they are."""
    inputs, tx = (grads(of=example), params(), example.extra), example.make()
    number = moving(example)[0]
    changes = lambda step: jnp.where(step < 2, number.value, 0.25)  # noqa: E731
    got, expected = plain_run(number.in_(tx, changes), *inputs), plain_run(tx, *inputs)
    for path, x in jax.tree_util.tree_leaves_with_path(got.updates):
        y = dict(jax.tree_util.tree_leaves_with_path(expected.updates))[path]
        assert_close(x[:2], y[:2], 1e-2 if example.narrow else 1e-4, jax.tree_util.keystr(path))
    pairs = list(zip(jax.tree.leaves(got.updates), jax.tree.leaves(expected.updates), strict=True))
    assert any(np.any(np.abs(x[2] - y[2]) > 1e-3 * np.abs(y[2])) for x, y in pairs)


@for_every(where=lambda e: numbers(e.make()))
def test_numpy_numbers_are_python_numbers(example: Example) -> None:
    tx = example.make()
    for convert in (np.float32, np.float64, lambda x: np.asarray(x, np.float32)):
        for number in numbers(tx):
            x = convert(number.value)
            held = number.in_(tx, x)
            assert held == number.in_(tx, x.item())
            assert hash(held) == hash(number.in_(tx, x.item()))


@for_every(where=lambda e: numbers(e.make()))
def test_arrays_are_numbers(example: Example) -> None:
    """Equal dtypes, and values to rounding, for params in float32 and in bfloat16."""
    tx = example.make()
    for dtype in (jnp.float32, jnp.bfloat16):
        held, plain = tx, tx
        for number in numbers(tx):
            x = jnp.asarray(number.value, dtype)
            x = jnp.asarray(0.5, dtype) if x == 1 > number.value else x  # 0.999 in bfloat16
            held, plain = number.in_(held, x), number.in_(plain, float(x))
        gradients = jax.tree.map(lambda g: g[:2], grads(of=example))
        inputs = gradients, params(), example.extra
        rtol = 1e-2 if example.narrow else 1e-4
        assert_same(plain_run(held, *inputs), plain_run(plain, *inputs), rtol, str(dtype))
        inputs = as_dtype(gradients, jnp.bfloat16), params(jnp.bfloat16)
        got, expected = (
            jax.eval_shape(lambda g, p, tx=tx: run(tx, g, p, example.extra), *inputs)
            for tx in (held, plain)
        )
        assert got == expected


# -- narrow dtypes -------------------------------------------------------------------------------


@for_every(where=lambda e: not e.foreign)
def test_bfloat16_updates_are_the_rounded_float32_ones(example: Example) -> None:
    """Nothing is rounded before the update leaves: gradients and params here are exact in both."""
    tx = example.make()
    wide_params, narrow_params = params(), params(jnp.bfloat16)
    with jax.disable_jit():
        wide_state, narrow_state = tx.init(wide_params), tx.init(narrow_params)
        assert_same(narrow_state, wide_state)
        for i in range(STEPS):
            gradient = jax.tree.map(lambda g, i=i: g[i], grads(of=example))
            wide, wide_state = tx.update(gradient, wide_state, wide_params, **example.extra)
            narrow, narrow_state = tx.update(
                as_dtype(gradient, jnp.bfloat16), narrow_state, narrow_params, **example.extra
            )
            assert_same(narrow, as_dtype(wide, jnp.bfloat16))
            assert_same(narrow_state, wide_state)


@for_every(where=lambda e: not e.per_example)
def test_float16_does_not_overflow_under_a_norm(example: Example) -> None:
    """Squares of 300 are too large for float16, and a sum of a thousand still more so."""
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), example.make())
    large = {k: jnp.full_like(x, 300) for k, x in params(jnp.float16).items()}
    large["w"] = jnp.full((50, 20), 300, jnp.float16)
    parameters = gradtx.tree.ones_like(large)
    with jax.disable_jit():
        updates, state = tx.update(large, tx.init(parameters), parameters, **example.extra)
    assert_finite((updates, state))


def test_clipped_float16_gradients_have_the_norm_that_was_asked_for() -> None:
    gradient = {"w": jnp.full((50, 20), 300, jnp.float16), "b": jnp.full((3,), 300, jnp.float16)}
    tx = gradtx.clip_by_global_norm(1.0)
    clipped, _ = jax.jit(tx.update)(gradient, tx.init(gradient))
    squares = [np.sum(np.square(np.asarray(x, np.float64))) for x in clipped.values()]
    assert_close(np.sqrt(sum(squares)), 1.0, 1e-3)


# -- NaN -----------------------------------------------------------------------------------------


@for_every(where=lambda e: not e.couples)
def test_nan_in_one_leaf_stays_there(example: Example) -> None:
    """Where the rules of the leaves know nothing of each other."""
    gradients = grads(of=example)
    gradients["w"] = gradients["w"].at[1, 0, 0].set(np.nan)
    made = plain_run(example.make(), gradients, params(), example.extra)
    expected = plain_run(example.make(), grads(of=example), params(), example.extra)
    for name in ("b", "s"):
        assert_same(made.updates[name], expected.updates[name])
        assert_same(made.params[name], expected.params[name])


@for_every(where=lambda e: e.accumulates)
def test_nan_micro_batch_does_not_poison_accumulation(example: Example) -> None:
    """Micro-batches with NaN or infinity are left out: what follows is as if they were not."""
    tx, parameters = example.make(), params()
    micro = [jax.tree.map(lambda g, i=i: g[i], grads(of=example)) for i in range(4)]

    def updates_with(bad: float) -> Any:
        spoiled = micro[0] | {"b": micro[0]["b"].at[0].set(bad)}
        state, made = tx.init(parameters), []
        for gradient in (micro[0], spoiled, spoiled, micro[1], micro[2], micro[3]):
            updates, state = tx.update(gradient, state, parameters, **example.extra)
            made.append(updates)
        return made, state

    with jax.disable_jit():
        made, state = updates_with(np.nan)
        assert_finite((made, state))
        assert_same((made, state), updates_with(np.inf))
    for updates in (made[3], made[5]):
        assert all(np.all(np.asarray(x) != 0) for x in jax.tree.leaves(updates))
