"""gradtx.torch against PyTorch: recorded trajectories, and PyTorch itself where it is installed.

A recorded trajectory is a closed loop: fifty steps of an ill-conditioned problem, in which a
rounding of one step is carried on by the next. The tolerances are what that makes of roundings in
the last place; PyTorch's bias corrections, ``1 - beta ** step``, are rounded more than ours.

Live, with random arguments, a closed loop can be chaotic. There each step is compared from where
PyTorch stands, and nothing is carried on but the optimizer's state.
"""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradtx
import gradtx.torch

from .cases import (
    CASES,
    COMPLEX_DTYPES,
    DTYPES,
    RECORDED,
    SCALES,
    SCHEDULE_STEPS,
    SCHEDULES,
    SHAPES,
    STEPS,
    Case,
    Schedule,
    as_reals,
    problem,
)

TOLERANCES = {"float64": 5e-13, "float32": 5e-5}
PARTS = {"complex128": "float64", "complex64": "float32"}
NAMES = {
    "StepLR": "step_lr",
    "MultiStepLR": "multi_step_lr",
    "ConstantLR": "constant_lr",
    "LinearLR": "linear_lr",
    "ExponentialLR": "exponential_lr",
    "PolynomialLR": "polynomial_lr",
    "CosineAnnealingLR": "cosine_annealing_lr",
    "CosineAnnealingWarmRestarts": "cosine_annealing_warm_restarts",
    "CyclicLR": "cyclic_lr",
    "OneCycleLR": "one_cycle_lr",
    "SequentialLR": "sequential_lr",
}
# PyTorch's RAdam takes its rho, about t, as a difference of numbers near 2 / (1 - b2).
LOOSER = {"radam": {"float64": 1e-9, "float32": 5e-5}}
DEFAULT_LR = {"SGD": 1e-3, "Adagrad": 1e-2, "RMSprop": 1e-2, "Adam": 1e-3, "AdamW": 1e-3}
DEFAULT_LR |= {
    "NAdam": 2e-3,
    "RAdam": 1e-3,
    "Adamax": 2e-3,
    "Adadelta": 1.0,
    "Rprop": 1e-2,
    "ASGD": 1e-2,
    "Adafactor": 1e-2,
    "Muon": 1e-3,
}


@functools.cache
def golden(name: str) -> dict[str, Any]:
    return json.loads((Path(__file__).parent / f"{name}.json").read_text())["cases"]


def schedule(case: Schedule, lr: float) -> Any:
    make, arguments = getattr(gradtx.torch, NAMES[case.name]), dict(case.arguments)
    if "schedulers" in arguments:
        arguments["schedulers"] = [schedule(x, lr) for x in arguments["schedulers"]]
    return make(lr, **arguments) if "lr" in make.parameters else make(**arguments)


def optimizer(case: Case, dtype: str = "float64") -> Any:
    arguments = dict(case.arguments)
    if case.optimizer == "Muon":
        arguments["ns_dtype"] = dtype
    if case.schedule is not None:
        lr = arguments.get("lr", DEFAULT_LR[case.optimizer])
        arguments["lr"] = schedule(case.schedule, lr)
    return getattr(gradtx.torch, case.optimizer.lower())(**arguments)


@jax.jit
def descend(tx: Any, scale: Any, start: Any, matrix: Any, target: Any) -> Any:
    def step(carry: Any, _: None) -> Any:
        x, state = carry
        grad = scale * (matrix @ x.flatten() - target).reshape(x.shape)
        updates, state = tx.update(grad, state, x)
        x = gradtx.apply_updates(x, updates)
        return (x, state), (x, mean_in(state))

    return jax.lax.scan(step, (start, tx.init(start)), length=STEPS)[1]


def mean_in(state: Any) -> Any:
    """The mean of the parameters that a state holds, or None."""
    return gradtx.tree.get(state, "ax")


