"""JAX's strict modes, 64-bit types beside float32, and runs of any length.

What traces strictly is looked at in `test_avals.py`.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .registry import Example, for_every
from .running import (
    assert_finite,
    compiled_run,
    eager_run,
    first,
    grads,
    params,
    plain_run,
    spec,
)

# -- debugging modes -----------------------------------------------------------------------------


@for_every(slow=True)
def test_no_nan_or_infinity_is_made_on_the_way(example: Example) -> None:
    """At zero gradients and at others, from `init` on, call by call and compiled."""
    gradients = jax.tree.map(lambda g: g[:2], grads(of=example))
    with jax.debug_nans(True), jax.debug_infs(True):
        for given in (gradients, jax.tree.map(jnp.zeros_like, gradients)):
            eager_run(example.make(), given, params(), example.extra)
            compiled_run(example.make(), given, params(), example.extra)


# -- float32 under x64 ---------------------------------------------------------------------------

# `opaque` keeps a scalar in an array of four, and on GPU the scalars of a rule are one array.
SCALAR = 5


@for_every()
def test_float32_has_no_float64_array_beside_it(example: Example, x64: None) -> None:
    """Scalars that belong to the step may be wider: schedules, hyperparameters, biases."""
    tx, parameters = example.make(), spec(params(np.float32))
    state = jax.eval_shape(tx.init, parameters)
    wide = [
        jax.tree_util.keystr(p)
        for p, x in jax.tree_util.tree_leaves_with_path(state)
        if x.ndim and is_float64(x)
    ]
    assert not wide, f"the state is float64 at {wide}"

    def update(gradient: Any, state: Any, parameters: Any) -> Any:
        return tx.update(gradient, state, parameters, **example.extra)

    gradient = spec(first(grads(np.float32, example)))
    for made in (
        jax.make_jaxpr(tx.init)(parameters),
        jax.make_jaxpr(update)(gradient, state, parameters),
    ):
        equations = [
            equation
            for equation in equations_of(made.jaxpr)
            if any(is_float64(x.aval) and x.aval.size > SCALAR for x in equation.outvars)
        ]
        assert not equations, equations[0]


def is_float64(aval: Any) -> bool:
    return getattr(aval, "dtype", None) in (np.float64, np.complex128)


def equations_of(jaxpr: Any) -> Iterator[Any]:
    """The equations of a program and of the programs inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
            if _is_program(inner):
                yield from equations_of(getattr(inner, "jaxpr", inner))


def _is_program(x: Any) -> bool:
    return hasattr(x, "eqns") or hasattr(x, "jaxpr")


# -- after long runs -----------------------------------------------------------------------------


@for_every()
def test_counters_stay_at_the_largest_integer(example: Example) -> None:
    """One that wrapped round would be negative: of the square root, the logarithm, the power of
    such a step NaN is made."""
    tx, top = example.make(), np.iinfo(np.int32).max
    state = jax.tree.map(
        lambda x: jnp.full_like(x, top) if x.dtype == np.int32 else x, tx.init(params())
    )
    with jax.disable_jit():
        for i in range(2):
            gradient = jax.tree.map(lambda g, i=i: g[i], grads(of=example))
            updates, state = tx.update(gradient, state, params(), **example.extra)
            assert_finite(updates)
            for path, x in jax.tree_util.tree_leaves_with_path(state):
                if x.dtype == np.int32:
                    assert np.all(np.asarray(x) >= 0), f"{jax.tree_util.keystr(path)} is {x}"


# The curvature that Hutchinson's estimate finds is no step: taken as one it leads uphill for ever.
@for_every(where=lambda e: not e.name.startswith("hutchinson"), slow=True)
def test_the_first_gradients_after_zeros_move_as_the_first_ones_do(example: Example) -> None:
    """What divides by the size of the gradients before must not take zeros for their size."""
    gradients = grads(of=example)
    zeros = jax.tree.map(lambda g: jnp.zeros_like(g[:2]), gradients)
    later = jax.tree.map(lambda *g: jnp.concatenate(g), zeros, gradients)
    sizes = []
    for given in (gradients, later):
        made = plain_run(example.make(), given, params(), example.extra)
        sizes.append(max(float(np.max(np.abs(x))) for x in jax.tree.leaves(made.updates)))
    assert sizes[1] <= 10 * sizes[0]
