"""PyTorch's ReduceLROnPlateau: a learning rate that follows a metric, not the step."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gradtx import tree
from gradtx.core.counts import start
from gradtx.core.dtypes import cast, real_dtype_of
from gradtx.core.hyperparameters import Fraction, NonNegative, Positive
from gradtx.core.rule import Rule
from gradtx.core.state import Params, Updates
from gradtx.torch.definitions import per_tree
from gradtx.transforms.plateau import as_loss


class ReduceLROnPlateauState(NamedTuple):
    """Scalars, by PyTorch's names: the learning rate of the next step; the best metric so far; how
    many in a row were no better; and how many more the cooldown leaves uncounted."""

    lr: Array
    best: Array
    num_bad_epochs: Array
    cooldown_counter: Array


@per_tree
def reduce_lr_on_plateau(
    lr: Positive = 1.0,
    mode: Literal["min", "max"] = "min",
    factor: Fraction = 0.1,
    patience: NonNegative = 10,
    threshold: NonNegative = 1e-4,
    threshold_mode: Literal["rel", "abs"] = "rel",
    cooldown: NonNegative = 0,
    min_lr: NonNegative = 0.0,
    eps: NonNegative = 1e-8,
) -> Rule:
    """Reduce the learning rate when a metric, passed as `value`, has stopped improving, as
    lr_scheduler.ReduceLROnPlateau does.

        better: value < best * (1 - threshold)      ("abs": best - threshold; "max": > and +)
        rate <- max(factor * rate, min_lr)          once more than patience in a row were no better
        u     = g * rate / lr

    Put it last in a chain and pass the metric to update at every step: `tx.update(grads, state,
    params, value=loss)`. As in PyTorch, where `scheduler.step(loss)` follows `optimizer.step()`, a
    reduced rate takes effect at the next step. It is exact for optimizers whose steps are
    proportional to their rate: all but `rprop`, `asgd` and `adafactor`.

    Args:
        lr: the learning rate of the optimizer before this link, at which the rate starts; min_lr
            and eps are in the same units. With the default they are fractions of the first rate.
        mode: whether the metric should fall ("min") or rise ("max").
        factor: the factor on the rate at each reduction.
        patience: how many values in a row may be no better.
        threshold: by how much a value must be better than the best one.
        threshold_mode: whether that is a fraction of the best value ("rel") or a difference
            ("abs").
        cooldown: how many values after a reduction are not counted.
        min_lr: the lowest rate.
        eps: a reduction by no more than this is left out.

    State: four scalars, among them `lr`, the rate of the next step.

    Example:
        >>> lr = 0.5
        >>> tx = gradtx.chain(
        ...     gradtx.torch.sgd(lr), gradtx.torch.reduce_lr_on_plateau(lr, factor=0.5, patience=1)
        ... )
        >>> state = tx.init(jnp.zeros(1))
        >>> for loss in (3.0, 2.0, 2.0, 2.0, 2.0):
        ...     updates, state = tx.update(jnp.ones(1), state, value=loss)
        ...     print(updates, gradtx.tree.get(state, "lr"))
        [-0.5] 0.5
        [-0.5] 0.5
        [-0.5] 0.5
        [-0.5] 0.25
        [-0.25] 0.25

    See also: `gradtx.reduce_on_plateau`, Optax's.
    """
    sign = 1 if mode == "min" else -1

    def init(params: Params) -> ReduceLROnPlateauState:
        dtype = real_dtype_of(params)
        return ReduceLROnPlateauState(
            lr=jnp.array(lr, dtype),
            best=jax.device_put(np.asarray(sign * np.inf, dtype)),
            num_bad_epochs=start(),
            cooldown_counter=start(),
        )

    def improved(value: Array, best: Array) -> Array:
        known = jnp.isfinite(best)
        old = jnp.where(known, best, 0)
        margin = threshold * old if threshold_mode == "rel" else threshold
        needed = old - sign * margin
        return jnp.where(known, sign * value < sign * needed, jnp.isfinite(value))

    def update(
        updates: Updates, state: ReduceLROnPlateauState, *, value: ArrayLike
    ) -> tuple[Updates, ReduceLROnPlateauState]:
        metric = as_loss(value, state.best.dtype)
        better, cooling = improved(metric, state.best), state.cooldown_counter > 0
        bad = jnp.where(better | cooling, 0, state.num_bad_epochs + 1)
        due = cast(bad, metric.dtype) > patience
        lower = jnp.maximum(state.lr * factor, min_lr)
        pause = jnp.ceil(jnp.asarray(cooldown, metric.dtype))
        rest = jnp.maximum(state.cooldown_counter - 1, 0)
        new = ReduceLROnPlateauState(
            lr=jnp.where(due & (state.lr - lower > eps), lower, state.lr),
            best=jnp.where(better, metric, state.best),
            num_bad_epochs=jnp.where(due, 0, bad),
            cooldown_counter=jnp.where(due, pause.astype(np.int32), rest),
        )
        return tree.scale(state.lr / lr, updates), new

    return Rule(init, update)
