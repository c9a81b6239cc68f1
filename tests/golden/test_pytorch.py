"""gradtx.torch against PyTorch: recorded trajectories, and PyTorch itself where it is installed.

A recorded trajectory is a closed loop: fifty steps of an ill-conditioned problem, in which a
rounding of one step is carried on by the next. The tolerances are what that makes of roundings in
the last place; PyTorch's bias corrections, ``1 - beta ** step``, are rounded more than ours.

Live, with random arguments, a closed loop can be chaotic. There each step is compared from where
PyTorch stands, and nothing is carried on but the optimizer's state.
"""

import functools
import inspect
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


def assert_follows(path: np.ndarray, expected: Any, dtype: str) -> None:
    """To a part of each parameter, and to a tenth of that of its largest value so far."""
    expected = np.asarray(expected, np.float64)
    largest = np.maximum.accumulate(np.abs(expected), axis=0)
    allowed = TOLERANCES[dtype] * (np.abs(expected) + 0.1 * largest)
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
    assert_follows(path[at], recorded[f"{scale:g}"], dtype)
    assert (means is not None) == (f"{scale:g} mean" in recorded) == (name == "asgd")
    if means is not None:
        assert_follows(means[at], recorded[f"{scale:g} mean"], dtype)


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
    assert_follows(as_reals(path[at]), recorded["1"], PARTS[dtype])
    if means is not None:
        assert_follows(as_reals(means[at]), recorded["1 mean"], PARTS[dtype])


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
adam_alone = st.builds(
    lambda arguments, decoupled: arguments | {"decoupled_weight_decay": decoupled}, adam, switch
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
adafactor = st.fixed_dictionaries(
    {
        "lr": rate,
        "beta2_decay": st.floats(-1.0, -0.1),
        "eps": st.tuples(st.none() | st.floats(1e-8, 1e-2), st.floats(1e-4, 1e-1)),
        "d": st.floats(1.0, 3.0),
        "weight_decay": weight_decay,
        "maximize": switch,
    }
)
muon = st.fixed_dictionaries(
    {
        "lr": rate,
        "weight_decay": weight_decay,
        "momentum": st.floats(0.0, 0.95),
        "nesterov": switch,
        "eps": eps,
        "ns_steps": st.integers(0, 5),
        "adjust_lr_fn": st.sampled_from([None, "original", "match_rms_adamw"]),
    }
)
arguments = {
    "Adafactor": adafactor,
    "Muon": muon,
    "ASGD": asgd,
    "SGD": sgd,
    "Adagrad": adagrad,
    "RMSprop": rmsprop,
    "Adam": adam_alone,
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
        st.just("MultiStepLR"),
        st.fixed_dictionaries(
            {"milestones": st.lists(st.integers(0, 60), max_size=4), "gamma": st.floats(0.5, 1.0)}
        ),
    ),
    st.builds(
        Schedule,
        st.just("LinearLR"),
        st.fixed_dictionaries(
            {
                "start_factor": st.floats(0.01, 1.0),
                "end_factor": st.floats(0.0, 1.0),
                "total_iters": st.integers(0, 60),
            }
        ),
    ),
    st.builds(
        Schedule,
        st.just("PolynomialLR"),
        st.fixed_dictionaries({"total_iters": st.integers(0, 60), "power": st.floats(0.3, 3.0)}),
    ),
    st.builds(
        Schedule,
        st.just("CyclicLR"),
        st.fixed_dictionaries(
            {
                "base_lr": st.floats(1e-3, 1e-2),
                "max_lr": st.floats(1e-2, 1.0),
                "step_size_up": st.integers(1, 20),
                "step_size_down": st.none() | st.integers(1, 20),
                "mode": st.sampled_from(["triangular", "triangular2", "exp_range"]),
                "gamma": st.floats(0.9, 1.0),
                "cycle_momentum": st.just(False),
            }
        ),
    ),
    st.builds(
        Schedule,
        st.just("OneCycleLR"),
        st.fixed_dictionaries(
            {
                "max_lr": st.floats(1e-2, 1.0),
                "total_steps": st.integers(80, 120),
                "pct_start": st.floats(0.1, 0.4),
                "anneal_strategy": st.sampled_from(["cos", "linear"]),
                "cycle_momentum": st.just(False),
                "three_phase": switch,
            }
        ),
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
    if name in SHAPES:
        dtype = "float64"
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
    allowed = 1e-12 * moved + 1e-15 * np.abs(path[:-1])
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


CYCLES = {
    "cyclic": ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.3, "step_size_up": 5}),
    "cyclic, steep": (
        "CyclicLR",
        {"base_lr": 0.01, "max_lr": 0.3, "step_size_up": 5, "step_size_down": 3}
        | {"mode": "triangular2", "base_momentum": 0.1},
    ),
    "one cycle": ("OneCycleLR", {"max_lr": 0.3, "total_steps": 60}),
    "one cycle, three phases": (
        "OneCycleLR",
        {"max_lr": 0.3, "total_steps": 60, "three_phase": True, "anneal_strategy": "linear"},
    ),
}


