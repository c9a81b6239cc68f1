"""Muon for the matrices, Adam for the rest."""

from __future__ import annotations

import functools
from typing import Any

from gradtx.combinators.chain import chain
from gradtx.combinators.partition import partition
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, DType, NonNegative, NonNegativeInt
from gradtx.core.leaves import Leaves
from gradtx.core.mask import Mask, MaskLike, matching
from gradtx.core.state import Params
from gradtx.core.transformation import GradientTransformation
from gradtx.optimizers.adam import adamw
from gradtx.transforms.decay import decoupled_decay
from gradtx.transforms.matrix_axes import Numbering, Split, axes_of
from gradtx.transforms.orthogonal import (
    STANDARD,
    Coefficients,
    Preconditioning,
    Scaling,
    scale_by_muon,
    scale_by_shape,
)

__all__ = ["muon"]


@recipe
def muon(
    learning_rate: NonNegative,
    ns_coeffs: Coefficients = STANDARD,
    ns_steps: NonNegativeInt = 5,
    beta: Decay = 0.95,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    weight_decay_mask: MaskLike = None,
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
    muon_weight_dimension_numbers: str | matching | Numbering = None,
    consistent_rms: NonNegative | None = None,
    nu_dtype: DType | None = None,
    independent_decay: bool = False,
    bias_correction: bool = True,
    scale: Scaling = "width",
    split_outputs: Split = None,
    cautious_weight_decay: bool = False,
) -> GradientTransformation:
    """Orthogonalise the momentum of every matrix, and take AdamW's steps for all other arrays.

        mu <- beta * mu + (1 - beta) * g
        m   = mu / (1 - beta^t)             with nesterov, m as in `adam` (b1 = beta)
        o   = newton_schulz(m)              with adaptive, <m, o> o
        u   = -learning_rate * (sqrt(max(1, columns / rows)) * o + weight_decay * param)

    Newton-Schulz: X = M / (||M|| + eps), then X <- (a I + b A + c A^2) X with A = X X^T, ns_steps
    times. This pushes the singular values towards 1, so that all directions of a matrix move alike.
    Without bias_correction m = mu, and with nesterov m = beta * mu + (1 - beta) * g. The root is
    sqrt(columns / rows) with scale="spectral", and sqrt(max(rows, columns)) * consistent_rms with
    consistent_rms.

    It is for the hidden matrices of a network. Embeddings and the output layer are better left to
    AdamW: `muon(0.02, muon_weight_dimension_numbers=~matching("embedding|head"))`.

    Args:
        ns_coeffs: the coefficients (a, b, c) of Newton-Schulz, or a tuple of such triples, one for
            each iteration from the first, or the name of a preset: "standard", one triple, or
            "dion" or "polar_express", five that end closer to 1
        ns_steps: how many iterations Newton-Schulz takes, if ns_coeffs is a single triple. More is
            more accurate and costs more; 5 suffice
        beta: the decay of the running mean of the matrices' gradients, which reaches back about 1 /
            (1 - beta) steps
        eps: a small number added to the norm of a matrix, and to AdamW's denominators
        weight_decay: how strongly matrices are pulled towards 0: this fraction of each, times the
            learning rate, is subtracted at every step. 0 switches it off
        weight_decay_mask: the parameters that decay, among the matrices: a tree of booleans (or a
            prefix of one), a function from the params to one, or a path pattern such as "kernel" or
            ~matching("bias|scale"); None means all
        mu_dtype: the dtype in which the running means of gradients are kept, for matrices and for
            AdamW; None keeps float32 (float64 for float64 parameters). `store` narrows any
            optimizer's state
        nesterov: look ahead, in Muon and in AdamW: use what the running mean becomes if the next
            gradient equals this one
        adaptive: multiply o by <m, o>, so that the step shrinks with the gradients
        preconditioning: how M is scaled before the iterations: "frobenius" as above; "spectral"
            divides by the largest singular value, which is exact but slow; "aol" and "schatten"
            rescale within the first iteration, by the row sums of |A| and by the norm of A
        adam_b1: b1 of AdamW: the decay of its running mean of gradients
        adam_b2: b2 of AdamW: the decay of its running mean of squared gradients
        adam_eps_root: eps_root of AdamW: a number added under its square root
        adam_weight_decay: how strongly the other arrays are pulled towards 0; 0 switches it off
        adam_learning_rate: the length of AdamW's steps; None means learning_rate. Usually shorter
            than Muon's, unless consistent_rms is given
        muon_weight_dimension_numbers: which arrays are matrices. A path pattern such as "kernel" or
            ~matching("embedding|head") selects among the arrays of two axes; a mapping
            from path patterns to `MuonDimensionNumbers`, a tree of them like the params, or a
            function from params to one, also says which axes are rows and columns: for layers
            stacked in one array, {"layers": MuonDimensionNumbers(1, 2)}. The other arrays, and
            those with None, go to AdamW. None means that all arrays of two axes are matrices
        consistent_rms: the root mean square of every step of a matrix; with 0.2, Adam's learning
            rates can be reused. None scales steps up by sqrt(columns / rows) if there are more
            columns than rows
        bias_correction: divide mu by 1 - beta^t, as Optax does. False is the momentum of Jordan's
            code and of PyTorch, whose directions differ by 7 to 9 percent at the second step and
            by 1 to 2 percent at the thirtieth. AdamW's moments are corrected in any case
        scale: whether matrices with more rows (inputs) than columns (outputs) keep their length
            ("width") or are scaled down ("spectral"); it has no effect with consistent_rms
        split_outputs: the widths of matrices that lie side by side in one, such as fused q, k and
            v, each of which is made orthogonal and scaled on its own: (64, 32, 32) for all
            matrices, a mapping from path patterns to widths, {"qkv": (64, 32, 32)}, or a tree of
            widths (None for a whole matrix) like the params
        nu_dtype: the dtype in which AdamW's running mean of squares is kept; None keeps float32
            (float64 for float64 parameters). `store` narrows any optimizer's state

    State: mu of the matrices, 4 bytes a parameter; mu and nu of the others, 8 bytes a parameter.

    Raises: ValueError for dimension numbers that do not fit the params or, with the leaf's path, an
    array, for widths that do not add up to its columns, and for a pattern that selects no array of
    two axes.

    Example:
        >>> params = {"w": jnp.zeros((2, 2)), "b": jnp.zeros(2)}
        >>> grads = {"w": jnp.array([[90.0, 0.0], [0.0, 50.0]]), "b": jnp.ones(2)}
        >>> tx = gradtx.muon(0.5, ns_coeffs=(1.5, -0.5, 0.0), adam_learning_rate=0.1)
        >>> updates, state = jax.jit(tx.update)(grads, tx.init(params), params)
        >>> print(abs(np.asarray(updates["w"]).round(1)))
        [[0.5 0. ]
         [0.  0.5]]

    See also: `scale_by_muon`, `adamw`, `partition`.

    References: Jordan et al., 2024, https://kellerjordan.github.io/posts/muon; consistent_rms: Liu
    et al., 2025, https://arxiv.org/abs/2502.16982; "polar_express": Amsel et al., 2025,
    https://arxiv.org/abs/2505.16932; adaptive: https://arxiv.org/abs/2409.20325;
    "aol": https://arxiv.org/abs/2512.04632; "schatten": https://arxiv.org/abs/2506.10935
    """
    which = muon_weight_dimension_numbers
    numbers = without_pattern(which)
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
            bias_correction=bias_correction,
            split_outputs=split_outputs,
        ),
        scale_by_shape(numbers, consistent_rms, scale=scale, split_outputs=split_outputs),
        *decoupled_decay(
            learning_rate,
            weight_decay,
            weight_decay_mask,
            independent_decay,
            cautious_weight_decay,
        ),
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
        independent_decay=independent_decay,
    )
    return with_adamw(matrices, rest, which)


