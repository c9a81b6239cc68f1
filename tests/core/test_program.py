"""The program that comes out: what is traced once, and the exact figures of what is compiled.

Bytes and counts are XLA's own, of the compiled program: they have no noise.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from benchmarks.hlo import count_texts

pytestmark = pytest.mark.usefixtures("compiled_afresh")

SIDE, LEAVES = 256, 20


def shapes(leaves: int = LEAVES, dtype: Any = jnp.float32) -> dict[str, Any]:
    return {f"w{i:02d}": jax.ShapeDtypeStruct((SIDE, SIDE), dtype) for i in range(leaves)}


def lower(tx: Any, leaves: int = LEAVES, dtype: Any = jnp.float32, library: Any = gradtx) -> Any:
    """A training step that donates params and state, lowered."""

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return library.apply_updates(params, updates), state

    params = shapes(leaves, dtype)
    state = jax.eval_shape(tx.init, params)
    return jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params)


class Figures(NamedTuple):
    bytes_accessed: float  # a parameter
    temporary: float  # bytes a parameter
    aliased: int  # bytes of arguments whose buffers the results take over


def figures(tx: Any, dtype: Any = jnp.float32, library: Any = gradtx) -> Figures:
    compiled = lower(tx, dtype=dtype, library=library).compile()
    memory, size = compiled.memory_analysis(), LEAVES * SIDE**2
    return Figures(
        compiled.cost_analysis()["bytes accessed"] / size,
        memory.temp_size_in_bytes / size,
        memory.alias_size_in_bytes,
    )


def nbytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def clipped_adamw(library: Any) -> Any:
    return library.chain(library.clip_by_global_norm(1.0), library.adamw(1e-3))


# -- traced once ---------------------------------------------------------------------------------


@pytest.fixture
def counting() -> Any:
    """A transformation, and the list of the shapes with which its update was called."""
    calls: list[Any] = []

    @gradtx.per_leaf
    def counted(factor: gradtx.Real = 2.0) -> Any:
        def update(grad: Any, state: Any) -> Any:
            calls.append((grad.shape, str(grad.dtype)))
            return factor * grad + state, state + grad

        return gradtx.Rule(gradtx.zeros_like, update)

    return counted, calls


def test_a_thousand_equal_leaves_are_traced_once(counting: Any) -> None:
    counted, calls = counting
    leaf = jax.ShapeDtypeStruct((3, 2), jnp.float32)
    params = [leaf] * 1000
    tx = gradtx.chain(counted(), gradtx.scale(-0.1))
    state = jax.eval_shape(tx.init, params)
    jax.jit(tx.update).trace(params, state, params)
    assert calls == [((3, 2), "float32")]


def test_each_shape_and_dtype_is_traced_once(counting: Any) -> None:
    counted, calls = counting
    params = {
        "a": [jnp.ones(2)] * 5,
        "b": [jnp.ones(3)] * 5,
        "c": [jnp.ones(2, jnp.bfloat16)] * 5,
        "d": [jnp.ones(3)] * 5,
    }
    jax.jit(counted().update).trace(params, counted().init(params), params)
    # The rule sees bfloat16 in float32; that is another trace, of the casts around it.
    assert calls == [((2,), "float32"), ((3,), "float32"), ((2,), "float32")]


@pytest.mark.parametrize("factor", [2.0, gradtx.linear_schedule(1.0, 0.0, 10)])
def test_eager_steps_are_traced_once(counting: Any, factor: Any) -> None:
    counted, calls = counting
    params = [jnp.ones(4)] * 10
    tx = counted(factor)
    state = tx.init(params)
    for _ in range(5):
        _, state = tx.update(params, state, params)
    assert len(calls) == 1
    counted(factor).update(params, state, params)  # an equal value made anew
    assert len(calls) == 1


def test_the_body_of_a_rule_is_lowered_once() -> None:
    texts = [lower(gradtx.adamw(1e-3), leaves).as_text() for leaves in (5, 20)]
    assert [text.count("stablehlo.sqrt") for text in texts] == [1, 1]


@pytest.mark.parametrize(
    ("build", "dtype"),
    [
        (lambda leaves: gradtx.muon(0.1), jnp.float32),
        (
            lambda leaves: gradtx.chain(gradtx.adamw(0.1), gradtx.stochastic_rounding()),
            jnp.bfloat16,
        ),
        (lambda leaves: gradtx.noisy_sgd(0.1), jnp.float32),
        (lambda leaves: gradtx.apply_if_finite(gradtx.adamw(0.1), 3), jnp.float32),
        (
            lambda leaves: gradtx.partition(
                {f"w{i:02d}": gradtx.adamw(0.1 / (i + 1)) for i in range(leaves)}
            ),
            jnp.float32,
        ),
    ],
    ids=["batches", "keys", "noise", "skipped steps", "groups"],
)
def test_loops_are_compiled_once_a_shape(build: Any, dtype: Any) -> None:
    """XLA compiles loops of one text once: it must find no number of a leaf's own in them."""
    few, many = (
        count_texts(lower(build(leaves), leaves, dtype).compile().as_text()) for leaves in (12, 24)
    )
    assert few == many > 0


def test_no_retrace_where_only_numbers_change() -> None:
    traces = []

    @jax.jit
    def step(tx: Any, params: Any, state: Any) -> Any:
        traces.append(tx)
        updates, state = tx.update(params, state, params)
        return gradtx.apply_updates(params, updates), state

    def optimizer(rate: Any, steps: int, norm: float) -> Any:
        schedule = gradtx.linear_schedule(rate, 0.0, steps)
        return gradtx.chain(
            gradtx.clip_by_global_norm(norm), gradtx.adamw(schedule, b1=rate, mask="w")
        )

    params = {"w": jnp.ones(3), "b": jnp.ones(2)}
    state = optimizer(0.1, 10, 1.0).init(params)
    for rate, steps, norm in [(0.1, 10, 1.0), (0.2, 20, 2.0), (0.5, 30, 1.5)]:
        params, state = step(optimizer(rate, steps, norm), params, state)
    assert len(traces) == 1


