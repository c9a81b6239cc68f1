"""Every transformation, optimizer and schedule against Optax's namesake in float64.

One table: a name, and the argument sets to try (the first is the defaults where there are any).
Each is run for 50 steps on one tree; the parameters, the final state and the state's key paths
must agree. Bias corrections differ in the last digits only (``-expm1(t log b)`` here).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

from .replay import STEPS, assert_close, assert_trees_close

optax = pytest.importorskip("optax")


def show(value: Any) -> str:
    return "mask" if value is MASK else getattr(value, "__name__", repr(value))


class Args(NamedTuple):
    positional: tuple[Any, ...]
    named: dict[str, Any]

    def __repr__(self) -> str:
        named = [f"{k}={show(v)}" for k, v in self.named.items()]
        return ", ".join([*map(show, self.positional), *named])


class Both:
    """An argument that each library builds for itself."""

    def __init__(self, text: str, build: Callable[[Any], Any]):
        self.text, self.build = text, build

    def __repr__(self) -> str:
        return self.text


def args(*positional: Any, **named: Any) -> Args:
    return Args(positional, named)


def resolve(lib: Any, value: Any) -> Any:
    if isinstance(value, Both):
        return value.build(lib)
    if isinstance(value, tuple | list):
        return type(value)(resolve(lib, v) for v in value)
    return value


def build(lib: Any, name: str, case: Args) -> Any:
    positional = [resolve(lib, v) for v in case.positional]
    return getattr(lib, name)(*positional, **{k: resolve(lib, v) for k, v in case.named.items()})


def in_float64(lib: Any, schedule: Any) -> Any:
    """Optax divides an int32 step in float32, even with 64-bit types: give it a float64 step."""
    return (lambda step: schedule(jnp.asarray(step, jnp.float64))) if lib is optax else schedule


COSINE = Both(
    "cosine_decay_schedule(0.1, 40)",
    lambda lib: in_float64(lib, lib.cosine_decay_schedule(0.1, 40)),
)
LINEAR = Both(
    "linear_schedule(0.01, 0.5, 30)",
    lambda lib: in_float64(lib, lib.linear_schedule(0.01, 0.5, 30)),
)


def matrices(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, tree)


MASK = {"scalar": True, "vectors": False, "matrix": True, "kernel": {"conv": False}}

TRANSFORMATIONS: dict[str, list[Args]] = {
    "scale": [args(0.5), args(-2.0), args(1e-4), args(3)],
    "scale_by_learning_rate": [
        args(0.5),
        args(0.5, flip_sign=False),
        args(COSINE),
        args(LINEAR, flip_sign=False),
    ],
    "scale_by_schedule": [args(COSINE), args(LINEAR)],
    "trace": [
        args(0.9),
        args(0.0),
        args(0.5, True),
        args(0.9, nesterov=True, accumulator_dtype="float32"),
        args(0.99, accumulator_dtype=jnp.float32),
    ],
    "ema": [
        args(0.9),
        args(0.0),
        args(0.99, False),
        args(0.5, debias=False),
        args(0.9, accumulator_dtype="float32"),
    ],
    "scale_by_rss": [args(), args(0.0), args(1.0, 1e-3), args(initial_accumulator_value=0, eps=1)],
    "scale_by_rms": [
        args(),
        args(0.5, 1e-3),
        args(0.99, 1e-8, 1.0),
        args(eps_in_sqrt=False),
        args(bias_correction=True),
        args(0.99, eps_in_sqrt=False, bias_correction=True),
    ],
    "scale_by_stddev": [
        args(),
        args(0.8, 1e-3),
        args(0.99, 1e-8, 1.0),
        args(eps_in_sqrt=False),
        args(eps=0.1, bias_correction=True),
    ],
    "scale_by_adam": [
        args(),
        args(0.0, 0.9),
        args(0.5, 0.99, 1e-3, 1e-6),
        args(nesterov=True),
        args(0.8, 0.95, nesterov=True, eps_root=1e-8),
        args(mu_dtype="float32"),
    ],
    "scale_by_amsgrad": [
        args(),
        args(0.5, 0.9),
        args(0.9, 0.99, 1e-3, 1e-6),
        args(bias_correction_mu=False, bias_correction_nu=False),
        args(0.9, 0.99, bias_correction_nu=False),
        args(0.9, 0.99, bias_correction_mu=False),
        args(mu_dtype="float32"),
    ],
    "add_decayed_weights": [
        args(),
        args(0.1),
        args(0.1, mask=MASK),
        args(0.1, matrices),
        args(LINEAR),
    ],
    "clip": [args(1.0), args(0.1), args(1e6), args(0.5)],
    "clip_by_global_norm": [args(1.0), args(0.01), args(1e6), args(5.0)],
    "identity": [args()],
    "set_to_zero": [args()],
    "chain": [
        args(Both("clip(1.0)", lambda lib: lib.clip(1.0))),
        args(
            Both("clip_by_global_norm(1.0)", lambda lib: lib.clip_by_global_norm(1.0)),
            Both("scale_by_adam()", lambda lib: lib.scale_by_adam()),
            Both("add_decayed_weights(0.1)", lambda lib: lib.add_decayed_weights(0.1)),
            Both("scale(-0.1)", lambda lib: lib.scale(-0.1)),
        ),
        args(
            Both("chain(trace, scale)", lambda lib: lib.chain(lib.trace(0.9), lib.scale(-0.1))),
            Both("identity()", lambda lib: lib.identity()),
        ),
    ],
    "named_chain": [
        args(
            ("first", Both("trace(0.9)", lambda lib: lib.trace(0.9))),
            ("second", Both("scale(-0.1)", lambda lib: lib.scale(-0.1))),
        ),
        args(("only", Both("adam(0.1)", lambda lib: lib.adam(0.1)))),
        args(
            ("clip", Both("clip(0.5)", lambda lib: lib.clip(0.5))),
            ("adam", Both("scale_by_adam()", lambda lib: lib.scale_by_adam())),
            ("rate", Both("cosine", lambda lib: lib.scale_by_learning_rate(COSINE.build(lib)))),
        ),
    ],
    "masked": [
        args(Both("trace(0.9)", lambda lib: lib.trace(0.9)), MASK),
        args(Both("adam(0.1)", lambda lib: lib.adam(0.1)), matrices),
        args(Both("scale(0.0)", lambda lib: lib.scale(0.0)), mask=MASK),
        args(Both("adam(0.1)", lambda lib: lib.adam(0.1)), True),
    ],
    "stateless": [
        args(lambda updates, params: jax.tree.map(lambda u, p: u + 0.1 * p, updates, params)),
        args(lambda updates, params: jax.tree.map(jnp.sign, updates)),
    ],
}

OPTIMIZERS: dict[str, list[Args]] = {
    "sgd": [
        args(0.1),
        args(0.1, 0.9),
        args(0.1, momentum=0.0),
        args(0.01, momentum=0.99, nesterov=True),
        args(COSINE, 0.9),
        args(0.1, 0.9, accumulator_dtype="float32"),
    ],
    "adagrad": [args(0.1), args(0.1, 0.0), args(0.5, 1.0, 1e-3), args(COSINE, eps=1e-10)],
    "rmsprop": [
        args(0.01),
        args(0.01, 0.99, 1e-6, 0.1),
        args(0.01, eps_in_sqrt=False),
        args(0.01, centered=True),
        args(0.01, momentum=0.9),
        args(COSINE, momentum=0.9, nesterov=True),
        args(0.01, bias_correction=True),
        args(0.01, centered=True, momentum=0.5, eps=1e-2, bias_correction=True),
    ],
    "adam": [
        args(0.1),
        args(0.1, 0.5, 0.9, 1e-4, 1e-6),
        args(COSINE),
        args(0.1, nesterov=True),
        args(0.1, mu_dtype="float32"),
    ],
    "nadam": [args(0.1), args(0.1, 0.5, 0.9, 1e-4), args(COSINE), args(0.1, nesterov=False)],
    "nadamw": [
        args(0.1),
        args(0.1, 0.8, 0.99, weight_decay=0.1),
        args(COSINE, mask=matrices),
        args(0.1, weight_decay=0.0),
    ],
    "amsgrad": [
        args(0.1),
        args(0.1, 0.5, 0.9, 1e-4, 1e-6),
        args(COSINE),
        args(0.1, bias_correction_mu=False, bias_correction_nu=False),
    ],
    "adamw": [
        args(0.1),
        args(0.1, 0.8, 0.99, 1e-6, weight_decay=0.1),
        args(COSINE, mask=matrices),
        args(COSINE, weight_decay=LINEAR),
        args(0.1, weight_decay=0.1, mask=MASK, nesterov=True),
        args(0.1, mu_dtype="float32", weight_decay=0),
    ],
}

SCHEDULES: dict[str, list[Args]] = {
    "constant_schedule": [args(0.1), args(0.0), args(-3.0), args(2)],
    "linear_schedule": [
        args(1.0, 0.1, 30),
        args(0.0, 1.0, 7, 5),
        args(1.0, 0.0, 0),
        args(0.1, 1.0, 41, transition_begin=3),
    ],
    "polynomial_schedule": [
        args(1.0, 0.1, 2, 30),
        args(0.1, 1.0, 0.5, 17, 3),
        args(0.1, 0.0, 2.5, 41),
        args(1.0, 0.0, 3, 0),
        args(1.0, 0.2, 1.0, 20, transition_begin=1),
    ],
    "exponential_decay": [
        args(1.0, 10, 0.5),
        args(1.0, 7, 0.3, 5),
        args(1.0, 10, 0.5, staircase=True),
        args(1.0, 10, 0.5, end_value=0.2),
        args(0.1, 10, 2.0, 3, True, 1.0),
        args(0.1, 0, 0.5),
        args(0.1, 10, 0.0),
    ],
    "piecewise_constant_schedule": [
        args(0.5),
        args(0.5, {10: 0.1}),
        args(1.0, {30: 0.5, 10: 0.1, 20: 2.0}),
        args(1.0, {5: 0.0}),
    ],
    "piecewise_interpolate_schedule": [
        args("linear", 0.5),
        args("linear", 1.0, {10: 0.1, 30: 5.0}),
        args("cosine", 1.0, {25: 0.1, 8: 3.0}),
        args("cosine", 0.3, {50: 0.0}),
    ],
    "cosine_decay_schedule": [
        args(0.1, 40),
        args(1.0, 17, 0.1),
        args(1.0, 40, exponent=2.0),
        args(0.3, 50, 0.2, 0.5),
    ],
    "warmup_constant_schedule": [args(0.0, 1.0, 10), args(1.0, 0.5, 33), args(0.0, 1.0, 0)],
    "warmup_cosine_decay_schedule": [
        args(0.0, 1.0, 10, 40),
        args(0.1, 1.0, 5, 50, 0.2),
        args(0.0, 1.0, 0, 30, exponent=2.0),
        args(0.1, 0.0, 5, 20),
    ],
    "warmup_exponential_decay_schedule": [
        args(0.0, 1.0, 10, 20, 0.5),
        args(0.0, 1.0, 10, 20, 0.5, 7, True),
        args(0.1, 1.0, 5, 10, 0.5, end_value=0.3),
        args(0.1, 1.0, 0, 10, 2.0, end_value=3.0),
    ],
    "sgdr_schedule": [
        args([{"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 3, "decay_steps": 10}]),
        args(
            [
                {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 3, "decay_steps": 10},
                {"init_value": 0.2, "peak_value": 0.5, "warmup_steps": 0, "decay_steps": 15},
                {
                    "init_value": 0.0,
                    "peak_value": 0.3,
                    "warmup_steps": 5,
                    "decay_steps": 20,
                    "end_value": 0.1,
                    "exponent": 2.0,
                },
            ]
        ),
        args(
            [
                {"init_value": 0.1, "peak_value": v, "warmup_steps": 1, "decay_steps": 12}
                for v in (1.0, 0.5, 0.2)
            ]
        ),
    ],
    "linear_onecycle_schedule": [
        args(50, 1.0),
        args(40, 0.1, 0.2, 0.5),
        args(33, 2.0, div_factor=10.0, final_div_factor=100.0),
        args(20, 1.0, 0.45, 0.9, 4.0, 1e3),
    ],
    "cosine_onecycle_schedule": [
        args(50, 1.0),
        args(40, 0.1, 0.2),
        args(33, 2.0, div_factor=10.0, final_div_factor=100.0),
        args(20, 1.0, 0.45, 4.0, 1e3),
    ],
    "join_schedules": [
        args([COSINE, LINEAR], [20]),
        args([LINEAR], []),
        args([LINEAR, COSINE, LINEAR], [10, 35]),
        args([Both("constant", lambda lib: lib.constant_schedule(1.0)), COSINE], [5]),
    ],
}


def cases(table: dict[str, list[Args]]) -> list[Any]:
    return [
        pytest.param(name, case, id=f"{name}({case!r})" if len(repr(case)) < 80 else f"{name} {i}")
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


def one_step(lib: Any, tx: Any, rate: Any, params: Any, state: Any, push: Any) -> Any:
    """A transformation's update is scaled by ``rate``, so that it descends; an optimizer's by 1."""
    grads = jax.tree.map(lambda p, n: 0.5 * p + n, params, push)
    updates, state = tx.update(grads, state, params)
    return lib.apply_updates(params, jax.tree.map(lambda u: rate * u, updates)), state


# Ours compiled, once for all values of the hyperparameters; Optax's not: what it asks for, exactly.
our_step = jax.jit(partial(one_step, gradtx))
their_step = partial(one_step, optax)


def train(step: Any, tx: Any, rate: float) -> tuple[Any, Any]:
    """The parameters after each step, and the last state."""
    params = jax.tree.map(jnp.asarray, start())
    state, path = tx.init(params), []
    leaves, tree = jax.tree.flatten(pushes())
    for push in zip(*leaves, strict=True):
        params, state = step(tx, rate, params, state, jax.tree.unflatten(tree, push))
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
    our_path, our_state = train(our_step, ours, rate)
    their_path, their_state = train(their_step, theirs, rate)
    # Where an accumulator is asked to be float32, Optax also multiplies it in float32.
    rtol = 1e-4 if "float32" in repr(case) else 1e-12
    assert_trees_close(our_path, their_path, rtol, what="params")
    assert_trees_close(our_state, their_state, rtol, what="state")
    assert key_paths(our_state) == key_paths(their_state)
    assert key_paths(ours.init(start())) == key_paths(theirs.init(start()))


@pytest.mark.parametrize(("name", "case"), cases(SCHEDULES))
def test_schedule_equals_optax(name: str, case: Args) -> None:
    """At Python ints, and at traced int32 steps as an optimizer asks."""
    ours, theirs = build(gradtx, name, case), build(optax, name, case)
    expected = np.stack([theirs(jnp.float64(t)) for t in range(STEPS + 5)])
    traced = jax.jit(jax.vmap(lambda t: jnp.asarray(ours(t))))
    assert_close(np.stack([ours(t) for t in range(STEPS + 5)]), expected, what="Python int")
    assert_close(traced(jnp.arange(STEPS + 5, dtype=jnp.int32)), expected, what="traced int32")
