"""Bad hyperparameters are refused where they are given, by name."""

import inspect
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import GradientTransformation, Schedule
from gradtx.core.hyperparameters import Numbers
from gradtx.core.value import thaw

from .registry import EXAMPLES, SCHEDULES, definitions

# Numbers just outside of what an argument may be, written down here and not read off the library.
OUTSIDE: dict[str, tuple[float, ...]] = {
    **dict.fromkeys(
        (
            "b1",
            "b2",
            "b3",
            "b1_1d",
            "b2_1d",
            "shampoo_beta",
            "grafting_b2",
            "rho",
            "alpha_of_rmsprop",
            "beta_of_signum",
        ),
        (-0.1, 1.0, 1.5),
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
            "grafting_eps",
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
            "eps_instability",
            "clip",
            "learning_rate_1d",
            "weight_decay_1d",
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
    **dict.fromkeys(("b2_of_sm3", "b2_of_shampoo"), (-0.1, 1.1)),
    **dict.fromkeys(("k",), (0, -1)),
    **dict.fromkeys(
        ("preconditioner_update_probability", "max_prob", "min_prob"), (-0.1, 0.0, 1.1)
    ),
    **dict.fromkeys(("precond_lr", "precond_init_scale"), (0.0, -1.0)),
    **dict.fromkeys(("flat_start", "decay_of_an_exponential"), (-1,)),
    **dict.fromkeys(("beta_of_muon", "adam_b1", "adam_b2"), (-0.1, 1.0)),
    **dict.fromkeys(("alpha_of_cocob", "patience", "cooldown", "accumulation_size"), (-1,)),
    **dict.fromkeys(("atol", "max_learning_rate", "scaling", "estim_lr_coef"), (-0.1,)),
    **dict.fromkeys(("init_estim_sq_dist", "reps_rel", "clip_threshold"), (-0.1,)),
    **dict.fromkeys(("weight_lr_power",), (-0.1,)),
    **dict.fromkeys(("beta", "beta3"), (-0.1, 1.0)),
    **dict.fromkeys(("b1_of_schedule_free", "factor"), (-0.1, 0.0, 1.1)),
    **dict.fromkeys(("rtol",), (-0.1, 1.1)),
    **dict.fromkeys(("estim_lr0", "s_init", "eps_of_shampoo"), (0.0, -1.0)),
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
    # PyTorch's.
    **dict.fromkeys(("beta2_decay",), (0.1,)),
    **dict.fromkeys(("d",), (0.5,)),
    **dict.fromkeys(("min_lr", "base_lr", "max_lr"), (-0.1,)),
    **dict.fromkeys(("start_factor", "end_factor"), (-0.1, 1.5)),
    **dict.fromkeys(("total_iters",), (-1,)),
    **dict.fromkeys(("step_size_up", "step_size_down", "total_steps"), (0, -1)),
    **dict.fromkeys(("epochs", "steps_per_epoch"), (0, -1)),
    **dict.fromkeys(("base_momentum", "max_momentum"), (-0.1,)),
    **dict.fromkeys(("factor_in_pytorch",), (-0.1, 1.5)),
    # Cycles.
    **dict.fromkeys(("stable_steps",), (-1,)),
    **dict.fromkeys(("timescale", "up_steps", "down_steps"), (0, -1)),
}
# Names that mean something else in one place.
ALIASES = {
    ("precond_update_prob_schedule", "decay"): "decay_of_an_exponential",
    **{
        (name, argument): f"{argument}_of_shampoo"
        for name in ("scale_by_shampoo", "shampoo")
        for argument in ("b2", "eps")
    },
    ("scale_by_backtracking_linesearch", "rtol"): "slope_rtol",
    ("cocob", "alpha"): "alpha_of_cocob",
    ("scale_by_cocob", "alpha"): "alpha_of_cocob",
    ("schedule_free", "b1"): "b1_of_schedule_free",
    ("schedule_free_adamw", "b1"): "b1_of_schedule_free",
    ("schedule_free_sgd", "b1"): "b1_of_schedule_free",
    ("torch.rmsprop", "alpha"): "alpha_of_rmsprop",
    ("torch.asgd", "alpha"): "alpha_of_asgd",
    ("torch.reduce_lr_on_plateau", "factor"): "factor_in_pytorch",
    ("torch.constant_lr", "factor"): "factor_in_pytorch",
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


def constructions() -> Iterator[tuple[str, Any]]:
    """The public definitions, each with a call that works."""
    for kind, examples in ((GradientTransformation, EXAMPLES), (Schedule, SCHEDULES)):
        for name, _ in definitions(kind):
            yield name, next(e for e in examples if e.name == name).make()


def scalar_arguments(name: str, tx: Any) -> list[str]:
    """The arguments of a public definition that are one number each."""
    if name in ("join_schedules", "accumulate", "multi_steps", "lookahead"):
        return []  # no number among their arguments
    definition, given = tx.definition, dict(tx.arguments)
    numbers = filter(definition.is_number, definition.parameters)
    return [argument for argument in numbers if not isinstance(given[argument], dict | tuple)]


SCALARS = {
    name: (tx, found) for name, tx in constructions() if (found := scalar_arguments(name, tx))
}
with_numbers = pytest.mark.parametrize("name", SCALARS)


def refused(tx: Any, argument: str, value: Any, error: type[Exception]) -> None:
    try:
        tx.replace(**{argument: value})
    except error as raised:
        text = str(raised)
    else:
        pytest.fail(f"{tx.definition.name}: {argument}={value!r} is not refused")
    assert text.startswith(f"{tx.definition.name}: {argument} must be ")
    if not isinstance(value, list):
        assert str(value).strip("()") in text


@with_numbers
def test_numbers_outside_are_refused_by_name(name: str) -> None:
    tx, arguments = SCALARS[name]
    for argument in arguments:
        key = ALIASES.get((name, argument), argument)
        assert key in OUTSIDE, f"say in OUTSIDE what {argument} may not be"
        for value in OUTSIDE[key]:
            refused(tx, argument, value, ValueError)
            refused(tx, argument, np.float64(value), ValueError)
            refused(tx, argument, jnp.asarray(value, jnp.float32), ValueError)


@with_numbers
def test_what_is_no_number_is_refused_by_name(name: str) -> None:
    tx, arguments = SCALARS[name]
    for argument in arguments:
        parameter = inspect.signature(tx.definition).parameters[argument]
        optional = parameter.default is None or "None" in str(parameter.annotation)
        for bad, error in BAD:
            if isinstance(bad, float) and bad == float("inf") and argument in MAY_BE_INFINITE:
                continue
            if bad is not None or not optional:
                refused(tx, argument, bad, error)


def test_every_number_is_tried() -> None:
    """So that a law over no arguments at all would be noticed."""
    assert sum(len(arguments) for _, arguments in SCALARS.values()) > 500
    with pytest.raises(pytest.fail.Exception, match=r"sgd: learning_rate=0.5 is not refused"):
        refused(gradtx.sgd(0.1), "learning_rate", 0.5, ValueError)


def test_numbers_inside_tuples_and_dicts_are_checked() -> None:
    with pytest.raises(ValueError, match=r"adam: betas must be in \[0, 1\), got 1.5"):
        gradtx.torch.adam(betas=(0.9, 1.5))
    with pytest.raises(ValueError, match="piecewise_constant_schedule: boundaries_and_scales must"):
        gradtx.piecewise_constant_schedule(0.1, {3: -1.0})
    with pytest.raises(ValueError, match="join_schedules: boundaries must be finite"):
        gradtx.join_schedules((gradtx.constant_schedule(0.1),) * 2, (-1,))


def test_a_container_of_numbers_is_announced() -> None:
    """By the annotation, which says what is in it, or by a name of its own."""
    containers = {
        f"{name}: {argument}": definition.signature.parameters[argument].annotation
        for kind in (GradientTransformation, Schedule)
        for name, definition in definitions(kind)
        for argument, found in definition.parameters.items()
        if isinstance(found, Numbers)
    }
    assert len(containers) > 10
    announced = ("tuple[", "Mapping[", "Coefficients", "Boundaries")
    assert not {which: said for which, said in containers.items() if not said.startswith(announced)}


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
    for _, tx in constructions():
        for argument in tx.definition.parameters:
            held = thaw(tx.arguments[argument])
            assert getattr(tx, argument) is held or getattr(tx, argument) == held


def test_flags_are_true_or_false() -> None:
    tried = 0
    for _, tx in constructions():
        for argument, parameter in inspect.signature(tx.definition.function).parameters.items():
            if parameter.annotation in (bool, "bool"):
                tried += 1
                for bad in (None, 1, "yes", jnp.asarray(True)):
                    refused(tx, argument, bad, TypeError)
                assert tx.replace(**{argument: np.bool_(getattr(tx, argument))}) == tx
    assert tried > 70


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
