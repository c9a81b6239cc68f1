"""Private gradients."""

import gradtx

from .example import E, Example, linear

WHY = "it clips each example's gradient before it sums them"

EXAMPLES: tuple[Example, ...] = (
    E(
        "differentially_private_aggregate",
        "default",
        lambda: gradtx.differentially_private_aggregate(1.0, 0.5),
        couples=True,
        noisy=True,
        by_path=True,
        per_example=WHY,
    ),
    E(
        "differentially_private_aggregate",
        "scheduled from a seed",
        lambda: gradtx.differentially_private_aggregate(2.0, linear(), 7),
        couples=True,
        noisy=True,
        by_path=True,
        per_example=WHY,
    ),
    E(
        "dpsgd",
        "default",
        lambda: gradtx.dpsgd(0.1, 5.0, 0.01, 3),
        couples=True,
        noisy=True,
        by_path=True,
        rates=(0.05, 1e-3),
        per_example=WHY,
    ),
    E(
        "dpsgd",
        "nesterov",
        lambda: gradtx.dpsgd(0.1, 1.0, 0.3, 3, 0.9, True),
        couples=True,
        noisy=True,
        by_path=True,
        per_example=WHY,
    ),
)
