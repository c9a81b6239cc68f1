"""`nu_dtype`: the second moment alone is kept in it, and everything else as without it."""

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.core.definition import Definition

PARAMS = {"w": jnp.linspace(0.5, 2, 24).reshape(4, 6), "b": jnp.ones(6)}
GRADS = jax.tree.map(jnp.sin, PARAMS)
# Second moments, by the names that they have.
FIELDS = {"nu", "nu_max"}
# NovoGrad's is one number for each array, NorMuon's one for each neuron; Muon alone has none, and
# Lion has none at all. Of the others the optimizer's own name stands for the transformation's too.
WITHOUT = {"scale_by_novograd", "normuon", "scale_by_muon", "scale_by_lion", "lion"}


def definitions() -> dict[str, Any]:
    """All that take mu_dtype."""
    made = {name: getattr(gradtx, name) for name in gradtx.__all__}
    return {
        name: thing
        for name, thing in made.items()
        if isinstance(thing, Definition) and "mu_dtype" in thing.signature.parameters
    }


WITH = sorted(definitions().keys() - WITHOUT)


def test_it_is_wherever_mu_dtype_and_a_second_moment_are() -> None:
    assert set(WITH) >= {"adam", "adamw", "amsgrad", "scale_by_sophia", "muon"}
    for name, definition in definitions().items():
        found = definition.signature.parameters.get("nu_dtype")
        assert (found is None) == (name in WITHOUT), name
        if found is not None:
            assert found.kind is inspect.Parameter.KEYWORD_ONLY, name
            assert found.default is None, name


@functools.cache
def state_after_a_step(name: str, **options: Any) -> Any:
    definition = definitions()[name]
    rate = {"learning_rate": 0.1} if "learning_rate" in definition.signature.parameters else {}
    tx = definition(**rate, **options)
    extra = {}
    if "sophia" in name:
        extra["obj_fn"] = lambda params: sum(jnp.sum(x**2) for x in jax.tree.leaves(params))
    state = tx.init(PARAMS)
    before = jax.tree.map(lambda x: (x.shape, x.dtype), state)
    updates, state = jax.jit(lambda g, s, p: tx.update(g, s, p, **extra))(GRADS, state, PARAMS)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == before
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(updates))
    return state


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", WITH)
def test_the_second_moment_alone_is_kept_in_it(name: str, dtype: str) -> None:
    plain = jax.tree_util.tree_leaves_with_path(state_after_a_step(name))
    asked = jax.tree_util.tree_leaves_with_path(state_after_a_step(name, nu_dtype=dtype))
    narrow = 0
    for (path, x), (same_path, y) in zip(plain, asked, strict=True):
        assert path == same_path
        fields = {key.name for key in path if hasattr(key, "name")}
        if fields & FIELDS:
            narrow += 1
            assert y.dtype == dtype, jax.tree_util.keystr(path)
            # One rounding of the number that float32 holds; float16 has none below 6e-8.
            np.testing.assert_allclose(y.astype(jnp.float32), x, rtol=2.0**-8, atol=6e-8)
        else:
            assert y.dtype == x.dtype, jax.tree_util.keystr(path)
    assert narrow >= 1
