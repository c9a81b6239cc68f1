"""Trust ratios, and steps in proportion to the parameters."""

from .case import COSINE, LINEAR, MASK, Args, args, matrices

TRANSFORMATIONS: dict[str, list[Args]] = {
    "scale_by_trust_ratio": [args(), args(0.5), args(1.0, 0.1), args(0.0, 2.0, 1e-2)],
    "scale_by_param_block_norm": [args(), args(0.0), args(1.0), args(5.0)],
    "scale_by_param_block_rms": [args(), args(0.0), args(1.0), args(5.0)],
}

OPTIMIZERS: dict[str, list[Args]] = {
    "lamb": [
        args(0.05),
        args(0.05, 0.8, 0.99, 1e-3, 1e-6, 0.1),
        args(COSINE, weight_decay=0.1, mask=matrices),
        args(0.05, weight_decay=LINEAR, mask=MASK),
    ],
    "lars": [
        args(0.5),
        args(0.5, 0.1, MASK, 0.01, 1e-3, matrices, 0.5, True),
        args(COSINE, weight_decay=0.1, trust_coefficient=1.0),
        args(0.1, momentum=0.0, trust_ratio_mask=False),
    ],
    "fromage": [
        args(0.05).but(narrow_rtol=3e-6, why="the rounding of a norm moves its whole array"),
        args(0.1, 1.0),
        args(COSINE),
        args(0.5, min_norm=0.0),
    ],
}
