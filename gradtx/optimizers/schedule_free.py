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
from gradtx.transforms.decay import add_decayed_weights, decoupled_decay
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
    """Take SGD's steps, and average the iterates in place of lowering the learning rate.

        z <- z - rate * (g + weight_decay * y)      rate = learning_rate * min(1, t / warmup_steps)
        x <- (1 - c) x + c z                        c = w / (sum of w so far)
        y <- b1 x + (1 - b1) z                      w = max(rate so far)^weight_lr_power

    The params are y, where gradients are taken. Evaluate with the average x,
    `schedule_free_eval_params(state, params)`. There is no last step to plan for: x is ready for
    use at any time.

    Args:
        learning_rate: the length of a step of z; usually larger than for SGD with a schedule, since
            nothing lowers it
        warmup_steps: the rate of step t = 1, 2, ... is learning_rate * min(1, t / warmup_steps);
            None begins at the full rate
        b1: where gradients are taken, between z and the average x: 1 is at x, and values near 0 are
            close to z. 0 itself is excluded, since y would not determine x
        weight_decay: L2 regularisation: this fraction of each parameter is added to its gradient,
            before anything else. 0 switches it off, and so does None
        weight_lr_power: how much less the steps of the warmup count in the average; 0 weighs all
            alike
        state_dtype: the dtype in which z is kept; None keeps float32 (float64 for float64
            parameters)

    State: z, 4 bytes a parameter.

    Example:
        >>> tx = gradtx.schedule_free_sgd(1.0, b1=0.5)
        >>> params = jnp.array([0.0])
        >>> state = tx.init(params)
        >>> for _ in range(3):
        ...     params, state = gradtx.step(tx, jnp.array([1.0]), state, params)
        >>> average = gradtx.schedule_free_eval_params(state, params)
        >>> print(params, average, state.z)
        [-2.5] [-2.] [-3.]

    See also: `schedule_free_adamw`; `schedule_free`, for any optimizer;
    `schedule_free_eval_params`.

    References: Defazio et al., 2024, https://arxiv.org/abs/2405.15682
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
    *,
    independent_decay: bool = False,
) -> GradientTransformation:
    """Take AdamW's steps without a first moment, and average the iterates in place of a schedule.

        nu <- b2 * nu + (1 - b2) * g^2
        a   = g / (sqrt(nu / (1 - b2^t)) + eps) + weight_decay * y
        z  <- z - rate * a                          rate = learning_rate * min(1, t / warmup_steps)
        x  <- (1 - c) x + c z                       c = w / (sum of w so far)
        y  <- b1 x + (1 - b1) z                     w = max(rate so far)^weight_lr_power

    The params are y, where gradients are taken. Evaluate with the average x,
    `schedule_free_eval_params(state, params)`. The average takes the place of the first moment, so
    the state is no larger than AdamW's.

    Args:
        learning_rate: the length of a step of z; usually larger than for AdamW with a schedule,
            since nothing lowers it
        warmup_steps: the rate of step t = 1, 2, ... is learning_rate * min(1, t / warmup_steps);
            None begins at the full rate
        b1: where gradients are taken, between z and the average x: 1 is at x, and values near 0 are
            close to z. 0 itself is excluded, since y would not determine x. It acts as the
            momentum: raise it (0.95, 0.98) for long runs
        weight_lr_power: how much less the steps of the warmup count in the average; 0 weighs all
            alike
        state_dtype: the dtype in which z is kept; None keeps float32 (float64 for float64
            parameters)

    State: z and nu, 8 bytes a parameter.

    Example:
        >>> tx = gradtx.schedule_free_adamw(0.1, warmup_steps=4)
        >>> params = jnp.array([0.0])
        >>> state = tx.init(params)
        >>> step = jax.jit(lambda params, state: gradtx.step(tx, jnp.array([3.0]), state, params))
        >>> for _ in range(5):
        ...     params, state = step(params, state)
        ...     print(np.asarray(state.z).round(3))
        [-0.025]
        [-0.075]
        [-0.15]
        [-0.25]
        [-0.35]

    See also: `schedule_free_sgd`; `schedule_free`, for any optimizer; `adamw`.

    References: Defazio et al., 2024, https://arxiv.org/abs/2405.15682
    """
    rate = learning_rate if warmup_steps is None else rise(learning_rate, warmup_steps)
    base = chain(
        scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True),
        *decoupled_decay(rate, weight_decay, None, independent_decay),
    )
    return schedule_free(base, rate, b1, weight_lr_power, state_dtype)
