"""Functions of the step."""

from .case import COSINE, LINEAR, Args, Both, args

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
