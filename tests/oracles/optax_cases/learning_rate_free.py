"""Learning-rate-free optimizers, schedule-free ones, SAM, Sophia, and scaling on a plateau.

Left out, because Optax is wrong there (the oracles decide, `test_learning_rate_free.py`): MoMo with
weight decay, the scaling of polyak_sgd, plateaus of negative metrics, schedule-free with a
schedule, SAM with a period of 1, layer-wise DoG (a scalar leaf gets an update of shape (1,)).
"""

from typing import Any

import jax
import jax.numpy as jnp
from optax import contrib

from .case import COSINE, LINEAR, MASK, Args, Both, args, matrices


def loss(params: Any) -> Any:
    """What the gradients of the comparison are noisy gradients of, plus 1."""
    return 1 + sum(jnp.sum(0.25 * x**2) for x in jax.tree.leaves(params))


def value(params: Any, grads: Any) -> dict[str, Any]:
    return {"value": loss(params)}


def rough_value(params: Any, grads: Any) -> dict[str, Any]:
    """A metric that falls, rises and stays."""
    return {"value": 1 + jnp.round(loss(params))}


def wavy(params: Any) -> Any:
    """A loss whose curvature changes and stays bounded."""
    return sum(jnp.sum(x**2 + jnp.sin(x)) for x in jax.tree.leaves(params))


def objective(params: Any, grads: Any) -> dict[str, Any]:
    return {"obj_fn": wavy}


def gradient(params: Any, grads: Any) -> dict[str, Any]:
    return {"grad_fn": lambda p, i: jax.tree.map(lambda x: 0.5 * x + 0.1 * i, p)}


def sgd(rate: Any, *more: Any) -> Both:
    return Both(f"sgd({rate}, {more})", lambda lib: lib.sgd(rate, *more))


def climb(rho: float) -> Both:
    def build(lib: Any) -> Any:
        normalize = lib.normalize if hasattr(lib, "normalize") else contrib.normalize
        return lib.chain(normalize(), lib.sgd(rho))

    return Both(f"climb({rho})", build)


ADAM = Both("adam(1.0)", lambda lib: lib.adam(1.0))
MOMENTUM = sgd(0.1, 0.9)

# The oracle agrees to 1e-12.
ROOT: dict[str, Any] = {"rtol": 1e-5, "why": "Optax takes sqrt of the int32 step in float32"}
# x - x0 of params near 1 has no more than the first digits of float32.
SMALL: dict[str, Any] = {"narrow_rtol": 1e-3, "why": "the first steps are 1e-6 of the params"}

COMPILES = "Optax compiles its condition anew at every step"

TRANSFORMATIONS: dict[str, list[Args]] = {
    "scale_by_polyak": [
        args().but(extra=value),
        args(0.5, 0.01).but(extra=value),
        args(-1.0, 10.0, 1.0).but(extra=value),
        args(100.0, variant="sps+").but(extra=value),
        args(3.0, variant="sps").but(extra=value),
    ],
    "reduce_on_plateau": [
        args().but(extra=rough_value),
        args(0.5, 2).but(extra=rough_value),
        args(0.5, 1, 0.0, 0.5, 3).but(extra=rough_value),
        args(0.7, 3, 0.1, 0.1, 1, 4, 0.3).but(extra=rough_value),
        args(0.9, 1, accumulation_size=3, cooldown=2).but(extra=rough_value),
    ],
    "hutchinson_estimator_diag_hessian": [
        args().but(extra=objective),
        args(jnp.asarray([1, 2], jnp.uint32)).but(extra=objective),
    ],
}

