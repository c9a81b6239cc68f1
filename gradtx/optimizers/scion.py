"""Scion."""

from __future__ import annotations

from collections.abc import Mapping

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import NonNegative, PositiveFraction
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.lmo import Norm, average, scale_by_lmo
from gradtx.transforms.matrix_axes import Numbering
from gradtx.transforms.scaling import scale as scale_by
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["scion"]


@recipe
def scion(
    learning_rate: NonNegative = 1e-3,
    momentum: PositiveFraction = 0.1,
    norm: Norm = "auto",
    scale: NonNegative = 1.0,
    unconstrained: bool = False,
    norm_kwargs: Mapping[str, object] | None = None,
    weight_dimension_numbers: Numbering = None,
) -> GradientTransformation:
    """Step towards the point of a norm's ball that is farthest against the running mean.

        m <- (1 - momentum) * m + momentum * g
        u  = -learning_rate * (scale * lmo(m) + param)          with unconstrained, without param

    lmo(m) is the point of the unit ball of a norm that is farthest in the direction of m: see
    `scale_by_lmo`. The parameters stay within a ball of radius scale (once they are inside), which
    takes the place of weight decay. Each layer has the norm that fits what it does, so that rates
    carry over from narrow to wide networks. It keeps half of Adam's state, and needs no warm-up.

    The authors' networks take "auto" with a scale of 50 for hidden layers and "sign" with one of
    3000 for the last layer, or for embeddings shared with it; `partition` gives each group its own.

    Args:
        momentum: the weight of the newest gradient in the running mean, which reaches back about 1
            / momentum steps. Unlike in `sgd`, a small one means a long memory; 1 keeps none
        norm: "spectral", "sign", "col_norm" or "row_norm" for matrices, "spectral_conv" for
            kernels, "bias_rms" for any array; "auto" chooses by the number of axes
        scale: the radius of the ball: steps are learning_rate * scale long in the norm
        unconstrained: leave out the pull towards 0, so that there is no ball
        norm_kwargs: options of the norm, such as {"max": True}; see `scale_by_lmo`
        weight_dimension_numbers: which axes of arrays are inputs and outputs, as in
            `scale_by_muon`; None means that matrices are (inputs, outputs)

    State: m, 4 bytes a parameter.

    Raises: ValueError for any other norm, for norm_kwargs that the norm does not take and, with the
    leaf's path, for an array that is not a matrix or a kernel where the norm needs one.

    Example:
        >>> params, grads = jnp.array([[1.0, 1.0]]), jnp.array([[3.0, -0.1]])
        >>> tx = gradtx.scion(0.1, norm="sign", scale=2.0)
        >>> updates, state = tx.update(grads, tx.init(params), params)
        >>> print(np.asarray(updates).round(2))
        [[-0.3  0.1]]

    See also: `muon`, `lion`, `partition`.

    References: Pethick et al., 2025, https://arxiv.org/abs/2502.07529
    """
    return chain(
        average(momentum),
        scale_by_lmo(
            norm, norm_kwargs=norm_kwargs, weight_dimension_numbers=weight_dimension_numbers
        ),
        scale_by(scale),
        add_decayed_weights(0.0 if unconstrained else 1.0),
        scale_by_learning_rate(learning_rate),
    )
