"""`gradtx.step` is `update` followed by `apply_updates`, for every transformation."""

from typing import Any

import jax

import gradtx

from .registry import Example, for_every
from .running import assert_same, compiled_run, grads, mixed, params


def run_by_step(example: Example, gradients: Any, parameters: Any) -> Any:
    tx = example.make()

    @jax.jit
    def step(gradient: Any, state: Any, parameters: Any) -> Any:
        return gradtx.step(tx, gradient, state, parameters, **example.extra)

    state = tx.init(parameters)
    for i in range(len(jax.tree.leaves(gradients)[0])):
        gradient = jax.tree.map(lambda g, i=i: g[i], gradients)
        parameters, state = step(gradient, state, parameters)
    return parameters, state


def that_counts(state: Any) -> list[Any]:
    """The leaves of a state, but for accumulators, which mean nothing between two cycles."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return [x for path, x in leaves if not any("acc_grads" in str(key) for key in path)]


@for_every(slow=True)
def test_a_step_is_an_update_that_is_applied(example: Example) -> None:
    for kind in (params(), mixed(params())):
        gradients = grads(of=example)
        whole = compiled_run(example.make(), gradients, kind, example.extra)
        parameters, state = run_by_step(example, gradients, kind)
        # Another program may contract other products and sums.
        assert_same(parameters, whole.params, rtol=1e-6, terms=kind)
        assert_same(that_counts(state), that_counts(whole.state), rtol=1e-6)