OPTIMIZERS: dict[str, list[Args]] = {
    "scale_by_cocob": [args(), args(10.0), args(200.0, 1e-3), args(0.0, 1.0)],
    "cocob": [
        args(),
        args(COSINE, 10.0),
        args(0.5, 50.0, 1e-4, 0.1, MASK),
        args(1.0, 10.0, 1e-2, 0.1, matrices),
    ],
    "scale_by_madgrad": [
        args(0.1).but(**ROOT),
        args(0.1, 0.0).but(**ROOT),
        args(LINEAR, 0.5, 1e-3).but(**ROOT),
        args(1.0, 0.99, 0.1).but(**ROOT),
    ],
    "madgrad": [
        args(0.1).but(**ROOT),
        args(0.1, 0.0).but(**ROOT),
        args(LINEAR, 0.5, 0.1, 1e-3).but(**ROOT),
        args(1.0, 0.99).but(**ROOT),
    ],
    "dog": [
        args().but(**SMALL),
        args(1.0, ("distance", 0.1)),
        args(0.5, ("learning_rate", 0.2), 1e-3),
        args(COSINE, ("heuristic", 1e-2), weight_decay=0.1, mask=matrices),
    ],
    "dowg": [
        args().but(**SMALL),
        args(1.0, 0.1),
        args(0.5, 0.0, 1e-2),
        args(COSINE, 0.2, weight_decay=0.1, mask=MASK),
    ],
    "dadapt_adamw": [
        args(),
        args(0.5, (0.8, 0.99)),
        args(COSINE, (0.0, 0.9), 1e-3, 1e-2),
        args(1.0, (0.9, 0.99), estim_lr0=0.1, weight_decay=0.1),
    ],
    "prodigy": [
        args().but(**SMALL),
        args(0.5, (0.8, 0.99), 0.9),
        args(COSINE, (0.0, 0.9), None, 1e-3, 1e-2),
        args(1.0, estim_lr0=1e-3, estim_lr_coef=0.5, weight_decay=0.1),
        args(LINEAR, safeguard_warmup=True, estim_lr0=1e-3),
    ],
    "polyak_sgd": [
        args().but(extra=value),
        args(0.01).but(extra=value),
        args(10.0, 1.0, 0.5, 1.0).but(extra=value),
        args(f_min=2.0, variant="sps+").but(extra=value),
    ],
    "momo": [
        args().but(extra=value),
        args(0.1, 0.5).but(extra=value),
        args(COSINE, 0.0, 0.5).but(extra=value),
        args(1.0, 0.99, adapt_lower_bound=True).but(extra=value),
        args(0.5, 0.5, 5.0, adapt_lower_bound=True).but(extra=value),
    ],
    "momo_adam": [
        args().but(extra=value),
        args(0.1, 0.5, 0.9).but(extra=value),
        args(COSINE, 0.0, 0.99, 1e-3, 0.5).but(extra=value),
        args(1.0, 0.8, adapt_lower_bound=True).but(extra=value),
        args(0.5, 0.5, 0.9, lower_bound=5.0, adapt_lower_bound=True).but(extra=value),
    ],
    "schedule_free": [
        args(sgd(0.1), 0.1),
        args(MOMENTUM, 0.5, 0.8),
        args(ADAM, 1.0, 0.5, 0.0),
        args(sgd(0.1), 0.0, 1.0, 1.0),
        args(sgd(0.1), 0.1, state_dtype="float32"),
    ],
    "schedule_free_sgd": [
        args(0.1),
        args(),
        args(0.1, b1=0.5, weight_decay=0.1),
        args(0.5, weight_lr_power=0.0),
    ],
    "schedule_free_adamw": [
        args(),
        args(0.1, b1=0.5, b2=0.9, eps=1e-3),
        args(0.1, weight_decay=0.1),
        args(0.5, weight_lr_power=0.0),
    ],
    "mechanize": [
        args(sgd(1.0)).but(narrow_rtol=1e-2, why=SMALL["why"]),
        args(ADAM, 0.1),
        args(MOMENTUM, 0.0, 1e-6, 1e-3, 3),
        args(ADAM, eps=1e-4, s_init=1e-2, num_betas=1),
    ],
    "sam": [
        args(sgd(0.1), climb(0.05)),
        args(MOMENTUM, climb(0.1), 3),
        args(Both("adam(0.1)", lambda lib: lib.adam(0.1)), MOMENTUM, 4, False),
        args(MOMENTUM, climb(0.1), 3, True, True).but(extra=gradient),
        args(sgd(0.1), MOMENTUM, sync_period=2, reset_state=False, opaque_mode=True).but(
            extra=gradient
        ),
    ],
    "sophia": [
        # The first curvature is near zero, and the quotient magnifies rounding where not clipped.
        args(0.1).but(extra=objective, steps=11, narrow_rtol=1e-4, why=COMPILES),
        args(COSINE, 0.9, 0.5, 1e-3, 0.1, gamma=0.5, update_interval=1).but(
            extra=objective, steps=4, why=COMPILES
        ),
        args(0.1, weight_decay_mask=matrices, weight_decay=0.1, update_interval=2).but(
            extra=objective, steps=4, why=COMPILES
        ),
        args(0.1, clip_threshold=None, eps=1.0, update_interval=2).but(
            extra=objective, steps=4, why=COMPILES
        ),
    ],
    "normalize": [args()],
}
