"""Decay that leaves the learning rate out, and clipping by the norm of each array, in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

RNG = np.random.default_rng(0)
# Of everything whose decay is decoupled from the gradients, how it is made.
DECOUPLED: dict[str, Any] = {
    "adamw": gradtx.adamw,
    "nadamw": gradtx.nadamw,
    "adamaxw": gradtx.adamaxw,
    "acprop": gradtx.acprop,
    "ademamix": gradtx.ademamix,
    "simplified_ademamix": gradtx.simplified_ademamix,
    "adan": gradtx.adan,
    "galore": lambda rate, **options: gradtx.galore(rate, 2, **options),
    "lion": gradtx.lion,
    "muon": lambda rate, weight_decay, **options: gradtx.muon(
        rate, weight_decay=weight_decay, adam_weight_decay=weight_decay, **options
    ),
    "sophia": gradtx.sophia,
}
PARAMS = {"w": RNG.normal(size=(3, 2)), "b": RNG.normal(size=2)}
GRADS = [jax.tree.map(lambda p: RNG.normal(size=p.shape), PARAMS) for _ in range(4)]


def updates_of(tx: Any) -> list[Any]:
    """The updates of some steps, always at the same parameters."""
    params = jax.tree.map(jnp.asarray, PARAMS)
    extra = {"obj_fn": lambda p: sum(jnp.sum(x**2) for x in jax.tree.leaves(p))}
    step = jax.jit(lambda g, state: tx.update(g, state, params, **extra))
    state, seen = tx.init(params), []
    for grads in GRADS:
        updates, state = step(grads, state)
        seen.append(updates)
    return seen


@pytest.mark.parametrize("name", DECOUPLED)
def test_the_decay_leaves_the_rate_out(name: str, x64: None) -> None:
    make = DECOUPLED[name]
    rates, decays = [0.1, 0.05, 0.02, 0.0], [1e-2, 2e-2, 0.0, 3e-2]
    rate = gradtx.piecewise_constant_schedule(0.1, {1: 0.5, 2: 0.4, 3: 0.0})
    decay = lambda step: jnp.asarray(decays)[step]  # noqa: E731
    none = updates_of(make(rate, weight_decay=0.0))
    for independent in (False, True):
        some = updates_of(make(rate, weight_decay=decay, independent_decay=independent))
        for i in range(4):
            factor = decays[i] * (1 if independent else rates[i])
            expected = jax.tree.map(lambda u, p, f=factor: np.asarray(u) - f * p, none[i], PARAMS)
            jax.tree.map(
                lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-14),
                some[i],
                expected,
            )


def test_schedule_free_decays_z_without_the_rate(x64: None) -> None:
    param, rate, decay = np.array([2.0, -1.0]), 0.1, 0.02

    def z(**options: Any) -> Any:
        tx = gradtx.schedule_free_adamw(rate, **options)
        params = jnp.asarray(param)
        return gradtx.step(tx, jnp.ones(2), tx.init(params), params)[1].z

    moved = z(weight_decay=decay, independent_decay=True) - z()
    np.testing.assert_allclose(moved, -decay * param, rtol=1e-10)


def test_the_mask_says_what_decays_independently() -> None:
    tx = gradtx.adamw(0.0, weight_decay=0.5, mask="w", independent_decay=True)
    params = {"w": jnp.ones(2), "b": jnp.ones(2)}
    updates, _ = tx.update(params, tx.init(params), params)
    assert updates["w"].tolist() == [-0.5, -0.5]
    assert updates["b"].tolist() == [0, 0]


@pytest.mark.parametrize("max_norm", [0.0, 0.5, 2.0])
def test_each_array_is_clipped_by_its_own_norm(max_norm: float, x64: None) -> None:
    sizes = {"small": 0.01, "one": 1.0, "large": 1e3}
    grads = {name: size * RNG.normal(size=(4, 3)) for name, size in sizes.items()}
    grads["zero"] = np.zeros((4, 3))
    tx = gradtx.clip_by_norm(max_norm)
    updates, _ = tx.update(grads, tx.init(grads))
    for name, g in grads.items():
        norm = np.sqrt(np.sum(g**2))
        expected = g * (max_norm / norm if norm > max_norm else 1.0)
        np.testing.assert_allclose(updates[name], expected, rtol=1e-13)


def test_norms_of_narrow_arrays_neither_overflow_nor_saturate() -> None:
    for dtype, size in ((jnp.float16, 300.0), (jnp.bfloat16, 1e30)):
        grads = jnp.full(10_000, size, dtype)
        tx = gradtx.clip_by_norm(1.0)
        updates, _ = tx.update(grads, tx.init(grads))
        assert updates.dtype == dtype
        np.testing.assert_allclose(np.asarray(updates, np.float64), 0.01, rtol=4e-3)


def test_a_nan_spoils_its_own_array_only() -> None:
    grads = {"a": jnp.array([jnp.nan, 1.0]), "b": jnp.array([3.0, 4.0])}
    tx = gradtx.clip_by_norm(1.0)
    updates, _ = tx.update(grads, tx.init(grads))
    assert np.isnan(updates["a"]).all()
    np.testing.assert_allclose(updates["b"], [0.6, 0.8], rtol=1e-6)