def with_adamw(
    matrices: GradientTransformation, rest: GradientTransformation, which: Any
) -> GradientTransformation:
    """One transformation for the arrays that are matrices, and AdamW for the others.

    which: a pattern, or dimension numbers.
    """
    return partition({"muon": matrices, "adam": rest}, functools.partial(_labels, which))


def without_pattern(which: Any) -> Any:
    """The dimension numbers of the arrays that `which` selects: None for a pattern's matrices."""
    return None if _is_pattern(which) else which


def _is_pattern(which: object) -> bool:
    return isinstance(which, str | matching)


def _labels(which: Any, params: Params) -> Params:
    """The label of each array: "muon" for matrices, "adam" for the rest."""
    leaves = Leaves.of(params)
    if which is None or _is_pattern(which):
        are_matrices = [x is not None and x.ndim == 2 for x in leaves.values]
    else:
        axes = axes_of(which, leaves, "muon", complete=True)
        are_matrices = [own is not None for own in axes]
    if _is_pattern(which):
        selected = Mask(which).select(leaves, "muon")
        are_matrices = [a and b for a, b in zip(are_matrices, selected, strict=True)]
        if leaves.values and not any(are_matrices):
            raise ValueError(
                f"muon: {which!r} selects no array of two axes. Arrays of more axes need "
                "MuonDimensionNumbers, which say what their rows and columns are"
            )
    return leaves.tree("muon" if flag else "adam" for flag in are_matrices)
