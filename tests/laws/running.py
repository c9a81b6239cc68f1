"""The tree that the laws run on, and the ways to run a transformation over it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gradtx

STEPS = 4
SHAPES = {"w": (3, 2), "b": (2,), "s": ()}


def _coarse(x: np.ndarray) -> np.ndarray:
    """Numbers that bfloat16 and float16 hold exactly, so that one run can be another's oracle."""
    return np.asarray(np.ldexp(np.round(np.ldexp(x, 5)), -5))


_RNG = np.random.default_rng(0)
_PARAMS = {k: _coarse(_RNG.uniform(0.5, 2, shape)) for k, shape in SHAPES.items()}
_GRADS = {k: _coarse(_RNG.uniform(-2, 2, (STEPS, *shape))) for k, shape in SHAPES.items()}


def as_dtype(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def params(dtype: Any = np.float32) -> Any:
    """The parameters w, b and s: a matrix, a vector and a scalar."""
    return as_dtype(_PARAMS, dtype)


def grads(dtype: Any = np.float32, of: Any = None) -> Any:
    """Gradients for every step, with a leading axis of steps, as the example `of` takes them."""
    return given(of, as_dtype(_GRADS, dtype), axis=1)


def given(example: Any, gradients: Any, axis: int = 0) -> Any:
    """Gradients as the example takes them: as they are, or of single examples whose mean they are,
    along an axis before those of the parameter."""
    if example is None or not example.per_example:
        return gradients

    def spread(g: Any) -> Any:
        parts = (0.5 * g, g, 1.5 * g) if jnp.issubdtype(g.dtype, jnp.inexact) else (g, g, g)
        return jnp.stack(parts, axis)

    return jax.tree.map(spread, gradients)


def mixed(tree: Any) -> Any:
    """A tree with a dtype for each leaf, float16, bfloat16 and float32."""
    dtypes = {"w": jnp.float16, "b": jnp.bfloat16, "s": jnp.float32}
    return {name: as_dtype(leaf, dtypes[name]) for name, leaf in tree.items()}


def first(tree: Any) -> Any:
    """What belongs to the first step."""
    return jax.tree.map(lambda x: x[0], tree)


def spec(tree: Any, dtype: Any = None) -> Any:
    """Shapes and dtypes without numbers, for laws that only trace."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), dtype or x.dtype), tree)


class Run(NamedTuple):
    """What a run made: the updates of every step, and what was left at the end."""

    updates: Any
    params: Any
    state: Any


def run(tx: Any, gradients: Any, parameters: Any, extra: Any) -> Run:
    """`init`, then an update and its application for every gradient, as one program."""

    def step(carry: Any, gradient: Any) -> Any:
        parameters, state = carry
        updates, state = tx.update(gradient, state, parameters, **extra)
        return (gradtx.apply_updates(parameters, updates), state), updates

    carry = parameters, tx.init(parameters)
    (parameters, state), updates = jax.lax.scan(step, carry, gradients)
    return Run(updates, parameters, state)


def _step(tx: Any, gradient: Any, state: Any, parameters: Any, extra: Any) -> Any:
    updates, state = tx.update(gradient, state, parameters, **extra)
    return state, gradtx.apply_updates(parameters, updates), updates


# Both are shared by the laws, because compiling is what takes their time. To the run the
# hyperparameters are arrays; the step knows them while it is traced, and takes the buffers of the
# state and the params as in training.
traced_run = jax.jit(run)
compiled_step = jax.jit(_step, static_argnums=0, donate_argnums=(2, 3))


def in_steps(step: Any, tx: Any, gradients: Any, parameters: Any, extra: Any) -> Run:
    """The run as a loop over a step."""
    parameters = jax.tree.map(lambda p: p + 0, parameters)  # a step may take its buffers
    state, made = tx.init(parameters), []
    for i in range(len(jax.tree.leaves(gradients)[0])):
        gradient = jax.tree.map(lambda g, i=i: g[i], gradients)
        state, parameters, updates = step(tx, gradient, state, parameters, extra)
        made.append(updates)
    return Run(jax.tree.map(lambda *x: jnp.stack(x), *made), parameters, state)


def compiled_run(tx: Any, gradients: Any, parameters: Any, extra: Any) -> Run:
    """As in a training loop."""
    return in_steps(compiled_step, tx, gradients, parameters, extra)


def eager_run(tx: Any, gradients: Any, parameters: Any, extra: Any) -> Run:
    """Call by call, as at a prompt."""
    return in_steps(_step, tx, gradients, parameters, extra)


def plain_run(tx: Any, gradients: Any, parameters: Any, extra: Any) -> Run:
    """Operation by operation: nothing is compiled for one transformation alone."""
    with jax.disable_jit():
        return in_steps(_step, tx, gradients, parameters, extra)


def assert_finite(tree: Any, what: str = "") -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        wide = array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)
        assert np.all(np.isfinite(wide)), f"{what}{jax.tree_util.keystr(path)} is {leaf}"


def assert_same(
    got: Any, expected: Any, rtol: float = 0.0, what: str = "", terms: Any = None
) -> None:
    """Equal structures and dtypes; values to `rtol`, of the largest in their leaf.

    In a dtype that is narrower than `rtol` they may differ in their last bit. terms: a tree like
    them, of numbers that they are sums with, and whose rounding they have where they cancel.
    """
    assert jax.tree.structure(got) == jax.tree.structure(expected), (
        f"{what}: {jax.tree.structure(got)} instead of {jax.tree.structure(expected)}"
    )
    pairs = jax.tree_util.tree_leaves_with_path(got)
    beside = expected if terms is None else terms
    triples = zip(pairs, jax.tree.leaves(expected), jax.tree.leaves(beside), strict=True)
    for (path, mine), theirs, term in triples:
        where = f"{what}{jax.tree_util.keystr(path)}"
        assert mine.dtype == theirs.dtype, f"{where}: {mine.dtype} instead of {theirs.dtype}"
        if np.array_equal(mine, theirs):
            continue  # infinities among them
        bit = float(jnp.finfo(mine.dtype).eps) if jnp.issubdtype(mine.dtype, jnp.inexact) else 0
        assert_close(mine, theirs, max(rtol, bit) if rtol else 0.0, where, term)


def assert_close(got: Any, expected: Any, rtol: float, what: str = "", term: Any = 0) -> None:
    """Equal shapes, and values to `rtol` of the largest, or of the largest term; dtypes may
    differ."""
    wide = np.complex128 if np.iscomplexobj(got) or np.iscomplexobj(expected) else np.float64
    got, expected = (np.asarray(x).astype(wide) for x in (got, expected))
    assert got.shape == expected.shape, f"{what}: {got.shape} instead of {expected.shape}"
    assert np.all(np.isfinite(expected)), f"{what}: the expected values are not finite"
    largest = np.max(np.abs(np.asarray(term).astype(wide)), initial=0)
    allowed = rtol * np.max(np.abs(expected), initial=largest)
    error = np.max(np.abs(got - expected), initial=0)
    assert error <= allowed, f"{what}: off by {error:.3g}, allowed {allowed:.3g}"