def trajectory(case: Case, scale: float, dtype: str) -> tuple[np.ndarray, Any]:
    """The parameters after each of the steps, and their mean if there is one; 64-bit types only
    where they are asked for."""
    with jax.enable_x64(dtype in ("float64", "complex128")):
        matrix, target, start = map(jnp.asarray, problem(dtype))
        start = start.reshape(SHAPES.get(case.optimizer, (8,)))
        tx = optimizer(case, dtype)
        path, means = descend(tx, jnp.asarray(scale), start, matrix, target)
        assert path.dtype == dtype
        assert means is None or means.dtype == dtype
        path = path.reshape(STEPS, -1)
        return np.asarray(path), None if means is None else np.asarray(means)


def assert_follows(path: np.ndarray, expected: Any, dtype: str, name: str = "") -> None:
    """To a part of each parameter, and to a tenth of that of its largest value so far."""
    expected = np.asarray(expected, np.float64)
    largest = np.maximum.accumulate(np.abs(expected), axis=0)
    allowed = LOOSER.get(name, TOLERANCES)[dtype] * (np.abs(expected) + 0.1 * largest)
    error = np.abs(path - expected)
    assert path.shape == expected.shape
    assert np.all(error <= allowed), (
        f"worst relative error {np.max(error / np.maximum(np.abs(expected), 1e-300)):.3g}, "
        f"{np.max(error / allowed):.3g} times the tolerance; "
        f"first beyond it at [row, coordinate] {np.argwhere(~(error <= allowed))[0].tolist()}"
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("name", "label"), [(n, label) for n in CASES for label in CASES[n]])
def test_recorded_trajectory(name: str, label: str, scale: float, dtype: str) -> None:
    path, means = trajectory(CASES[name][label], scale, dtype)
    recorded, at = golden(name)[label][dtype], [step - 1 for step in RECORDED]
    assert_follows(path[at], recorded[f"{scale:g}"], dtype, name)
    assert (means is not None) == (f"{scale:g} mean" in recorded) == (name == "asgd")
    if means is not None:
        assert_follows(means[at], recorded[f"{scale:g} mean"], dtype, name)


@pytest.mark.parametrize("dtype", COMPLEX_DTYPES)
@pytest.mark.parametrize(
    ("name", "label"),
    [
        (n, label)
        for n in CASES
        for label, case in CASES[n].items()
        if case.schedule is None and case.optimizer not in SHAPES
    ],
)
def test_recorded_complex_trajectory(name: str, label: str, dtype: str) -> None:
    """Each part by itself follows PyTorch's."""
    path, means = trajectory(CASES[name][label], 1.0, dtype)
    recorded, at = golden(name)[label][dtype], [step - 1 for step in RECORDED]
    assert_follows(as_reals(path[at]), recorded["1"], PARTS[dtype], name)
    if means is not None:
        assert_follows(as_reals(means[at]), recorded["1 mean"], PARTS[dtype], name)


@pytest.mark.parametrize("scale", SCALES)
def test_shifted_point_nesterov_is_pytorchs(scale: float) -> None:
    """gradtx.sgd keeps Optax's form of Nesterov momentum: the same trajectory."""
    arguments = CASES["sgd"]["nesterov"].arguments
    with jax.enable_x64(True):
        tx = gradtx.sgd(arguments["lr"], momentum=arguments["momentum"], nesterov=True)
        matrix, target, start = map(jnp.asarray, problem("float64"))
        path, _ = descend(tx, jnp.asarray(scale), start, matrix, target)
    rows = np.asarray(path)[[step - 1 for step in RECORDED]]
    assert_follows(rows, golden("sgd")["nesterov"]["float64"][f"{scale:g}"], "float64")


