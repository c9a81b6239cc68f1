"""Bad hyperparameters are refused where they are given, by name."""

import inspect
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import GradientTransformation, Schedule
from gradtx.core.kinds import Numbers
from gradtx.core.value import thaw

from .registry import EXAMPLES, SCHEDULES, definitions

# Numbers just outside of what an argument may be, written down here and not read off the library.
OUTSIDE: dict[str, tuple[float, ...]] = {
    **dict.fromkeys(
        ("b1", "b2", "b3", "rho", "alpha_of_rmsprop", "beta_of_signum"), (-0.1, 1.0, 1.5)
    ),
    **dict.fromkeys(("decay", "momentum", "dampening", "pct_start", "pct_final"), (-0.1, 1.1)),
    **dict.fromkeys(("eta_minus",), (-0.1, 1.1)),
    **dict.fromkeys(
        (
            "learning_rate",
            "lr",
            "lr_decay",
            "eps",
            "eps_root",
            "weight_decay",
            "initial_scale",
            "initial_accumulator_value",
            "max_delta",
            "max_norm",
            "decay_rate",
            "gamma",
            "power",
            "eta_min",
            "min_norm",
            "min_scale",
            "trust_coefficient",
            "threshold",
            "clipping",
            "clipping_threshold",
            "weight_decay_rate",
            "momentum_decay",
            "alpha_of_ademamix",
            "min_step_size",
            "max_step_size",
            "clip_value_fn",
            "epsilon",
            "adam_eps_root",
            "adam_weight_decay",
            "adam_learning_rate",
            "consistent_rms",
            "eta",
            "l2_norm_clip",
            "lambd",
            "t0",
            "alpha_of_asgd",
            "noise_multiplier",
        ),
        (-0.1,),
    ),
    **dict.fromkeys(("exponent", "div_factor", "final_div_factor", "smooth_beta"), (0.0, -1.0)),
    **dict.fromkeys(("transition_steps", "warmup_steps", "transition_begin"), (-1,)),
    **dict.fromkeys(("decay_steps", "half_period", "first_period"), (0, -1)),
    **dict.fromkeys(("step_size", "T_max", "T_0"), (0, -1)),
    **dict.fromkeys(("T_mult", "period_multiplier", "eta_plus"), (0.5, -1)),
    **dict.fromkeys(("b2_of_sm3",), (-0.1, 1.1)),
    **dict.fromkeys(("k",), (0, -1)),
    **dict.fromkeys(("beta_of_muon", "adam_b1", "adam_b2"), (-0.1, 1.0)),
    **dict.fromkeys(("alpha_of_cocob", "patience", "cooldown", "accumulation_size"), (-1,)),
    **dict.fromkeys(("atol", "max_learning_rate", "scaling", "estim_lr_coef"), (-0.1,)),
    **dict.fromkeys(("init_estim_sq_dist", "reps_rel", "clip_threshold"), (-0.1,)),
    **dict.fromkeys(("weight_lr_power",), (-0.1,)),
    **dict.fromkeys(("beta", "beta3"), (-0.1, 1.0)),
    **dict.fromkeys(("b1_of_schedule_free", "factor"), (-0.1, 0.0, 1.1)),
    **dict.fromkeys(("rtol",), (-0.1, 1.1)),
    **dict.fromkeys(("estim_lr0", "s_init"), (0.0, -1.0)),
    **dict.fromkeys(("max_consecutive_errors", "floor", "slow_step_size"), (-0.1,)),
    **dict.fromkeys(("init_scale", "max_scale", "growth_interval"), (0.0, -1.0)),
    **dict.fromkeys(("growth_factor", "backoff_factor"), (0.0, -1.0)),
    # Any finite number.
    **dict.fromkeys(("f_min", "lower_bound", "global_scale"), ()),
    **dict.fromkeys(("scale", "scale_factor", "decay_offset", "step_offset"), ()),
    **dict.fromkeys(("init_value", "peak_value", "end_value", "value", "alpha"), ()),
    **dict.fromkeys(("step_size_of_scale", "step_size_fn", "beta", "optimism"), ()),
    # Line searches.
    **dict.fromkeys(("slope_rtol", "tol", "curv_rtol", "approx_dec_rtol"), (-0.1,)),
    **dict.fromkeys(("stepsize_precision",), (-0.1,)),
    **dict.fromkeys(("decrease_factor",), (0.0, 1.0)),
    **dict.fromkeys(("increase_factor",), (0.0, -1.0)),
    # Cycles.
    **dict.fromkeys(("stable_steps",), (-1,)),
    **dict.fromkeys(("timescale", "up_steps", "down_steps"), (0, -1)),
}
# Names that mean something else in one place.
ALIASES = {
    ("scale_by_backtracking_linesearch", "rtol"): "slope_rtol",
    ("cocob", "alpha"): "alpha_of_cocob",
    ("scale_by_cocob", "alpha"): "alpha_of_cocob",
    ("schedule_free", "b1"): "b1_of_schedule_free",
    ("schedule_free_adamw", "b1"): "b1_of_schedule_free",
    ("schedule_free_sgd", "b1"): "b1_of_schedule_free",
    ("torch.rmsprop", "alpha"): "alpha_of_rmsprop",
    ("torch.asgd", "alpha"): "alpha_of_asgd",
    ("scale_by_asgd", "alpha"): "alpha_of_asgd",
    ("scale", "step_size"): "step_size_of_scale",
    ("signum", "beta"): "beta_of_signum",
    ("scale_by_ademamix", "alpha"): "alpha_of_ademamix",
    ("ademamix", "alpha"): "alpha_of_ademamix",
    ("scale_by_simplified_ademamix", "alpha"): "alpha_of_ademamix",
    ("simplified_ademamix", "alpha"): "alpha_of_ademamix",
    ("scale_by_sm3", "b2"): "b2_of_sm3",
    ("muon", "beta"): "beta_of_muon",
    ("scale_by_muon", "beta"): "beta_of_muon",
}
# Where infinity has a meaning: no limit, or a criterion that always holds.
MAY_BE_INFINITE = ("increase_factor", "curv_rtol")
BAD = [
    (float("nan"), ValueError),
    (float("inf"), ValueError),
    (np.float32("nan"), ValueError),
    (jnp.float32("nan"), ValueError),
    ("0.1", TypeError),
    (True, TypeError),
    (None, TypeError),
    ([object()], TypeError),
    (0.1 + 1j, TypeError),
    # A container, although of good numbers: only where the annotation says so.
    ((0.5, 0.5), TypeError),
    ([0.5], TypeError),
    ({"a": 0.5}, TypeError),
]