@pytest.mark.parametrize("label", CYCLES)
def test_live_momentum(label: str) -> None:
    torch = pytest.importorskip("torch")
    name, arguments = CYCLES[label]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
    scheduler = getattr(torch.optim.lr_scheduler, name)(optimizer, **arguments)
    expected = []
    for _ in range(60):
        expected.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        scheduler.step()
    with jax.enable_x64(True):
        cycle = getattr(gradtx.torch, NAMES[name])(**arguments)
        np.testing.assert_allclose(cycle.momentum(jnp.arange(60)), expected, rtol=1e-12)
        assert cycle.momentum.momentum is None
        assert cycle.replace(cycle_momentum=False).momentum is None


def test_live_scale_function() -> None:
    torch = pytest.importorskip("torch")
    from .make_golden import rates as reference

    del torch
    for mode, function in (("cycle", lambda x: 1 / (1 + x)), ("iterations", lambda x: 0.9**x)):
        arguments = {"step_size_up": 4, "scale_fn": function, "scale_mode": mode}
        case = Schedule("CyclicLR", {"base_lr": 0.01, "max_lr": 0.3, **arguments})
        with jax.enable_x64(True):
            got = schedule(case, 0.1)(jnp.arange(40))
        np.testing.assert_allclose(got, reference(case, 0.1, 40), rtol=1e-12)


def test_one_cycle_needs_its_length() -> None:
    with pytest.raises(ValueError, match=r"torch\.one_cycle_lr: give total_steps, or both epochs"):
        gradtx.torch.one_cycle_lr(0.1, epochs=3)
    schedule = gradtx.torch.one_cycle_lr(1.0, 10, anneal_strategy="linear")
    assert float(schedule(11)) == pytest.approx(4e-6, rel=1e-2)  # where PyTorch raises


@few
@given(
    seed=st.integers(0, 99),
    arguments=st.fixed_dictionaries(
        {
            "mode": st.sampled_from(["min", "max"]),
            "factor": st.floats(0.0, 0.9),
            "patience": st.integers(0, 3),
            "threshold": st.sampled_from([0.0, 1e-4, 0.1]),
            "threshold_mode": st.sampled_from(["rel", "abs"]),
            "cooldown": st.integers(0, 3),
            "min_lr": st.sampled_from([0.0, 1e-3, 0.05]),
            "eps": st.sampled_from([0.0, 1e-8, 1e-2]),
        }
    ),
)
def test_live_plateau(seed: int, arguments: dict[str, Any]) -> None:
    """The rate that the metric of step t decides is that of step t + 1."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    metrics = np.exp(-np.arange(40) / 10) * (1 + 0.3 * rng.normal(size=40)) - 0.2
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **arguments)
    expected = []
    for metric in metrics:
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(metric)
    with jax.enable_x64(True):
        tx = gradtx.chain(
            gradtx.torch.sgd(0.1), gradtx.torch.reduce_lr_on_plateau(0.1, **arguments)
        )
        state = tx.init(jnp.zeros(1))

        def step(state: Any, metric: Any) -> Any:
            updates, state = tx.update(jnp.ones(1), state, value=metric)
            return state, -updates[0]

        got = jax.jit(lambda state: jax.lax.scan(step, state, jnp.asarray(metrics))[1])(state)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


OMITTED = {"params", "optimizer", "last_epoch"}
OMITTED |= {"foreach", "fused", "capturable", "differentiable"}


@pytest.mark.parametrize("name", [*DEFAULT_LR, *NAMES, "ReduceLROnPlateau"])
def test_live_signatures(name: str) -> None:
    """PyTorch's arguments in its order with its defaults; of a schedule the first rate besides."""
    torch = pytest.importorskip("torch")
    home = torch.optim if hasattr(torch.optim, name) else torch.optim.lr_scheduler
    theirs = inspect.signature(getattr(home, name)).parameters
    ours_name = NAMES.get(name, "reduce_lr_on_plateau" if name.startswith("Red") else name.lower())
    ours = dict(getattr(gradtx.torch, ours_name).signature.parameters)
    ours.pop("ns_dtype", None)
    if "lr" not in theirs:
        ours.pop("lr", None)
    expected = {k: p.default for k, p in theirs.items() if k not in OMITTED}
    assert list(ours) == list(expected)
    assert {k: p.default for k, p in ours.items()} == expected
