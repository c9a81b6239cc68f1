"""The error for a name that gradtx does not have."""

from __future__ import annotations

import difflib
from collections.abc import Collection

# The parts of Optax that are not about optimizers.
_LOSSES = frozenset(
    [
        "binary_dice_loss",
        "convex_kl_divergence",
        "cosine_distance",
        "cosine_similarity",
        "ctc_loss",
        "ctc_loss_with_forward_probs",
        "dice_loss",
        "generalized_kl_divergence",
        "hinge_loss",
        "huber_loss",
        "kl_divergence",
        "kl_divergence_with_log_targets",
        "l2_loss",
        "log_cosh",
        "make_fenchel_young_loss",
        "multiclass_generalized_dice_loss",
        "multiclass_hinge_loss",
        "multiclass_perceptron_loss",
        "multiclass_sparsemax_loss",
        "ntxent",
        "perceptron_loss",
        "poly_loss_cross_entropy",
        "ranking_softmax_loss",
        "safe_softmax_cross_entropy",
        "sigmoid_binary_cross_entropy",
        "sigmoid_focal_loss",
        "smooth_labels",
        "softmax_cross_entropy",
        "softmax_cross_entropy_with_integer_labels",
        "sparsemax_loss",
        "squared_error",
        "triplet_margin_loss",
    ]
)
_OTHERS = frozenset(
    [
        "assignment",
        "experimental",
        "losses",
        "microbatch",
        "microbatching",
        "monte_carlo",
        "multi_normal",
        "nnls",
        "perturbations",
        "projections",
        "second_order",
    ]
)


def no_such_name(name: str, known: Collection[str]) -> AttributeError:
    """The error for a name, with the import to write or the names that are similar."""
    said = f"gradtx has no {name!r}"
    if name in _LOSSES:
        return AttributeError(
            f"{said}: losses stay with Optax, and go with gradtx's optimizers: "
            f"from optax import {name}"
        )
    if name in _OTHERS:
        return AttributeError(f"{said}, which is not about optimizers: from optax import {name}")
    by_lower = {x.lower(): x for x in known}
    near = [by_lower[x] for x in difflib.get_close_matches(name.lower(), by_lower, n=3)]
    return AttributeError(said + (f": did you mean {' or '.join(near)}?" if near else ""))
