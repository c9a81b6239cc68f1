"""Sophia."""

from __future__ import annotations

from typing import Any

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import (
    Decay,
    DType,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
)
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.sophia import hutchinson_estimator_diag_hessian, scale_by_sophia

__all__ = ["sophia"]

_HUTCHINSON = hutchinson_estimator_diag_hessian()


@recipe
def sophia(
    learning_rate: NonNegative,
    b1: Decay = 0.965,
    b2: Decay = 0.99,
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 1e-4,
    weight_decay_mask: Any = None,
    gamma: NonNegative = 0.01,
    clip_threshold: NonNegative | None = 1.0,
    update_interval: PositiveInt = 10,
    hessian_diagonal_fn: GradientTransformation = _HUTCHINSON,
    mu_dtype: DType | None = None,
    verbose: bool = False,
    print_win_rate_every_n_steps: NonNegativeInt = 0,
    *,
    nu_dtype: DType | None = None,
) -> GradientTransformation:
    """Clipped momentum over a running estimate of the Hessian's diagonal, with decoupled decay.

    With the default hessian_diagonal_fn, update needs `obj_fn=loss`, a function of params alone.
    Liu et al., 2023, https://arxiv.org/abs/2305.14342
    """
    return chain(
        scale_by_sophia(
            b1,
            b2,
            eps,
            gamma,
            clip_threshold,
            update_interval,
            hessian_diagonal_fn,
            mu_dtype,
            verbose,
            print_win_rate_every_n_steps,
            nu_dtype=nu_dtype,
        ),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
