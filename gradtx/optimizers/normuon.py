"""NorMuon for the matrices, AdamW for the rest."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, DType, NonNegative, NonNegativeInt
from gradtx.core.mask import MaskLike, matching
from gradtx.core.transformation import GradientTransformation
from gradtx.optimizers.adam import adamw
from gradtx.optimizers.muon import with_adamw, without_pattern
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.matrix_axes import Numbering, Split
from gradtx.transforms.neuron_norm import normalize_neurons
from gradtx.transforms.orthogonal import (
    STANDARD,
    Coefficients,
    Scaling,
    scale_by_muon,
    scale_by_shape,
)
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["normuon"]


@recipe
def normuon(
    learning_rate: NonNegative = 0.02,
    b2: Decay = 0.95,
    momentum: Decay = 0.95,
    weight_decay: NonNegative = 0.0,
    weight_decay_mask: MaskLike = None,
    mu_dtype: DType | None = None,
    *,
    ns_coeffs: Coefficients = STANDARD,
    ns_steps: NonNegativeInt = 5,
    eps: NonNegative = 1e-8,
    nesterov: bool = True,
    bias_correction: bool = False,
    scale: Scaling = "width",
    consistent_rms: NonNegative | None = None,
    split_outputs: Split = None,
    adam_b1: Decay = 0.9,
    adam_b2: Decay = 0.999,
    adam_weight_decay: NonNegative = 0.0,
    adam_learning_rate: NonNegative | None = None,
    muon_weight_dimension_numbers: str | matching | Numbering = None,
    cautious_weight_decay: bool = False,
) -> GradientTransformation:
    """Take Muon's steps with neurons evened out, and AdamW's steps for all other arrays.

        mu <- momentum * mu + (1 - momentum) * g
        o   = newton_schulz(momentum * mu + (1 - momentum) * g)
        nu <- b2 * nu + (1 - b2) * mean(o^2, over the rows of a column)
        v   = o / (sqrt(nu) + 1e-10),           v = v * ||o|| / (||v|| + 1e-10)
        u   = -learning_rate * (sqrt(max(1, columns / rows)) * v + weight_decay * param)

    With nesterov=False, o = newton_schulz(mu). Columns are outputs. The result of Newton-Schulz is
    only nearly orthogonal, and its columns differ in length; here all neurons move about equally
    far. It costs hardly more than Muon, and needs hardly more memory.

    Args:
        b2: the decay of the running mean of squares of each column
        momentum: the decay of the running mean of the matrices' gradients, which reaches back about
            1 / (1 - momentum) steps
        weight_decay: how strongly matrices are pulled towards 0: this fraction of each, times the
            learning rate, is subtracted at every step. 0 switches it off
        weight_decay_mask: the parameters that decay, among the matrices: a tree of booleans (or a
            prefix of one), a function from the params to one, or a path pattern such as "kernel" or
            ~matching("bias|scale"); None means all
        ns_coeffs: the coefficients of Newton-Schulz, or the name of a preset, as in `muon`
        ns_steps: how many iterations Newton-Schulz takes, if ns_coeffs is a single triple
        eps: a small number added to the norm of a matrix before Newton-Schulz, and to AdamW's
            denominators
        bias_correction: divide mu by 1 - momentum^t, and look ahead as Adam does; the authors do
            not
        scale: whether matrices with more rows (inputs) than columns (outputs) keep their length
            ("width") or are scaled down ("spectral")
        consistent_rms: the root mean square of every step of a matrix, in place of scale
        split_outputs: the widths of matrices that lie side by side in one, as in `muon`
        adam_b1: b1 of AdamW
        adam_b2: b2 of AdamW
        adam_weight_decay: how strongly the other arrays are pulled towards 0; 0 switches it off
        adam_learning_rate: the length of AdamW's steps; None means learning_rate, whose default,
            0.02, is long for AdamW
        muon_weight_dimension_numbers: which arrays are matrices, and their rows and columns, as in
            `muon`; None means that the arrays of two axes are matrices

    State: for matrices mu, 4 bytes a parameter, and nu, 4 bytes a column; for others mu and nu, 8
    bytes a parameter.

    Raises: ValueError as `muon` does.

    Example:
        >>> params = {"w": jnp.zeros((2, 2)), "b": jnp.zeros(2)}
        >>> grads = {"w": jnp.array([[90.0, 0.0], [0.0, 50.0]]), "b": jnp.ones(2)}
        >>> tx = gradtx.normuon(0.5, adam_learning_rate=0.1)
        >>> updates, state = jax.jit(tx.update)(grads, tx.init(params), params)
        >>> print(np.asarray(updates["w"]).round(2) + 0.0)
        [[-0.42  0.  ]
         [ 0.   -0.42]]

    See also: `muon`, `normalize_neurons`.

    References: Li et al., 2025, https://arxiv.org/abs/2510.05491
    """
    which = muon_weight_dimension_numbers
    numbers = without_pattern(which)
    matrices = chain(
        scale_by_muon(
            ns_coeffs,
            ns_steps,
            momentum,
            eps,
            mu_dtype,
            nesterov=nesterov,
            weight_dimension_numbers=numbers,
            bias_correction=bias_correction,
            split_outputs=split_outputs,
        ),
        normalize_neurons(b2, weight_dimension_numbers=numbers, split_outputs=split_outputs),
        scale_by_shape(numbers, consistent_rms, scale=scale, split_outputs=split_outputs),
        add_decayed_weights(weight_decay, weight_decay_mask, cautious=cautious_weight_decay),
        scale_by_learning_rate(learning_rate),
    )
    rest = adamw(
        learning_rate if adam_learning_rate is None else adam_learning_rate,
        adam_b1,
        adam_b2,
        eps,
        mu_dtype=mu_dtype,
        weight_decay=adam_weight_decay,
        nesterov=nesterov,
    )
    return with_adamw(matrices, rest, which)
