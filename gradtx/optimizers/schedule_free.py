"""Schedule-free SGD and AdamW."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from gradtx.combinators.chain import chain
from gradtx.combinators.schedule_free import schedule_free
from gradtx.core.decorators import recipe
from gradtx.core.definition import schedule
from gradtx.core.hyperparameters import Decay, DType, NonNegative, Positive, PositiveFraction
from gradtx.core.transformation import GradientTransformation
from gradtx.optimizers.sgd import sgd
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.second_moment import scale_by_rms

__all__ = ["schedule_free_adamw", "schedule_free_sgd"]


@schedule
def rise(value: NonNegative, steps: Positive) -> Callable[[Array], Array]:
    """value min(1, (t + 1) / steps): a linear warmup whose first step, t = 0, is not zero."""
    return lambda t: jnp.where(t + 1 >= steps, value, value * ((t + 1) / steps))


@recipe
def schedule_free_sgd(
    learning_rate: NonNegative = 1.0,
    warmup_steps: Positive | None = None,
    b1: PositiveFraction = 0.9,
    weight_decay: NonNegative | None = None,
    weight_lr_power: NonNegative = 2.0,
    state_dtype: DType | None = None,
) -> GradientTransformation:
    """SGD whose iterates are averaged, without a schedule. https://arxiv.org/abs/2405.15682

    warmup_steps: the rate of step t = 1, 2, ... is learning_rate min(1, t / warmup_steps).
    weight_decay is added to the gradients. Evaluate at `schedule_free_eval_params(state, params)`.
    """
    rate = learning_rate if warmup_steps is None else rise(learning_rate, warmup_steps)
    base = sgd(rate)
    if weight_decay is not None:
        base = chain(add_decayed_weights(weight_decay), base)
    return schedule_free(base, rate, b1, weight_lr_power, state_dtype)


@recipe
def schedule_free_adamw(
    learning_rate: NonNegative = 0.0025,
    warmup_steps: Positive | None = None,
    b1: PositiveFraction = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    weight_lr_power: NonNegative = 2.0,
    state_dtype: DType | None = None,
) -> GradientTransformation:
    """AdamW without a first moment, whose iterates are averaged. https://arxiv.org/abs/2405.15682

    warmup_steps: the rate of step t = 1, 2, ... is learning_rate min(1, t / warmup_steps). Evaluate
    at `schedule_free_eval_params(state, params)`.
    """
    rate = learning_rate if warmup_steps is None else rise(learning_rate, warmup_steps)
    base = chain(
        scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True),
        add_decayed_weights(weight_decay),
        scale_by_learning_rate(rate),
    )
    return schedule_free(base, rate, b1, weight_lr_power, state_dtype)
