"""MARS."""

from __future__ import annotations

from typing import Literal

import jax

from gradtx.combinators.chain import chain
from gradtx.combinators.masked import masked
from gradtx.combinators.partition import partition
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.mask import MaskLike
from gradtx.core.state import Params
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.adam import scale_by_adam, scale_by_amsgrad
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.mars import orthogonal_mean, scale_by_mars_correction
from gradtx.transforms.matrix_axes import MuonDimensionNumbers
from gradtx.transforms.momentum import ema
from gradtx.transforms.orthogonal import scale_by_shape
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.sign import scale_by_sign

__all__ = ["mars"]

MarsType = Literal["adamw", "lion", "shampoo"]
# The authors' code takes rows as outputs. Only the factor of the shape depends on that.
OUTPUTS_FIRST = MuonDimensionNumbers(reduction_axis=1, output_axis=0)


@recipe
def mars(
    learning_rate: NonNegative = 3e-3,
    b1: Decay = 0.95,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: MaskLike = None,
    *,
    gamma: NonNegative = 0.025,
    mars_type: MarsType = "adamw",
    amsgrad: bool = False,
    optimize_1d: bool = False,
    learning_rate_1d: NonNegative = 3e-3,
    b1_1d: Decay = 0.9,
    b2_1d: Decay = 0.95,
    weight_decay_1d: NonNegative = 0.1,
    cautious_weight_decay: bool = False,
) -> GradientTransformation:
    """Correct the gradients of matrices by their change since the previous step, then take steps.

        c   = g + gamma * b1 / (1 - b1) * (g - g_before)
        c   = c / max(1, ||c||)                                     for each array
        mu <- b1 * mu + (1 - b1) * c,           nu <- b2 * nu + (1 - b2) * c^2
        u   = -learning_rate * (d + weight_decay * param)

        d   = mu / (1 - b1^t) / (sqrt(nu / (1 - b2^t)) + eps)       mars_type="adamw"
        d   = sign(mu)                                              mars_type="lion"
        d   = newton_schulz(mu) * sqrt(max(1, rows / columns))      mars_type="shampoo"

    Arrays that are not matrices take the steps of `adamw` with b1_1d, b2_1d, a rate and a decay of
    their own; with optimize_1d the same as matrices ("adamw" in place of "shampoo"). Newton-Schulz
    is that of `muon`, and eps is relative to mu / (1 - b1). The rows in its factor are those of
    the array: a layer's outputs in PyTorch, its inputs in most of JAX's libraries.

    The correction makes the running mean follow a changing gradient sooner, at the cost of storing
    a gradient. Large gradients are clipped array by array: no other clipping has to come first.

    Args:
        mask: the parameters that decay, matrices and others: a tree of booleans (or a prefix of
            one), a function from the params to one, or a path pattern such as "kernel" or
            ~matching("bias|scale"); None means all
        gamma: how much of the change is added; 0 leaves the gradients as they are
        mars_type: what the running mean is turned into: Adam's step ("adamw"), its sign ("lion"),
            or the nearest orthogonal matrix ("shampoo")
        amsgrad: divide by the root of the largest second moment so far; 4 more bytes a parameter
        optimize_1d: treat all arrays alike, whatever their number of axes
        learning_rate_1d: the learning rate of arrays that are not matrices. It does not follow
            learning_rate: give a schedule to both
        b1_1d: b1 of arrays that are not matrices
        b2_1d: b2 of arrays that are not matrices
        weight_decay_1d: weight_decay of arrays that are not matrices

    State: for matrices last_grad, mu and, with "adamw", nu: 12 bytes a parameter (8 for the other
    types); for other arrays mu and nu, 8.

    Raises: ValueError for any other mars_type.

    Example:
        >>> params = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
        >>> grads = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full(2, 3.0)}
        >>> tx = gradtx.mars(0.1, learning_rate_1d=0.01)
        >>> updates, state = tx.update(grads, tx.init(params), params)
        >>> print(np.asarray(updates["kernel"][0]).round(3), np.asarray(updates["bias"]).round(3))
        [-0.1 -0.1] [-0.01 -0.01]

    See also: `scale_by_mars_correction`, for any optimizer; `adamw`, `lion`, `muon`.

    References: Yuan et al., 2024, https://arxiv.org/abs/2411.10438
    """

    def moments(b1: Decay, b2: Decay) -> GradientTransformation:
        if amsgrad:
            return scale_by_amsgrad(b1, b2, eps, max_of="raw")
        return scale_by_adam(b1, b2, eps)

    def corrected(kind: MarsType) -> GradientTransformation:
        correction = scale_by_mars_correction(gamma, b1)
        if kind == "adamw":
            return chain(correction, moments(b1, b2))
        if kind == "lion":
            return chain(correction, ema(b1, debias=False), scale_by_sign())
        return chain(correction, orthogonal_mean(b1, eps), scale_by_shape(OUTPUTS_FIRST))

    def each(
        matrix: GradientTransformation, rest: GradientTransformation
    ) -> GradientTransformation:
        return partition({"matrix": matrix, "rest": rest}, _by_axes)

    def decay(weight_decay: NonNegative) -> GradientTransformation:
        return add_decayed_weights(weight_decay, cautious=cautious_weight_decay)

    def rate(learning_rate: NonNegative) -> GradientTransformation:
        return scale_by_learning_rate(learning_rate)

    if optimize_1d:
        rest = corrected("adamw" if mars_type == "shampoo" else mars_type)
        learning_rate_1d, weight_decay_1d = learning_rate, weight_decay
    else:
        rest = moments(b1_1d, b2_1d)
    decays = each(decay(weight_decay), decay(weight_decay_1d))
    return chain(
        each(corrected(mars_type), rest),
        decays if mask is None else masked(decays, mask),
        each(rate(learning_rate), rate(learning_rate_1d)),
    )


def _by_axes(params: Params) -> Params:
    """The label of each array: "matrix" if it has two axes, else "rest"."""
    return jax.tree.map(lambda x: "matrix" if x.ndim == 2 else "rest", params)
