"""Muon for the matrices, Adam for the rest."""

from __future__ import annotations

import functools
from typing import Any

from gradtx.combinators.chain import chain
from gradtx.combinators.partition import partition
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, DType, NonNegative, NonNegativeInt
from gradtx.core.leaves import Leaves
from gradtx.core.state import Params
from gradtx.core.transformation import GradientTransformation
from gradtx.optimizers.adam import adamw
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.matrix_axes import axes_of
from gradtx.transforms.orthogonal import (
    STANDARD,
    Coefficients,
    Preconditioning,
    scale_by_muon,
    scale_by_shape,
)
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["muon"]


@recipe
def muon(
    learning_rate: NonNegative,
    ns_coeffs: Coefficients = STANDARD,
    ns_steps: NonNegativeInt = 5,
    beta: Decay = 0.95,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    weight_decay_mask: Any = None,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    adam_b1: Decay = 0.9,
    adam_b2: Decay = 0.999,
    adam_eps_root: NonNegative = 0.0,
    adam_weight_decay: NonNegative = 0.0,
    adam_learning_rate: NonNegative | None = None,
    muon_weight_dimension_numbers: Any = None,
    consistent_rms: NonNegative | None = None,
    nu_dtype: DType | None = None,
) -> GradientTransformation:
    """Orthogonal momentum for matrices, AdamW for all other arrays.

    Jordan et al., 2024, https://kellerjordan.github.io/posts/muon

    muon_weight_dimension_numbers: a tree of `MuonDimensionNumbers` like the params, or a function
    from params to one; arrays with None go to AdamW. By default the arrays of two axes are
    matrices. ns_coeffs: numbers, "standard" or "dion". consistent_rms: the root mean square of
    every step; with 0.2, Adam's learning rates can be reused (https://arxiv.org/abs/2502.16982).
    Without it, steps are scaled up by sqrt(columns / rows) if there are more columns than rows.
    weight_decay_mask: as in `masked`, among the matrices. adam_learning_rate: learning_rate by
    default. nu_dtype: of AdamW. All else as in `scale_by_muon` and `adamw`.
    """
    numbers = muon_weight_dimension_numbers
    matrices = chain(
        scale_by_muon(
            ns_coeffs,
            ns_steps,
            beta,
            eps,
            mu_dtype,
            nesterov=nesterov,
            adaptive=adaptive,
            preconditioning=preconditioning,
            weight_dimension_numbers=numbers,
        ),
        scale_by_shape(numbers, consistent_rms),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
    rest = adamw(
        learning_rate if adam_learning_rate is None else adam_learning_rate,
        adam_b1,
        adam_b2,
        eps,
        adam_eps_root,
        mu_dtype,
        adam_weight_decay,
        nesterov=nesterov,
        nu_dtype=nu_dtype,
    )
    return partition({"muon": matrices, "adam": rest}, functools.partial(_labels, numbers))


def _labels(dimension_numbers: Any, params: Params) -> Params:
    """The label of each array: "muon" for matrices, "adam" for the rest."""
    leaves = Leaves.of(params)
    if dimension_numbers is None:
        are_matrices = [x is not None and x.ndim == 2 for x in leaves.values]
    else:
        axes = axes_of(dimension_numbers, leaves, "muon")
        are_matrices = [own is not None for own in axes]
    return leaves.tree("muon" if flag else "adam" for flag in are_matrices)
