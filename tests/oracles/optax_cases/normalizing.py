"""Clipping by parts, normalising, and keeping out what is not wanted."""

from .case import Args, args

TRANSFORMATIONS: dict[str, list[Args]] = {
    "clip_by_block_rms": [args(1.0), args(0.1), args(1e6), args(0.5)],
    "adaptive_grad_clip": [
        args(0.1),
        args(1.0, 0.5),
        args(0.01, 1e-6),
        args(0.5, axis=()),
    ],
    "normalize": [args()],
    "normalize_by_update_norm": [args(), args(-0.5), args(2.0, 0.1), args(1.0, 0.0)],
    "centralize": [args()],
    "zero_nans": [args().but(states=False, why="its state is of booleans, which have no distance")],
    "keep_params_nonnegative": [args()],
    "apply_every": [
        case.but(states=False, why="Optax's count begins again in every cycle")
        for case in (args(), args(2), args(3), args(7))
    ],
}