@pytest.mark.parametrize("label", SCHEDULES)
def test_recorded_rates(label: str) -> None:
    """Ints and traced steps alike. PyTorch's own recursion rounds, to 1e-13 of the first rate."""
    expected = np.array(golden("schedules")[label]["rates"])
    with jax.enable_x64(True):
        rate = schedule(SCHEDULES[label], 0.1)
        eager = np.array([rate(t) for t in range(SCHEDULE_STEPS)])
        traced = jax.jit(jax.vmap(lambda t: jnp.asarray(rate(t))))
        compiled = np.asarray(traced(jnp.arange(SCHEDULE_STEPS, dtype=jnp.int32)))
    np.testing.assert_allclose(eager, expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(compiled, expected, rtol=1e-12, atol=1e-14)
    with jax.enable_x64(False):
        rate = schedule(SCHEDULES[label], 0.1)
        traced = jax.jit(jax.vmap(lambda t: jnp.asarray(rate(t))))
        compiled = np.asarray(traced(jnp.arange(SCHEDULE_STEPS, dtype=jnp.int32)))
    assert compiled.dtype == np.float32
    np.testing.assert_allclose(compiled, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", [*CASES, "schedules"])
def test_files_hold_the_cases_of_the_table(name: str) -> None:
    table = SCHEDULES if name == "schedules" else CASES[name]
    recorded = {label: record["case"] for label, record in golden(name).items()}
    assert recorded == json.loads(json.dumps(table))


def test_default_arguments_are_pytorchs() -> None:
    """The recorded default cases cover the values; this one, that lr is positional and first."""
    for name in CASES:
        build = getattr(gradtx.torch, name)
        assert build() == build(DEFAULT_LR[CASES[name]["default"].optimizer])


# Live: PyTorch beside gradtx, random arguments.

few = settings(max_examples=max(1, settings().max_examples // 2))

rate = st.floats(1e-3, 3e-2)
momentum = st.just(0.0) | st.floats(0.1, 0.95)
weight_decay = st.just(0.0) | st.floats(1e-3, 0.1)
eps = st.sampled_from([1e-10, 1e-8, 1e-4])
beta = st.floats(0.5, 0.95)
switch = st.booleans()

sgd = st.fixed_dictionaries(
    {"lr": rate, "momentum": momentum, "weight_decay": weight_decay, "maximize": switch},
    optional={"dampening": st.floats(0.0, 1.0)},
) | st.fixed_dictionaries(
    {
        "lr": rate,
        "momentum": st.floats(0.1, 0.95),
        "weight_decay": weight_decay,
        "nesterov": st.just(True),
        "maximize": switch,
    }
)
adagrad = st.fixed_dictionaries(
    {
        "lr": rate,
        "lr_decay": st.floats(0.0, 0.5),
        "weight_decay": weight_decay,
        "initial_accumulator_value": st.floats(0.0, 1.0),
        "eps": eps,
        "maximize": switch,
    }
)
rmsprop = st.fixed_dictionaries(
    {
        "lr": rate,
        "alpha": st.floats(0.9, 0.999),
        "eps": eps,
        "weight_decay": weight_decay,
        "momentum": momentum,
        "centered": switch,
        "maximize": switch,
    }
)
adam = st.fixed_dictionaries(
    {
        "lr": rate,
        "betas": st.tuples(beta, st.floats(0.8, 0.999)),
        "eps": eps,
        "weight_decay": weight_decay,
        "amsgrad": switch,
        "maximize": switch,
    }
)
betas = st.tuples(beta, st.floats(0.8, 0.999))
adamax = st.fixed_dictionaries(
    {"lr": rate, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": switch}
)
radam = st.fixed_dictionaries(
    {
        "lr": rate,
        "betas": betas,
        "eps": eps,
        "weight_decay": weight_decay,
        "decoupled_weight_decay": switch,
        "maximize": switch,
    }
)
nadam = st.fixed_dictionaries(
    {
        "lr": rate,
        "betas": betas,
        "eps": eps,
        "weight_decay": weight_decay,
        "momentum_decay": st.floats(1e-3, 0.5),
        "decoupled_weight_decay": switch,
        "maximize": switch,
    }
)
adadelta = st.fixed_dictionaries(
    {
        "lr": st.floats(0.1, 2.0),
        "rho": st.floats(0.5, 0.99),
        "eps": st.sampled_from([1e-8, 1e-6, 1e-3]),
        "weight_decay": weight_decay,
        "maximize": switch,
    }
)
rprop = st.fixed_dictionaries(
    {
        "lr": rate,
        "etas": st.tuples(st.floats(0.1, 0.9), st.floats(1.05, 2.0)),
        "step_sizes": st.tuples(st.sampled_from([1e-6, 1e-2]), st.sampled_from([2e-2, 50.0])),
        "maximize": switch,
    }
)
asgd = st.fixed_dictionaries(
    {
        "lr": rate,
        "lambd": st.floats(0.0, 0.5),
        "alpha": st.floats(0.0, 2.0),
        "t0": st.floats(0.0, 60.0),
        "weight_decay": weight_decay,
        "maximize": switch,
    }
)
arguments = {
    "ASGD": asgd,
    "SGD": sgd,
    "Adagrad": adagrad,
    "RMSprop": rmsprop,
    "Adam": adam,
    "AdamW": adam,
    "NAdam": nadam,
    "RAdam": radam,
    "Adamax": adamax,
    "Adadelta": adadelta,
    "Rprop": rprop,
}

schedules = st.one_of(
    st.none(),
    st.builds(
        Schedule,
        st.just("StepLR"),
        st.fixed_dictionaries({"step_size": st.integers(1, 60), "gamma": st.floats(0.5, 1.0)}),
    ),
    st.builds(
        Schedule,
        st.just("CosineAnnealingLR"),
        st.fixed_dictionaries({"T_max": st.integers(1, 60), "eta_min": st.floats(0.0, 1e-3)}),
    ),
    st.builds(
        Schedule,
        st.just("CosineAnnealingWarmRestarts"),
        st.fixed_dictionaries(
            {
                "T_0": st.integers(1, 30),
                "T_mult": st.integers(1, 3),
                "eta_min": st.floats(0.0, 1e-3),
            }
        ),
    ),
)


@jax.jit
def follow(tx: Any, path: Any, grads: Any) -> Any:
    """Where each step leads from each point of a path."""

    def step(state: Any, now: Any) -> Any:
        x, grad = now
        updates, state = tx.update(grad, state, x)
        return state, (gradtx.apply_updates(x, updates), mean_in(state))

    return jax.lax.scan(step, tx.init(path[0]), (path[:-1], grads))[1]


@pytest.mark.parametrize("name", arguments)
@few
@given(
    data=st.data(),
    scale=st.sampled_from(SCALES),
    dtype=st.sampled_from(["float64", "complex128"]),
)
def test_live_steps(name: str, data: st.DataObject, scale: float, dtype: str) -> None:
    """1e-12 of the step, and what is lost by adding it to a parameter."""
    pytest.importorskip("torch")
    from .make_golden import trajectory as reference

    case = Case(name, data.draw(arguments[name]), data.draw(schedules))
    path, grads, means = reference(case, scale, dtype)
    with jax.enable_x64(True):
        got, got_means = follow(optimizer(case), path, grads)
    assert got.dtype == dtype
    got, path = as_reals(np.asarray(got)), as_reals(path)
    assert (got_means is None) == (means is None)
    if means is not None:
        np.testing.assert_allclose(got_means, means, rtol=1e-12, atol=1e-12 * np.max(np.abs(means)))
    moved = np.abs(path[1:] - path[:-1])
    error = np.abs(got - path[1:])
    allowed = (1e-9 if name == "RAdam" else 1e-12) * moved + 1e-15 * np.abs(path[:-1])
    assert np.all(error <= allowed), (
        f"beyond the tolerance at [step, coordinate] {np.argwhere(~(error <= allowed))[0].tolist()}"
        f", by {np.max(error / np.maximum(allowed, 1e-300)):.3g} times"
    )


@few
@given(case=schedules.filter(lambda case: case is not None), lr=st.floats(1e-3, 10.0))
def test_live_rates(case: Schedule, lr: float) -> None:
    pytest.importorskip("torch")
    from .make_golden import rates as reference

    with jax.enable_x64(True):
        rate = schedule(case, lr)
        got = np.asarray(
            jax.jit(jax.vmap(lambda t: jnp.asarray(rate(t))))(jnp.arange(80, dtype=jnp.int32))
        )
    np.testing.assert_allclose(got, reference(case, lr, 80), rtol=1e-12, atol=1e-13 * lr)
