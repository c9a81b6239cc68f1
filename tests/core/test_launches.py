"""What is compiled for a GPU only, tried here: the numbers are those of each leaf alone."""

from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import gradtx
from gradtx.core.finite import all_finite

pytestmark = pytest.mark.usefixtures("compiled_afresh")

SHAPES = [(3, 4), (3, 4), (5,), (), (3, 4), (5,)]


def on_gpu(*operands: Any, default: Any, cuda: Any = None, **others: Any) -> Any:
    """What `lax.platform_dependent` runs there."""
    return (cuda or default)(*operands)


def grads(bad: float = 1.0) -> list[jax.Array]:
    random = np.random.default_rng(0)
    return [jnp.asarray(bad * random.standard_normal(shape), np.float32) for shape in SHAPES]


def stepped(learning_rate: Any) -> list[jax.Array]:
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(learning_rate))
    params = grads()
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update(params, state, params)
        params = gradtx.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("how", [jax.jit, lambda f: jax.jit(jax.jacrev(f))])
def test_steps_and_their_derivatives_are_the_same(how: Any) -> None:
    expected = how(stepped)(0.1)
    jax.clear_caches()
    with mock.patch.object(lax, "platform_dependent", on_gpu):
        got = how(stepped)(0.1)
    for x, y in zip(got, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("where", range(len(SHAPES)))
def test_no_leaf_is_left_out(where: int) -> None:
    with mock.patch.object(lax, "platform_dependent", on_gpu):
        assert jax.jit(all_finite)(grads())
        bad = grads()
        bad[where] = bad[where] * np.inf
        assert not jax.jit(all_finite)(bad)
        large = [x * (1e3 if i == where else 0) for i, x in enumerate(grads())]
        norm = np.linalg.norm(np.ravel(large[where]))
        np.testing.assert_allclose(jax.jit(gradtx.global_norm)(large), norm, rtol=1e-6)
