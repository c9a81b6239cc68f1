"""Signs."""

from .case import COSINE, LINEAR, Args, args, matrices

TRANSFORMATIONS: dict[str, list[Args]] = {
    "scale_by_sign": [args()],
    "scale_by_lion": [
        args(),
        args(0.5, 0.8),
        args(0.0, 0.0),
        args(0.9, 0.99, mode="smooth", smooth_beta=3.0),
        args(mode="refined"),
        args(mu_dtype="float32"),
    ],
}

OPTIMIZERS: dict[str, list[Args]] = {
    "sign_sgd": [args(0.1), args(0.01), args(COSINE), args(LINEAR)],
    "signum": [
        args(0.1),
        args(0.1, 0.5),
        args(COSINE, 0.99),
        args(0.1, accumulator_dtype="float32"),
    ],
    "lion": [
        args(0.01),
        args(0.01, 0.8, 0.9, weight_decay=0.1),
        args(COSINE, mask=matrices),
        args(0.01, weight_decay=0.0),
        args(0.01, mu_dtype="float32"),
    ],
}
