"""PyTorch's Adafactor: the last two axes of every array are factored, whatever their lengths."""

from __future__ import annotations

from functools import partial
from typing import Annotated, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from gradtx.combinators.chain import chain
from gradtx.core.dtypes import cast, number_dtype
from gradtx.core.hyperparameters import (
    AtLeastOne,
    NonNegative,
    NonNegativeOrOff,
    Number,
    ScalarOrSchedule,
    is_static_zero,
)
from gradtx.core.leaf_body import Leaf
from gradtx.core.norms import root_mean_square
from gradtx.core.numerics import abs_sq, running_mean, times, zeros_like, zeros_like_result
from gradtx.core.rule import Rule
from gradtx.core.state import Count, Updates
from gradtx.core.step import Step
from gradtx.core.transformation import GradientTransformation
from gradtx.torch.definitions import per_leaf, recipe
from gradtx.torch.descent import decay, gradient
from gradtx.transforms.scaling import scale

NotPositive = Annotated[
    ScalarOrSchedule,
    Number("finite and <= 0", lambda x: np.isfinite(x) & (x <= 0), example=-0.8),
]


class FactoredState(NamedTuple):
    """The running means of squares: of rows and of columns for arrays of two axes and more, of
    elements for others. Fields that an array does not need are empty."""

    count: Count
    row_var: Updates
    col_var: Updates
    variance: Updates


@per_leaf
def factored_steps(
    lr: NonNegative = 1e-2,
    beta2_decay: NotPositive = -0.8,
    eps: tuple[NonNegative | None, NonNegative] = (None, 1e-3),
    d: AtLeastOne = 1.0,
) -> Rule:
    """Divide by a factored root mean square; step by a fraction of the parameter's size."""

    def init(param: Array) -> FactoredState:
        def nothing() -> Array:
            return jnp.zeros(0, param.dtype)

        if not _is_factored(param):
            return FactoredState(None, nothing(), nothing(), zeros_like(param))
        row, column = (partial(jnp.mean, axis=axis, keepdims=True) for axis in (-1, -2))
        rows, columns = zeros_like_result(row, param), zeros_like_result(column, param)
        return FactoredState(None, rows, columns, nothing())

    def precompute(step: Step) -> tuple[Array, Array]:
        t = cast(step.count, number_dtype(lr))
        return 1 - t**beta2_decay, jnp.minimum(lr, 1 / jnp.sqrt(t))

    def update(
        grad: Array,
        state: FactoredState,
        param: Array,
        leaf: Leaf,
        precomputed: tuple[Array, Array],
    ) -> tuple[Array, FactoredState]:
        if jnp.iscomplexobj(grad):
            raise TypeError("torch.adafactor takes no complex parameters, as in PyTorch")
        decay_now, rate = precomputed
        least = _epsilon(leaf.dtype) if eps[0] is None else eps[0]
        square = abs_sq(grad)
        if not _is_factored(grad):
            variance = running_mean(state.variance, square, decay_now)
            state, estimate = state._replace(variance=variance), variance
        else:
            row, column = (
                running_mean(old, jnp.mean(square, axis, keepdims=True), decay_now)
                for old, axis in ((state.row_var, -1), (state.col_var, -2))
            )
            mean = jnp.maximum(jnp.mean(row, -2, keepdims=True), least)
            state, estimate = state._replace(row_var=row, col_var=column), row * column / mean
        u = grad * lax.rsqrt(jnp.maximum(estimate, least**2))
        shorter = jnp.maximum(1, root_mean_square(u) / d)
        size = jnp.maximum(eps[1], root_mean_square(param)) * rate
        return times(size / shorter, u), state

    return Rule(init, update, precompute)


def _is_factored(x: Array) -> bool:
    return x.ndim >= 2 and x.size > 0


def _epsilon(dtype: np.dtype) -> float:
    return float(jnp.finfo(dtype).eps)  # type: ignore[no-untyped-call]


@recipe(step="count", row_var="row_var", col_var="col_var", variance="variance")
def adafactor(
    lr: NonNegative = 1e-2,
    beta2_decay: NotPositive = -0.8,
    eps: tuple[NonNegative | None, NonNegative] = (None, 1e-3),
    d: AtLeastOne = 1.0,
    weight_decay: NonNegativeOrOff = 0.0,
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """Scale by factored second moments, and step by a fraction of the parameter's size, as
    torch.optim.Adafactor does.

        b  = 1 - t^beta2_decay
        r <- b * r + (1 - b) * mean(g^2 of a row),      c <- the same of a column
        v  = r c / max(mean(r), eps1)                   v <- b * v + (1 - b) * g^2 for vectors
        m  = g / max(sqrt(v), eps1)
        u  = -max(eps2, rms(w)) * min(lr, 1 / sqrt(t)) * m / max(1, rms(m) / d) - lr * weight_decay
             * w

    Args:
        lr: how far an array moves in a step at most, as a fraction of its own root mean square;
            later it is 1 / sqrt(t), if that is less.
        beta2_decay: the power, at most 0, with which the running mean forgets more slowly over
            time.
        eps: eps1, the smallest root mean square to divide by, None for the machine epsilon of the
            parameter's dtype; and eps2, a lower bound on the size of a parameter.
        d: the largest root mean square of a step; longer ones are shortened to it.
        weight_decay: how strongly parameters are pulled towards 0: this fraction of each, times lr,
            is subtracted at every step. 0 switches it off.

    State: one number a row and one a column of each matrix; 4 bytes a parameter for vectors; a
        count.

    Example:
        >>> params = jnp.full((2, 3), 2.0)
        >>> tx = gradtx.torch.adafactor(lr=0.1)
        >>> updates, state = tx.update(jnp.ones((2, 3)), tx.init(params), params)
        >>> updates[0]  # a tenth of the size
        Array([-0.2, -0.2, -0.2], dtype=float32)
        >>> state[0].row_var.shape, state[0].col_var.shape
        ((2, 1), (1, 3))

    See also: `gradtx.adafactor`.

    References: Shazeer & Stern, 2018, https://arxiv.org/abs/1804.04235
    """
    steps = factored_steps(lr, beta2_decay, eps, d)
    lasting = [] if is_static_zero(weight_decay) else decay(lr * weight_decay)
    return chain(*gradient(maximize), steps, *lasting, scale(-1))
