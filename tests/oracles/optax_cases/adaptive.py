"""Adaptive moments beside Adam's.

Not here: Rprop, whose updates come a step late in Optax; Adan with another b2 than 1/2, because
Optax takes 1 - b2 for the weight that is b2; Adadelta without a learning rate, which climbs there.
`test_adaptive.py` holds these to their papers.
"""

from typing import Any

from .case import COSINE, LINEAR, Args, args, matrices


def rectified(*positional: Any, **named: Any) -> Args:
    """Optax's rho is a difference of numbers near 2 / (1 - b2)."""
    return args(*positional, **named).but(
        rtol=1e-10, narrow_rtol=3e-6, why="the difference loses digits"
    )


GROWS = {"narrow_rtol": 1e-4, "why": "rounding grows where a small first gradient divides"}

TRANSFORMATIONS: dict[str, list[Args]] = {
    "scale_by_belief": [
        args(),
        args(0.5, 0.9, 1e-3, 1e-6),
        args(nesterov=True),
        args(0.0, 0.99, 1e-4, 0.0),
    ],
    "scale_by_acprop": [args(), args(0.5, 0.9, 1e-3, 1e-6), args(0.8, 0.99), args(0.0, 0.9)],
    "scale_by_adamax": [args(), args(0.5, 0.9, 1e-3), args(0.0), args(b2=0.5)],
    "scale_by_adadelta": [args(), args(0.5, 1e-3), args(0.99), args(0.0, 1e-2)],
    "scale_by_yogi": [
        args(),
        args(0.5, 0.9, 1e-2, 1e-6),
        args(initial_accumulator_value=0.1),
        args(0),
    ],
    "scale_by_radam": [
        rectified(),
        rectified(0.5, 0.9, 1e-3, 1e-6),
        rectified(nesterov=True),
        rectified(0.8, 0.99, threshold=10.0),
        rectified(0.9, 0.5),
        rectified(0.9, 0.0),
    ],
    "scale_by_novograd": [
        args(),
        args(0.5, 0.9, 1e-3, 1e-6),
        args(weight_decay=0.1),
        args(0.8, mu_dtype="float32"),
    ],
    "scale_by_adan": [
        args(b2=0.5),
        args(0.9, 0.5, 0.8),
        args(0.5, 0.5, 0.999, 1e-3, 1e-6),
        args(0.0, 0.5, 0.9),
    ],
    "scale_by_optimistic_gradient": [args(), args(0.5, 2.0), args(1.0, 0.0), args(beta=-0.5)],
    "scale_by_ademamix": [
        args().but(**GROWS),
        args(0.5, 0.9, 0.99, 2.0, 1e-3, 1e-6),
        args(b3=0.9, alpha=0.0),
        args(alpha=LINEAR),
        args(b3=LINEAR, alpha=COSINE),
    ],
    "scale_by_simplified_ademamix": [
        args(),
        args(0.5, 0.9, 2.0, 1e-3, 1e-6),
        args(0.9, alpha=10.0),
        args(alpha=LINEAR),
    ],
    "scale_by_adopt": [
        args().but(**GROWS),
        args(0.5, 0.9, 1e-3),
        args(nesterov=True),
        args(use_clipping=False),
        args(0.9, 0.99, clip_value_fn=lambda step: 0.1 * step),
        args(mu_dtype="float32"),
    ],
}

OPTIMIZERS: dict[str, list[Args]] = {
    "adabelief": [
        args(0.1),
        args(0.1, 0.5, 0.9, 1e-3, 1e-6),
        args(COSINE),
        args(0.1, nesterov=True),
    ],
    "acprop": [
        args(0.01),
        args(0.01, 0.5, 0.9, 1e-3, 1e-6),
        args(COSINE, weight_decay=0.1, mask=matrices),
        args(0.01, weight_decay=0.1),
    ],
    "adamax": [args(0.1), args(0.1, 0.5, 0.9, 1e-3), args(COSINE), args(LINEAR, b2=0.5)],
    "adamaxw": [
        args(0.1),
        args(0.1, 0.5, 0.9, 1e-3, 0.1),
        args(COSINE, mask=matrices),
        args(0.1, weight_decay=0.0),
    ],
    "adadelta": [
        args(1.0),
        args(10.0, 0.5, 1e-3),
        args(COSINE, weight_decay=0.1),
        args(0.5, weight_decay=0.1, weight_decay_mask=matrices),
    ],
    "yogi": [args(0.1), args(0.1, 0.5, 0.9, 1e-2), args(COSINE), args(LINEAR, eps=1e-8)],
    "radam": [
        rectified(0.1),
        rectified(0.1, 0.5, 0.9, 1e-3, 1e-6),
        rectified(COSINE, threshold=6.0),
        rectified(0.1, nesterov=True),
    ],
    "novograd": [args(0.1), args(0.1, 0.5, 0.9, 1e-3, 1e-6, 0.1), args(COSINE), args(0.1, b2=0.98)],
    "adan": [
        args(0.1, b2=0.5),
        args(0.1, 0.9, 0.5, 0.8, 1e-3, 1e-6, 0.1),
        args(COSINE, b2=0.5, weight_decay=0.1, mask=matrices),
        args(LINEAR, b2=0.5),
    ],
    "optimistic_gradient_descent": [
        args(0.1),
        args(0.1, 0.5, 2.0),
        args(COSINE),
        args(LINEAR, 2.0),
    ],
    "optimistic_adam": [
        args(0.1),
        args(0.1, 0.05),
        args(0.1, 0.2, 0.5, 0.9, 1e-3, 1e-6),
        args(0.1, nesterov=False),
    ],
    "optimistic_adam_v2": [
        args(0.1),
        args(0.1, alpha=0.5, beta=2.0),
        args(COSINE, b1=0.5, b2=0.9),
        args(0.1, eps=1e-3, eps_root=1e-6, nesterov=False),
    ],
    "ademamix": [
        args(0.1).but(**GROWS),
        args(0.1, 0.5, 0.9, 0.99, 2.0, 1e-3, 1e-6),
        args(COSINE, weight_decay=0.1, mask=matrices),
        args(0.1, b3=LINEAR, alpha=COSINE),
    ],
    "simplified_ademamix": [
        args(0.01),
        args(0.01, 0.5, 0.9, 2.0, 1e-3, 1e-6),
        args(COSINE, weight_decay=0.1, mask=matrices),
        args(0.01, alpha=LINEAR),
    ],
    "adopt": [
        args(0.1).but(**GROWS),
        args(0.1, 0.5, 0.9, 1e-3),
        args(COSINE, nesterov=True),
        args(0.1, use_clipping=False),
    ],
}
