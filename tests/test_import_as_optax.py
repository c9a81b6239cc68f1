"""A program written for Optax, run once with `import optax` and once with `import gradtx as optax`.

The source is the same string, and both runs must end at the same parameters. They run in float64:
in float32 Optax loses digits in 1 - b2^t, which a trajectory of Adam shows in the fifth place.
"""

import importlib
import types
import warnings
from typing import Any

import jax
import numpy as np
import pytest

import gradtx

optax = pytest.importorskip("optax")

PROGRAM = """
from typing import NamedTuple

import jax
import jax.numpy as jnp


class TrainState(NamedTuple):
    params: optax.Params
    opt_state: optax.OptState
    norms: jax.Array


def decays(params: optax.Params) -> optax.Params:
    return jax.tree.map(lambda p: p.ndim > 1, params)


def optimizers(steps: int) -> dict[str, optax.GradientTransformation]:
    cosine = optax.warmup_cosine_decay_schedule(
        init_value=0.0, peak_value=0.05, warmup_steps=5, decay_steps=steps, end_value=1e-4
    )
    joined = optax.join_schedules(
        [optax.linear_schedule(0.0, 0.05, 10), optax.exponential_decay(0.05, 10, 0.5)], [10]
    )
    pieces = optax.piecewise_constant_schedule(0.05, {10: 0.5, 20: 0.1})
    mask = {"kernel": True, "bias": False}
    return {
        "sgd": optax.sgd(0.05),
        "momentum": optax.sgd(0.02, momentum=0.9),
        "nesterov": optax.sgd(optax.constant_schedule(0.02), momentum=0.9, nesterov=True),
        "adam": optax.adam(learning_rate=0.05, b1=0.8, b2=0.99, eps=1e-6),
        "adamw": optax.adamw(cosine, weight_decay=0.1, mask=decays),
        "adamw by tree": optax.adamw(joined, weight_decay=0.1, mask=mask),
        "rmsprop": optax.rmsprop(pieces, decay=0.95, momentum=0.5),
        "adagrad": optax.adagrad(optax.polynomial_schedule(0.3, 0.1, 2, steps)),
        "chain": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(cosine)),
        "clip": optax.chain(optax.clip(0.5), optax.trace(0.9), optax.scale(-0.05)),
        "pieces": optax.chain(
            optax.scale_by_adam(nesterov=True),
            optax.add_decayed_weights(0.1, decays),
            optax.scale_by_schedule(optax.cosine_decay_schedule(-0.05, steps)),
        ),
        "masked": optax.chain(
            optax.masked(optax.adam(0.05), mask),
            optax.masked(optax.set_to_zero(), {"kernel": False, "bias": True}),
        ),
        "named_chain": optax.named_chain(
            ("clip", optax.clip_by_global_norm(0.5)),
            ("rms", optax.scale_by_rms(decay=0.9)),
            ("rate", optax.scale_by_learning_rate(0.02)),
        ),
    }


def loss_fn(params: optax.Params, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((jnp.tanh(x @ params["kernel"] + params["bias"]) - y) ** 2)


def train(tx: optax.GradientTransformation, steps: int) -> TrainState:
    keys = jax.random.split(jax.random.key(0), 3)
    x, y = jax.random.normal(keys[0], (32, 6)), jax.random.normal(keys[1], (32, 3))
    params = {"kernel": jax.random.normal(keys[2], (6, 3)), "bias": jnp.zeros(3)}
    init, update = tx

    @jax.jit
    def step(state: TrainState) -> TrainState:
        grads = jax.grad(loss_fn)(state.params, x, y)
        updates, opt_state = update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        norms = jnp.stack([optax.global_norm(grads), optax.global_norm(updates)])
        return TrainState(params, opt_state, norms)

    state = TrainState(params, init(params), jnp.zeros(2))
    for _ in range(steps):
        state = step(state)
    return state


result = {name: train(tx, STEPS) for name, tx in optimizers(STEPS).items()}
"""


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """What the program computes, by the library that it imported."""
    done = {}
    for line in ("import optax", "import gradtx as optax"):
        namespace: dict[str, Any] = {"STEPS": 30}
        with jax.enable_x64(True), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Optax's, of its global_norm
            exec(compile(line + PROGRAM, line, "exec"), namespace)
        done[line] = namespace["result"]
    return done


NAMES = [
    "sgd",
    "momentum",
    "nesterov",
    "adam",
    "adamw",
    "adamw by tree",
    "rmsprop",
    "adagrad",
    "chain",
    "clip",
    "pieces",
    "masked",
    "named_chain",
]


@pytest.mark.parametrize("name", NAMES)
def test_same_end(results: dict[str, Any], name: str) -> None:
    theirs, ours = (result[name] for result in results.values())
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_same_state_paths(results: dict[str, Any], name: str) -> None:
    theirs, ours = (result[name].opt_state for result in results.values())

    def paths(state: Any) -> list[str]:
        return [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(state)]

    assert paths(ours) == paths(theirs)


def test_every_run_is_compared(results: dict[str, Any]) -> None:
    assert all(list(result) == NAMES for result in results.values())


# -- names ---------------------------------------------------------------------------------------


def public(module: Any) -> list[str]:
    return [
        name
        for name, thing in vars(module).items()
        if not (name.startswith("_") or isinstance(thing, types.ModuleType))
    ]


@pytest.mark.parametrize("module", ["contrib", "tree_utils", "tree", "schedules", "transforms"])
def test_the_names_of_a_module(module: str) -> None:
    theirs = [name for name in public(getattr(optax, module)) if not name.startswith("Named")]
    ours = importlib.import_module(f"gradtx.{module}")
    missing = {name for name in theirs if not hasattr(ours, name) and not hasattr(gradtx, name)}
    assert missing <= {"ConditionFn", "Schedule", "StatefulSchedule", "WrappedSchedule"}


def test_names_that_are_not_here_say_where_they_are() -> None:
    for name in public(optax):
        if not hasattr(gradtx, name):
            with pytest.raises(AttributeError, match=f"from optax import {name}$"):
                getattr(gradtx, name)
    with pytest.raises(AttributeError, match="losses stay with Optax"):
        _ = gradtx.l2_loss
    with pytest.raises(AttributeError, match="did you mean adamw or"):
        _ = gradtx.AdamW
    with pytest.raises(AttributeError, match=r"'nothing_like_it'$"):
        _ = gradtx.nothing_like_it