def scalar_arguments() -> list[Any]:
    """Every argument of a public definition that is one number, with a call that works."""
    found = []
    for kind, examples in ((GradientTransformation, EXAMPLES), (Schedule, SCHEDULES)):
        for name, definition in definitions(kind):
            if name in ("join_schedules", "accumulate", "multi_steps", "lookahead"):
                continue  # no number among their arguments
            tx = next(e for e in examples if e.name == name).make()
            for argument in filter(definition.is_number, definition.parameters):
                given = dict(tx.arguments)[argument]
                if isinstance(given, dict | tuple):
                    continue
                found.append(pytest.param(name, argument, tx, id=f"{name}-{argument}"))
    return found


numeric = pytest.mark.parametrize(("name", "argument", "tx"), scalar_arguments())


def refused(tx: Any, argument: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error) as raised:
        tx.replace(**{argument: value})
    assert str(raised.value).startswith(f"{tx.definition.name}: {argument} must be ")
    if not isinstance(value, list):
        assert str(value).strip("()") in str(raised.value)


@numeric
def test_numbers_outside_are_refused_by_name(name: str, argument: str, tx: Any) -> None:
    key = ALIASES.get((name, argument), argument)
    assert key in OUTSIDE, f"say in OUTSIDE what {argument} may not be"
    for value in OUTSIDE[key]:
        refused(tx, argument, value, ValueError)
        refused(tx, argument, np.float64(value), ValueError)
        refused(tx, argument, jnp.asarray(value, jnp.float32), ValueError)


@numeric
def test_what_is_no_number_is_refused_by_name(name: str, argument: str, tx: Any) -> None:
    parameter = inspect.signature(tx.definition).parameters[argument]
    optional = parameter.default is None or "None" in str(parameter.annotation)
    for bad, error in BAD:
        if isinstance(bad, float) and bad == float("inf") and argument in MAY_BE_INFINITE:
            continue
        if bad is not None or not optional:
            refused(tx, argument, bad, error)


