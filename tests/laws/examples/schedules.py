"""Schedules."""

import gradtx
from gradtx import torch as gt

from .example import S, ScheduleExample

LINE, WAVE = gradtx.linear_schedule(0.5, 0.1, 10), gradtx.cosine_decay_schedule(0.5, 10)

SCHEDULES: tuple[ScheduleExample, ...] = (
    S("constant_schedule", "default", lambda: gradtx.constant_schedule(0.5), "value"),
    S("polynomial_schedule", "square", lambda: gradtx.polynomial_schedule(0.5, 0.1, 2, 10)),
    S("polynomial_schedule", "root", lambda: gradtx.polynomial_schedule(0.5, 0.1, 0.5, 10, 3)),
    S("linear_schedule", "default", lambda: gradtx.linear_schedule(0.5, 0.1, 10)),
    S("linear_schedule", "no steps", lambda: gradtx.linear_schedule(0.5, 0.1, 0)),
    S("exponential_decay", "default", lambda: gradtx.exponential_decay(0.5, 4, 0.5)),
    S(
        "exponential_decay",
        "staircase with an end",
        lambda: gradtx.exponential_decay(0.5, 4, 0.5, 2, True, 0.2),
    ),
    S(
        "inverse_time_decay_schedule",
        "default",
        lambda: gradtx.inverse_time_decay_schedule(0.5, 0.1),
    ),
    S(
        "cosine_annealing_schedule",
        "default",
        lambda: gradtx.cosine_annealing_schedule(0.5, 8, 0.1),
    ),
    S("cosine_decay_schedule", "default", lambda: gradtx.cosine_decay_schedule(0.5, 10)),
    S(
        "cosine_decay_schedule",
        "exponent",
        lambda: gradtx.cosine_decay_schedule(0.5, 10, 0.1, 1.5),
    ),
    S(
        "warm_restarts_schedule",
        "doubling",
        lambda: gradtx.warm_restarts_schedule(0.5, 4, 2, 0.1),
    ),
    S("warm_restarts_schedule", "equal", lambda: gradtx.warm_restarts_schedule(0.5, 4)),
    S(
        "warmup_constant_schedule",
        "default",
        lambda: gradtx.warmup_constant_schedule(0.1, 0.5, 5),
    ),
    S(
        "warmup_cosine_decay_schedule",
        "default",
        lambda: gradtx.warmup_cosine_decay_schedule(0.1, 0.5, 5, 12, 0.05),
    ),
    S(
        "warmup_exponential_decay_schedule",
        "default",
        lambda: gradtx.warmup_exponential_decay_schedule(0.1, 0.5, 5, 4, 0.5),
    ),
    S(
        "sgdr_schedule",
        "two cycles",
        lambda: gradtx.sgdr_schedule(
            [
                {"init_value": 0.1, "peak_value": 0.5, "warmup_steps": 2, "decay_steps": 6},
                {"init_value": 0.2, "peak_value": 0.4, "warmup_steps": 3, "decay_steps": 8},
            ]
        ),
        None,
    ),
    S(
        "join_schedules",
        "default",
        lambda: gradtx.join_schedules(
            (gradtx.linear_schedule(0.1, 0.5, 4), gradtx.exponential_decay(0.5, 4, 0.5)), (5,)
        ),
        None,
    ),
    S(
        "piecewise_constant_schedule",
        "default",
        lambda: gradtx.piecewise_constant_schedule(0.5, {4: 0.5, 8: 0.1}),
    ),
    S(
        "piecewise_interpolate_schedule",
        "linear",
        lambda: gradtx.piecewise_interpolate_schedule("linear", 0.5, {4: 0.5, 8: 0.1}),
    ),
    S(
        "piecewise_interpolate_schedule",
        "cosine",
        lambda: gradtx.piecewise_interpolate_schedule("cosine", 0.5, {4: 0.5, 8: 0.1}),
    ),
    S(
        "linear_onecycle_schedule",
        "default",
        lambda: gradtx.linear_onecycle_schedule(20, 0.5),
        "peak_value",
    ),
    S(
        "cosine_onecycle_schedule",
        "default",
        lambda: gradtx.cosine_onecycle_schedule(20, 0.5),
        "peak_value",
    ),
    S("wsd_schedule", "default", lambda: gradtx.wsd_schedule(0.1, 0.5, 4, 3, 6)),
    S(
        "wsd_schedule",
        "cosine",
        lambda: gradtx.wsd_schedule(0.1, 0.5, 0, 3, 6, 0.05, "cosine"),
        "end_value",
    ),
    S("wsd_schedule", "sqrt", lambda: gradtx.wsd_schedule(0.1, 0.5, 4, 0, 6, 0.05, "sqrt")),
    S("inverse_sqrt_schedule", "default", lambda: gradtx.inverse_sqrt_schedule(0.1, 0.5, 5)),
    S(
        "inverse_sqrt_schedule",
        "timescale",
        lambda: gradtx.inverse_sqrt_schedule(0.1, 0.5, 5, 100),
    ),
    S("cyclic_schedule", "default", lambda: gradtx.cyclic_schedule(0.1, 0.5, 4)),
    S(
        "cyclic_schedule",
        "halving",
        lambda: gradtx.cyclic_schedule(0.1, 0.5, 4, 2, "triangular2"),
    ),
    S(
        "cyclic_schedule",
        "decaying",
        lambda: gradtx.cyclic_schedule(0.1, 0.5, 4, 2, "exp_range", 0.9),
    ),
    S(
        "precond_update_prob_schedule",
        "soon falling",
        lambda: gradtx.precond_update_prob_schedule(0.9, 0.2, 0.3, 2),
        "max_prob",
    ),
    # -- arithmetic ------------------------------------------------------------------------------
    S("Schedule", "sum", lambda: 0.1 + LINE, "left", infix=True),
    S("Schedule", "difference", lambda: 1.0 - LINE, "left", infix=True),
    S("Schedule", "product", lambda: 0.5 * LINE, "left", infix=True),
    S("Schedule", "product of schedules", lambda: LINE * WAVE, None, infix=True),
    S("Schedule", "quotient", lambda: LINE / 2.0, "right", infix=True),
    S("Schedule", "square", lambda: LINE**2, None, infix=True),
    S("Schedule", "power of a number", lambda: 2.0**LINE, "left", infix=True),
    S("Schedule", "power of schedules", lambda: (LINE + WAVE) ** -WAVE, None, infix=True),
    S("Schedule", "negative", lambda: -(LINE + WAVE), None, infix=True),
    S("Schedule", "clip", lambda: LINE.clip(0.45, 0.9), "low", infix=True),
    S("Schedule", "clip to a schedule", lambda: (2 * LINE).clip(high=WAVE), None, infix=True),
    S("Schedule", "shift", lambda: WAVE.shift(2), None, infix=True),
    S("torch.step_lr", "default", lambda: gt.step_lr(0.5, 4), "lr"),
    S("torch.multi_step_lr", "default", lambda: gt.multi_step_lr(0.5, (2, 5)), "lr"),
    S("torch.constant_lr", "default", lambda: gt.constant_lr(0.5), "lr"),
    S("torch.linear_lr", "default", lambda: gt.linear_lr(0.5), "lr"),
    S("torch.exponential_lr", "default", lambda: gt.exponential_lr(0.5, 0.9), "lr"),
    S("torch.polynomial_lr", "square", lambda: gt.polynomial_lr(0.5, 10, 2.0), "lr"),
    S("torch.cyclic_lr", "default", lambda: gt.cyclic_lr(0.1, 0.5, 4), "base_lr"),
    S("torch.cyclic_lr", "range", lambda: gt.cyclic_lr(0.1, 0.5, 4, 2, "exp_range", 0.9), "max_lr"),
    S("torch.one_cycle_lr", "default", lambda: gt.one_cycle_lr(0.5, 20), "max_lr"),
    S(
        "torch.one_cycle_lr",
        "three phases",
        lambda: gt.one_cycle_lr(0.5, 20, anneal_strategy="linear", three_phase=True),
        "max_lr",
    ),
    S(
        "torch.sequential_lr",
        "default",
        lambda: gt.sequential_lr((gt.linear_lr(0.5), gt.exponential_lr(0.5, 0.9)), (5,)),
        None,
    ),
    S("torch.cosine_annealing_lr", "default", lambda: gt.cosine_annealing_lr(0.5, 8, 0.1), "lr"),
    S(
        "torch.cosine_annealing_warm_restarts",
        "doubling",
        lambda: gt.cosine_annealing_warm_restarts(0.5, 4, 2, 0.1),
        "lr",
    ),
)
