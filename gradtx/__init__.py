"""Gradient transformations for JAX: optimizers as values."""

from gradtx import schedules, torch, tree
from gradtx.combinators.accumulate import AccumulateState, accumulate
from gradtx.combinators.chain import chain, named_chain
from gradtx.combinators.masked import MaskedState, masked
from gradtx.combinators.multi_steps import MultiSteps, MultiStepsState, multi_steps
from gradtx.combinators.stateless import (
    identity,
    set_to_zero,
    stateless,
    stateless_with_tree_map,
)
from gradtx.core.apply import apply_updates
from gradtx.core.decorators import per_leaf, per_tree, recipe
from gradtx.core.definition import schedule
from gradtx.core.kinds import (
    Decay,
    DType,
    Fraction,
    NonNegative,
    Positive,
    PositiveSteps,
    Real,
    Steps,
)
from gradtx.core.mask import MaskedNode, matching
from gradtx.core.numerics import zeros_like
from gradtx.core.rule import Rule, Step
from gradtx.core.schedule import Schedule
from gradtx.core.state import (
    Count,
    EmptyState,
    LeafState,
    OptState,
    Params,
    ScaleByScheduleState,
    ScheduledState,
    Updates,
)
from gradtx.core.transformation import GradientTransformation
from gradtx.optimizers import (
    adagrad,
    adam,
    adamw,
    amsgrad,
    maximize,
    nadam,
    nadamw,
    rmsprop,
    sgd,
)
from gradtx.schedules import (
    constant_schedule,
    cosine_annealing_schedule,
    cosine_decay_schedule,
    cosine_onecycle_schedule,
    exponential_decay,
    inverse_time_decay_schedule,
    join_schedules,
    linear_onecycle_schedule,
    linear_schedule,
    piecewise_constant_schedule,
    piecewise_interpolate_schedule,
    polynomial_schedule,
    sgdr_schedule,
    warm_restarts_schedule,
    warmup_constant_schedule,
    warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule,
)
from gradtx.transforms.adam import (
    ScaleByAdamState,
    ScaleByAmsgradState,
    scale_by_adam,
    scale_by_amsgrad,
)
from gradtx.transforms.clipping import clip, clip_by_global_norm
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.momentum import (
    DampenedTraceState,
    EmaState,
    TraceState,
    ema,
    lookahead_point,
    scale_by_momentum,
    trace,
)
from gradtx.transforms.scaling import scale, scale_by_learning_rate, scale_by_schedule
from gradtx.transforms.second_moment import (
    ScaleByRmsState,
    ScaleByRmsWithCountState,
    ScaleByRssState,
    ScaleByRStdDevState,
    ScaleByRStdDevWithCountState,
    scale_by_rms,
    scale_by_rss,
    scale_by_stddev,
)
from gradtx.tree import global_norm

__version__ = "0.1.0"

__all__ = [
    "AccumulateState",
    "Count",
    "DType",
    "DampenedTraceState",
    "Decay",
    "EmaState",
    "EmptyState",
    "Fraction",
    "GradientTransformation",
    "LeafState",
    "MaskedNode",
    "MaskedState",
    "MultiSteps",
    "MultiStepsState",
    "NonNegative",
    "OptState",
    "Params",
    "Positive",
    "PositiveSteps",
    "Real",
    "Rule",
    "ScaleByAdamState",
    "ScaleByAmsgradState",
    "ScaleByRStdDevState",
    "ScaleByRStdDevWithCountState",
    "ScaleByRmsState",
    "ScaleByRmsWithCountState",
    "ScaleByRssState",
    "ScaleByScheduleState",
    "Schedule",
    "ScheduledState",
    "Step",
    "Steps",
    "TraceState",
    "Updates",
    "accumulate",
    "adagrad",
    "adam",
    "adamw",
    "add_decayed_weights",
    "amsgrad",
    "apply_updates",
    "chain",
    "clip",
    "clip_by_global_norm",
    "constant_schedule",
    "cosine_annealing_schedule",
    "cosine_decay_schedule",
    "cosine_onecycle_schedule",
    "ema",
    "exponential_decay",
    "global_norm",
    "identity",
    "inverse_time_decay_schedule",
    "join_schedules",
    "linear_onecycle_schedule",
    "linear_schedule",
    "lookahead_point",
    "masked",
    "matching",
    "maximize",
    "multi_steps",
    "nadam",
    "nadamw",
    "named_chain",
    "per_leaf",
    "per_tree",
    "piecewise_constant_schedule",
    "piecewise_interpolate_schedule",
    "polynomial_schedule",
    "recipe",
    "rmsprop",
    "scale",
    "scale_by_adam",
    "scale_by_amsgrad",
    "scale_by_learning_rate",
    "scale_by_momentum",
    "scale_by_rms",
    "scale_by_rss",
    "scale_by_schedule",
    "scale_by_stddev",
    "schedule",
    "schedules",
    "set_to_zero",
    "sgd",
    "sgdr_schedule",
    "stateless",
    "stateless_with_tree_map",
    "torch",
    "trace",
    "tree",
    "warm_restarts_schedule",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
    "zeros_like",
]