def test_numbers_inside_tuples_and_dicts_are_checked() -> None:
    with pytest.raises(ValueError, match=r"adam: betas must be in \[0, 1\), got 1.5"):
        gradtx.torch.adam(betas=(0.9, 1.5))
    with pytest.raises(ValueError, match="piecewise_constant_schedule: boundaries_and_scales must"):
        gradtx.piecewise_constant_schedule(0.1, {3: -1.0})
    with pytest.raises(ValueError, match="join_schedules: boundaries must be finite"):
        gradtx.join_schedules((gradtx.constant_schedule(0.1),) * 2, (-1,))


CONTAINERS = [
    pytest.param(name, argument, id=f"{name}-{argument}")
    for kind in (GradientTransformation, Schedule)
    for name, definition in definitions(kind)
    for argument, found in definition.parameters.items()
    if isinstance(found, Numbers)
]


@pytest.mark.parametrize(("name", "argument"), CONTAINERS)
def test_a_container_of_numbers_is_announced(name: str, argument: str) -> None:
    """By the annotation, which says what is in it, or by a name of its own."""
    kinds = ((GradientTransformation, definitions), (Schedule, definitions))
    definition = next(d for kind, all_of in kinds for n, d in all_of(kind) if n == name)
    annotation = str(inspect.signature(definition).parameters[argument].annotation)
    assert annotation.startswith(("tuple[", "Mapping[", "Coefficients", "Boundaries"))


@pytest.mark.parametrize(
    "betas", [0.9, (0.9,), (0.9, 0.99, 0.999), {"b1": 0.9}, jnp.asarray(0.9), lambda step: 0.9]
)
def test_a_tuple_of_two_numbers_has_two(betas: Any) -> None:
    for optimizer in (gradtx.torch.adam, gradtx.torch.adamw, gradtx.dadapt_adamw, gradtx.prodigy):
        with pytest.raises(TypeError, match=r"\w+: betas must be a tuple of 2 numbers, got "):
            optimizer(betas=betas)
    for good in ([0.9, 0.99], jnp.asarray([0.9, 0.99]), (gradtx.constant_schedule(0.9), 0.99)):
        gradtx.torch.adam(betas=good)


def test_every_argument_can_be_read() -> None:
    """No attribute of the value stands before it."""
    for kind, examples in ((GradientTransformation, EXAMPLES), (Schedule, SCHEDULES)):
        for name, definition in definitions(kind):
            tx = next(e for e in examples if e.name == name).make()
            for argument in definition.parameters if tx.definition is definition else ():
                assert getattr(tx, argument) is thaw(tx.arguments[argument]) or (
                    getattr(tx, argument) == thaw(tx.arguments[argument])
                )


def flags() -> list[Any]:
    """Every flag of a public definition."""
    found = []
    for name, definition in definitions(GradientTransformation):
        tx = next(e for e in EXAMPLES if e.name == name).make()
        for argument, parameter in inspect.signature(definition.function).parameters.items():
            if parameter.annotation in (bool, "bool") and tx.definition is definition:
                found.append(pytest.param(argument, tx, id=f"{name}-{argument}"))
    return found


@pytest.mark.parametrize(("argument", "tx"), flags())
def test_flags_are_true_or_false(argument: str, tx: Any) -> None:
    for bad in (None, 1, "yes", jnp.asarray(True)):
        refused(tx, argument, bad, TypeError)
    assert tx.replace(**{argument: np.bool_(getattr(tx, argument))}) == tx


@pytest.mark.parametrize("argument", ["mu_dtype", "nu_dtype"])
def test_dtypes_are_dtypes(argument: str) -> None:
    with pytest.raises(TypeError, match=f"adam: {argument} must be a dtype"):
        gradtx.adam(0.1, **{argument: "float33"})
    by_name, by_class = (gradtx.adam(0.1, **{argument: x}) for x in ("bfloat16", jnp.bfloat16))
    assert by_name == by_class


def test_missing_and_surplus_arguments_are_named() -> None:
    with pytest.raises(TypeError, match=r"sgd: missing .*learning_rate.*it takes learning_rate"):
        gradtx.sgd()
    with pytest.raises(TypeError, match=r"sgd: .*surely_not.*it takes learning_rate, momentum"):
        gradtx.sgd(0.1, surely_not=1)