# -- scalars -------------------------------------------------------------------------------------


SCHEDULED = {
    "rate": gradtx.adamw(gradtx.warmup_cosine_decay_schedule(0.0, 1e-3, 10, 100)),
    "b1": gradtx.adamw(1e-3, b1=gradtx.cosine_decay_schedule(0.9, 100)),
    "weight decay": gradtx.adamw(1e-3, weight_decay=gradtx.cosine_decay_schedule(0.1, 100)),
}


@pytest.mark.parametrize(
    "tx",
    [gradtx.adamw(1e-3), gradtx.nadamw(1e-3), *SCHEDULED.values()],
    ids=["adamw", "nadamw", *SCHEDULED],
)
def test_scalars_of_the_step_are_computed_once_a_tree(tx: Any) -> None:
    def count(leaves: int) -> list[int]:
        text = lower(tx, leaves).compile().as_text()
        names = ("exponential-minus-one", "log", "log-plus-one", "power", "exponential")
        return [text.count(f" {name}(") for name in names]

    few, many = count(5), count(20)
    assert many == few
    assert 0 < sum(few) <= 4


@pytest.mark.parametrize("tx", SCHEDULED.values(), ids=SCHEDULED)
def test_schedules_are_computed_once_a_tree(tx: Any) -> None:
    # As lowered: XLA may copy what it finds cheap, a cosine for one, before each loop over a leaf.
    assert [lower(tx, leaves).as_text().count("stablehlo.sine") for leaves in (5, 20)] == [1, 1]


# -- bytes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tx", "bytes_accessed"),
    [
        # Floors: read p g, write p (12); with v read and written (20); with m and v (28). What
        # lies between is that XLA gives each result a loop of its own, on a CPU.
        (gradtx.sgd(0.1), 12.5),
        (gradtx.sgd(0.1, momentum=0.9), 24.5),
        (gradtx.adamw(1e-3), 40.5),
        (gradtx.adamw(gradtx.warmup_cosine_decay_schedule(0.0, 1e-3, 10, 100)), 40.5),
        (gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1)), 16.5),
        (clipped_adamw(gradtx), 46.0),
        (gradtx.maximize(gradtx.adamw(1e-3)), 40.5),
        (gradtx.lion(1e-4), 28.5),
        (gradtx.adam(1e-3, b1=0.5), 40.5),
        (gradtx.adabelief(1e-3), 44.5),
        (gradtx.cocob(), 84.5),
        # The inner step and, before it, g read twice and the mean read and written.
        (gradtx.accumulate(gradtx.adamw(1e-3), 8), 68.5),
    ],
    ids=[
        *("sgd", "momentum", "adamw", "scheduled adamw", "clipped sgd", "clipped adamw"),
        *("uphill", "lion", "adam with b1 = 0.5", "adabelief", "cocob", "accumulation"),
    ],
)
def test_figures_of_a_donated_step(tx: Any, bytes_accessed: float) -> None:
    got = figures(tx)
    assert got.bytes_accessed <= bytes_accessed
    assert got.temporary < 0.1
    state = jax.eval_shape(tx.init, shapes())
    assert got.aliased == nbytes(shapes()) + nbytes(state)


def test_clipping_moves_less_than_in_optax() -> None:
    optax = pytest.importorskip("optax")
    ours, theirs = figures(clipped_adamw(gradtx)), figures(clipped_adamw(optax), library=optax)
    assert ours.bytes_accessed < 0.8 * theirs.bytes_accessed
    assert ours.temporary < 0.1 < theirs.temporary


def test_figures_of_bfloat16_parameters() -> None:
    # Read p g (2 bytes each) and m v (4 each), write p m v: 22 in one loop.
    tx = gradtx.adamw(1e-3)
    got = figures(tx, jnp.bfloat16)
    assert got.temporary < 0.1
    assert got.bytes_accessed <= 32.5
    state = jax.eval_shape(tx.init, shapes(dtype=jnp.bfloat16))
    assert got.aliased == nbytes(shapes(dtype=jnp.bfloat16)) + nbytes(state)


# -- donation ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tx",
    [gradtx.adamw(1e-3), gradtx.amsgrad(1e-3), gradtx.sgd(0.1, 0.9), clipped_adamw(gradtx)],
    ids=lambda tx: tx.definition.name,
)
def test_a_fresh_state_can_be_donated(tx: Any) -> None:
    params = {"a": jnp.ones((8, 8)), "b": jnp.ones((8, 8))}
    state = tx.init(params)
    old = jax.tree.leaves((params, state))
    assert len({x.unsafe_buffer_pointer() for x in old}) == len(old)

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return gradtx.apply_updates(params, updates), state

    grads = jax.tree.map(lambda p: 2 * p, params)
    params, state = jax.jit(step, donate_argnums=(0, 1))(params, state, grads)
    assert all(x.is_deleted() for x in old)
    assert np.isfinite(params["a"]).all()


def test_a_rule_that_keeps_the_step_has_a_buffer_for_each_leaf() -> None:
    class Seen(NamedTuple):
        seen: Any

    @gradtx.per_leaf
    def keeps_the_step() -> Any:
        return gradtx.Rule(
            lambda param, step: Seen(step.count), lambda grad, state, step: (grad, Seen(step.count))
        )

    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    arrays = jax.tree.leaves(keeps_the_step().init(params))
    assert len({x.unsafe_buffer_pointer() for x in arrays}) == len(arrays) == 3
