"""Differentially private SGD against NumPy float64 written from the paper, and its noise."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

from .replay import assert_close, assert_trees_close

STEPS, BATCH = 12, 5
RNG = np.random.default_rng(4)
SHAPES: dict[str, tuple[int, ...]] = {"matrix": (3, 4), "vector": (5,), "scalar": ()}
PARAMS = {k: RNG.standard_normal(s) for k, s in SHAPES.items()}
# Of very different sizes, so that some are clipped and some are not.
SIZES = np.exp(RNG.uniform(-3, 2, (STEPS, BATCH)))
GRADS = {
    k: SIZES.reshape(STEPS, BATCH, *[1] * len(s)) * RNG.standard_normal((STEPS, BATCH, *s))
    for k, s in SHAPES.items()
}


def private_mean(grads: Any, clip: float) -> Any:
    """Algorithm 1 of Abadi et al., 2016, without its noise: one example after the other."""
    total = {k: np.zeros(g.shape[1:]) for k, g in grads.items()}
    for i in range(BATCH):
        norm = np.sqrt(sum(np.sum(g[i] ** 2) for g in grads.values()))
        for k, g in grads.items():
            total[k] += g[i] / max(1.0, norm / clip)
    return {k: x / BATCH for k, x in total.items()}


@functools.cache
def trained(lib: Any, momentum: float | None, nesterov: bool) -> Any:
    """The parameters after every step, as a function of the limit, so that it is compiled once."""
    dpsgd = gradtx.dpsgd if lib is gradtx else optax.contrib.dpsgd

    def step(tx: Any, carry: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, carry[1], carry[0])
        params = lib.apply_updates(carry[0], updates)
        return (params, state), params

    @jax.jit
    def run(clip: Any, params: Any, grads: Any) -> Any:
        tx = dpsgd(0.1, clip, 0.0, 3, momentum, nesterov)
        return jax.lax.scan(functools.partial(step, tx), (params, tx.init(params)), grads)[1]

    return run


@pytest.mark.parametrize("clip", [0.1, 1.0, 3.0, 1e3])
@pytest.mark.parametrize(("momentum", "nesterov"), [(None, False), (0.9, False), (0.8, True)])
def test_dpsgd_without_noise(clip: float, momentum: float | None, nesterov: bool) -> None:
    """SGD on the mean of the clipped gradients; and Optax does the same."""
    params, trace = dict(PARAMS), {k: np.zeros(s) for k, s in SHAPES.items()}
    expected = []
    for t in range(STEPS):
        mean = private_mean({k: g[t] for k, g in GRADS.items()}, clip)
        for k, u in mean.items():
            step = u
            if momentum is not None:
                trace[k] = momentum * trace[k] + u
                step = u + momentum * trace[k] if nesterov else trace[k]
            params[k] = params[k] - 0.1 * step
        expected.append(dict(params))
    path = jax.tree.map(lambda *x: np.stack(x), *expected)
    got = trained(gradtx, momentum, nesterov)(clip, PARAMS, GRADS)
    assert_trees_close(got, path, 1e-12)
    theirs = trained(optax, momentum, nesterov)(clip, PARAMS, GRADS)
    assert_trees_close(got, theirs, 1e-12)


def test_states_have_the_key_paths_of_optax() -> None:
    """The key is the two words of Optax's typed one."""
    mine, theirs = (lib.dpsgd(0.1, 1.0, 0.0, 3, 0.9) for lib in (gradtx, optax.contrib))
    ours, other = mine.init(PARAMS), theirs.init(PARAMS)
    paths = [
        [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
        for state in (ours, other)
    ]
    assert paths[0] == paths[1]
    assert np.array_equal(ours[0].rng_key, jax.random.key_data(other[0].rng_key))


# -- the noise -----------------------------------------------------------------------------------

N = 20_000
ZEROS = {"a": jnp.zeros((4, N)), "b": jnp.zeros((4, N // 100, 100))}


def draw(tx: Any, zeros: Any) -> Any:
    """The updates of three steps."""

    def step(state: Any, _: None) -> Any:
        updates, state = tx.update(zeros, state)
        return state, updates

    return jax.lax.scan(step, tx.init(jax.tree.map(lambda g: g[0], zeros)), length=3)[1]


compiled_draw = jax.jit(draw)  # once for all numbers of a transformation


def noise(tx: Any, zeros: Any = ZEROS) -> Any:
    return jax.tree.map(np.asarray, compiled_draw(tx, zeros))


@pytest.mark.parametrize(("clip", "multiplier"), [(1.0, 1.0), (0.5, 3.0), (4.0, 0.1)])
def test_the_noise_is_normal(clip: float, multiplier: float) -> None:
    """Mean 0 and deviation clip * multiplier / batch, to five standard errors, and normal tails."""
    made = noise(gradtx.differentially_private_aggregate(clip, multiplier, 3))
    for name in ZEROS:
        for x in made[name]:
            z = x.ravel() / (clip * multiplier / 4)
            assert abs(np.mean(z)) < 5 / np.sqrt(N)
            assert abs(np.mean(z**2) - 1) < 5 * np.sqrt(2 / N)
            assert abs(np.mean(z**4) - 3) < 5 * np.sqrt(96 / N)


def test_the_noise_has_the_size_of_optax() -> None:
    mine = noise(gradtx.differentially_private_aggregate(2.0, 0.7, 3))
    theirs = draw(optax.contrib.differentially_private_aggregate(2.0, 0.7, 3), ZEROS)
    for name in ZEROS:
        assert_close(np.std(mine[name]), np.std(theirs[name]), 0.02)


def test_leaves_steps_and_keys_are_independent() -> None:
    made, other = (noise(gradtx.differentially_private_aggregate(1.0, 1.0, key)) for key in (3, 4))
    rows = [x.ravel() for x in (*made["a"], *made["b"], *other["a"], *other["b"])]
    correlations = np.corrcoef(rows) - np.eye(len(rows))
    assert np.max(np.abs(correlations)) < 5 / np.sqrt(N)


def test_the_noise_belongs_to_the_key_and_the_path() -> None:
    """Whatever the batch or the other leaves are; `seed` and a key of jax.random are the key."""
    tx = gradtx.differentially_private_aggregate(1.0, 1.0, 3)
    made = noise(tx)
    assert np.array_equal(noise(tx)["a"], made["a"])
    assert np.array_equal(noise(tx, {"a": ZEROS["a"]})["a"], made["a"])
    twice = {k: jnp.concatenate([x, x]) for k, x in ZEROS.items()}
    assert_close(2 * noise(tx, twice)["b"], made["b"], 1e-6)
    for other in ({"seed": 3}, {"key": jax.random.key(3)}, {"key": jax.random.PRNGKey(3)}):
        again = noise(gradtx.differentially_private_aggregate(1.0, 1.0, **other))
        assert np.array_equal(again["b"], made["b"])
    assert np.array_equal(noise(gradtx.dpsgd(1.0, 1.0, 1.0, 3))["a"], -made["a"])


# -- what is particular to it --------------------------------------------------------------------


def test_no_example_contributes_more_than_the_limit() -> None:
    """Taking one example away changes the sum by at most the clipping norm."""
    tx = gradtx.differentially_private_aggregate(0.7, 0.0)
    grads = {k: jnp.asarray(g[0]) for k, g in GRADS.items()}
    whole, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    for i in range(BATCH):
        others = {k: jnp.delete(g, i, axis=0) for k, g in grads.items()}
        rest, _ = tx.update(others, tx.init(PARAMS))
        change = [BATCH * whole[k] - (BATCH - 1) * rest[k] for k in SHAPES]
        assert np.sqrt(sum(np.sum(x**2) for x in change)) <= 0.7 * (1 + 1e-12)


def test_float16_norms_do_not_overflow() -> None:
    """Squares of 300 do, and Optax's mean is then 0."""
    params = {"w": jnp.ones((3, 2), jnp.float16)}
    grads = {"w": jnp.full((2, 3, 2), 300, jnp.float16)}
    ours, theirs = (
        lib.differentially_private_aggregate(1.0, 0.0, 0) for lib in (gradtx, optax.contrib)
    )
    mean, _ = ours.update(grads, ours.init(params), params)
    assert mean["w"].dtype == jnp.float16
    assert_close(mean["w"].astype(np.float64), np.full((3, 2), 6**-0.5), 1e-3)
    assert np.all(theirs.update(grads, theirs.init(params), params)[0]["w"] == 0)


def test_inside_of_other_transformations() -> None:
    """Under a mask, with numbers in the state, and with a stored state."""
    grads = {k: jnp.asarray(g[0]) for k, g in GRADS.items()}
    tx = gradtx.dpsgd(0.1, 1.0, 0.5, 3, 0.9)
    expected, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    injected = gradtx.inject_hyperparams(gradtx.dpsgd)(0.1, 1.0, 0.5, 3, 0.9)
    stored = gradtx.store(tx, "bfloat16", min_size=1)
    for wrapped in (injected, stored, gradtx.named_chain(("private", tx))):
        assert gradtx.Place.FIRST in wrapped.place
        got, _ = wrapped.update(grads, wrapped.init(PARAMS), PARAMS)
        assert_trees_close(got, expected, 1e-6)
    masked = gradtx.masked(tx, "matrix")
    mixed = {**grads, "vector": PARAMS["vector"], "scalar": PARAMS["scalar"]}
    got, _ = masked.update(mixed, masked.init(PARAMS), PARAMS)
    assert got["matrix"].shape == (3, 4)
    assert np.array_equal(got["vector"], PARAMS["vector"])


TX = gradtx.dpsgd(0.1, 1.0, 0.5, 3)
GIVEN = {k: g[0] for k, g in GRADS.items()}
BAD = [
    (TX, PARAMS, PARAMS, r"dpsgd: at matrix: updates float64\[3,4\] do not fit .* one more axis"),
    (
        TX,
        PARAMS,
        None,
        r"at scalar: updates float64\[\] must be gradients of single examples",
    ),
    (TX, {**GIVEN, "scalar": np.ones(2)}, PARAMS, r"at scalar: updates float64\[2\] .*, 5 along"),
    (TX, {k: g[:0] for k, g in GIVEN.items()}, None, "at matrix: .* at least one along"),
    (
        gradtx.chain(gradtx.clip(1.0), TX),
        GIVEN,
        PARAMS,
        r"chain: at matrix: differentially_private_aggregate.* comes after clip.* must come first",
    ),
    (gradtx.accumulate(TX, 2), GIVEN, PARAMS, "accumulate: at matrix: .* the same shape"),
]


@pytest.mark.parametrize(("tx", "grads", "params", "message"), BAD)
def test_bad_gradients_are_named(tx: Any, grads: Any, params: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tx.update(grads, tx.init(PARAMS), params)


def test_key_and_seed_are_one_thing() -> None:
    with pytest.raises(ValueError, match="seed is the older name of key"):
        gradtx.differentially_private_aggregate(1.0, 1.0, 1, seed=2)


def test_a_rule_of_one_leaf_is_not_per_example() -> None:
    with pytest.raises(TypeError, match=r"Place\.FIRST is for rules of trees"):

        @gradtx.per_leaf
        def mean() -> Any:
            return gradtx.Rule(None, lambda grad: grad.mean(0), place=gradtx.Place.FIRST)
