"""Every transformation, optimizer and schedule against Optax's namesake in float64.

Tables in `optax_cases`, one module a family: a name, and the argument sets to try. Each is run for
50 steps on one tree; the parameters, the final state and the state's key paths must agree. Bias
corrections differ in the last digits only (``-expm1(t log b)`` here).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

from .optax_cases import Table, collect, essential
from .optax_cases.case import Args, build
from .replay import STEPS, assert_close, assert_trees_close

TRANSFORMATIONS, OPTIMIZERS = collect("TRANSFORMATIONS"), collect("OPTIMIZERS")
SCHEDULES = collect("SCHEDULES")


ESSENTIAL = essential.TRANSFORMATIONS | essential.OPTIMIZERS | SCHEDULES


def cases(table: Table) -> list[Any]:
    """More of the essential names, and of the first set of arguments."""
    return [
        pytest.param(
            name,
            case,
            id=f"{name}({case!r})" if len(repr(case)) < 80 else f"{name} {i}",
            marks=pytest.mark.one_in((4 if name in ESSENTIAL else 8) * (4 if i else 1)),
        )
        for name, argument_sets in table.items()
        for i, case in enumerate(argument_sets)
    ]


def start() -> Any:
    rng = np.random.default_rng(1)
    return {
        "scalar": np.float64(0.7),
        "vectors": [rng.standard_normal(3), rng.standard_normal(5)],
        "matrix": rng.standard_normal((3, 4)),
        "kernel": {"conv": rng.standard_normal((2, 2, 3, 2))},
    }


def pushes() -> Any:
    """What is added to half of the parameters to make the gradient of each step."""
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda p: rng.standard_normal((STEPS, *np.shape(p))), start())


def one_step(
    lib: Any, extra: Any, tx: Any, rate: Any, params: Any, state: Any, push: Any
) -> tuple[Any, Any]:
    """A transformation's update is scaled by ``rate``, so that it descends; an optimizer's by 1."""
    grads = jax.tree.map(lambda p, n: 0.5 * p + n, params, push)
    given = {} if extra is None else extra(params, grads)
    updates, state = tx.update(grads, state, params, **given)
    return lib.apply_updates(params, jax.tree.map(lambda u: rate * u, updates)), state


# Ours compiled, once for all values of the hyperparameters; Optax's not: what it asks for, exactly.
our_step = jax.jit(partial(one_step, gradtx), static_argnums=0)
their_step = partial(one_step, optax)


def train(step: Any, tx: Any, case: Args, rate: float, dtype: Any = np.float64) -> tuple[Any, Any]:
    """The parameters after each step, and the last state."""
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), start())
    state, path = tx.init(params), []
    leaves, tree = jax.tree.flatten(jax.tree.map(lambda x: x.astype(dtype), pushes()))
    for push in list(zip(*leaves, strict=True))[: case.steps]:
        params, state = step(case.extra, tx, rate, params, state, jax.tree.unflatten(tree, push))
        path.append(params)
    return jax.tree.map(lambda *steps: np.stack(steps), *path), state


def key_paths(tree: Any) -> list[str]:
    """With dtypes and shapes: what a checkpoint is matched by."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [
        f"{jax.tree_util.keystr(path)}: {jnp.result_type(leaf)}{list(jnp.shape(leaf))}"
        for path, leaf in leaves
    ]


@pytest.mark.parametrize(("name", "case"), cases(TRANSFORMATIONS | OPTIMIZERS))
def test_equals_optax(name: str, case: Args) -> None:
    ours, theirs = build(gradtx, name, case), build(optax, name, case)
    rate = -0.1 if name in TRANSFORMATIONS else 1.0
    our_path, our_state = train(our_step, ours, case, rate)
    their_path, their_state = train(their_step, theirs, case, rate)
    # Where an accumulator is asked to be float32, Optax also multiplies it in float32.
    rtol = 1e-4 if "float32" in repr(case) else case.rtol
    assert_trees_close(our_path, their_path, rtol, what="params")
    if case.states:
        assert_trees_close(our_state, their_state, rtol, what="state")
        assert key_paths(our_state) == key_paths(their_state)
        assert key_paths(ours.init(start())) == key_paths(theirs.init(start()))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.one_in(4 if name in ESSENTIAL else 16))
        for name in (*TRANSFORMATIONS, *OPTIMIZERS)
    ],
)
def test_equals_optax_in_float32(name: str) -> None:
    """Compiled, in float32, at the first set of arguments."""
    case = (TRANSFORMATIONS | OPTIMIZERS)[name][0]
    rate = -0.1 if name in TRANSFORMATIONS else 1.0
    with jax.enable_x64(False):
        ours, _ = train(our_step, build(gradtx, name, case), case, np.float32(rate), np.float32)
    theirs, _ = train(their_step, build(optax, name, case), case, rate)
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(ours)]
    for path, got, expected in zip(paths, *map(jax.tree.leaves, (ours, theirs)), strict=True):
        assert got.dtype == np.float32
        atol = case.narrow_rtol * np.max(np.abs(expected))
        np.testing.assert_allclose(got, expected, rtol=0, atol=atol, err_msg=path)


@pytest.mark.parametrize(("name", "case"), cases(SCHEDULES))
def test_schedule_equals_optax(name: str, case: Args) -> None:
    """At Python ints, and at traced int32 steps as an optimizer asks."""
    ours, theirs = build(gradtx, name, case), build(optax, name, case)
    expected = np.stack([theirs(jnp.float64(t)) for t in range(STEPS + 5)])
    traced = jax.jit(jax.vmap(lambda t: jnp.asarray(ours(t))))
    assert_close(np.stack([ours(t) for t in range(STEPS + 5)]), expected, what="Python int")
    assert_close(traced(jnp.arange(STEPS + 5, dtype=jnp.int32)), expected, what="traced int32")
