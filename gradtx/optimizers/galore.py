"""GaLore with decoupled weight decay."""

from __future__ import annotations

from collections.abc import Callable

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import NonNegative, PositiveInt, Real
from gradtx.core.mask import MaskLike
from gradtx.core.state import Params
from gradtx.core.transformation import GradientTransformation, TransformationLike
from gradtx.transforms.decay import decoupled_decay
from gradtx.transforms.galore import scale_by_galore
from gradtx.tree.types import Tree

__all__ = ["galore"]


@recipe
def galore(
    learning_rate: NonNegative,
    rank: PositiveInt = 128,
    update_proj_gap: PositiveInt = 200,
    scale: Real = 1.0,
    base_optimizer: TransformationLike | None = None,
    weight_decay: NonNegative = 0.0,
    mask: MaskLike = None,
    weight_dimension_numbers: Tree | Callable[[Params], Tree] | None = None,
    *,
    independent_decay: bool = False,
    cautious_weight_decay: bool = False,
) -> GradientTransformation:
    """Run Adam, or another optimizer, on gradients projected onto their top singular directions.

        P <- the first `rank` left singular vectors of G         on every update_proj_gap-th step
        u  = -learning_rate * (scale * P base_optimizer(P^T G) + weight_decay * param)

    for matrices with at least as many rows as columns; for the others P holds right singular
    vectors, and base_optimizer(G P) P^T takes the place of P base_optimizer(P^T G). All other
    arrays go through base_optimizer unprojected.

    It is for training large models in little memory: the moments of an m by n matrix, m >= n, are
    only rank by n. A step that computes P decomposes every matrix, and costs accordingly.

    Args:
        rank: how many singular directions are kept. Fewer save memory; a matrix with fewer rows or
            columns keeps them all
        update_proj_gap: for how many steps P is kept. Longer is cheaper, but P grows stale
        scale: a factor on the updates of matrices, in addition to the learning rate
        base_optimizer: the transformation that runs on the projected gradients, gradtx's or
            Optax's, without a learning rate and without a need for the parameters; None means
            `scale_by_adam()`
        mask: the parameters that decay: a tree of booleans (or a prefix of one), a function from
            the params to one, or a path pattern such as "kernel" or ~matching("bias|scale"); None
            means all
        weight_dimension_numbers: which arrays are matrices, and their rows and columns:
            `GaLoreDimensionNumbers` for all arrays of two or more axes; a tree of them like the
            params, with None for arrays that are not projected; or a function from params to such a
            tree. None means the arrays of two axes

    State: for a matrix of m rows and n <= m columns, P and Adam's moments, 4 (m + 2 n) min(rank, n)
    bytes; for any other array, 8 bytes a parameter.

    Raises: ValueError, at init and with the leaf's path, for dimension numbers that omit an axis.

    Example:
        >>> params = {"w": jnp.zeros((1000, 500)), "b": jnp.zeros(500)}
        >>> state = jax.eval_shape(gradtx.galore(1e-3, rank=8).init, params)
        >>> print(state[0].projector["w"].shape, state[0].base_optimizer_state.mu["w"].shape)
        (1000, 8) (8, 500)

    See also: `scale_by_galore`; `adafactor`, `muon` and `store`, also with less state.

    References: Zhao et al., 2024, https://arxiv.org/abs/2403.03507
    """
    return chain(
        scale_by_galore(rank, update_proj_gap, scale, base_optimizer, weight_dimension_numbers),
        *decoupled_decay(
            learning_rate, weight_decay, mask, independent_decay, cautious_weight_decay
        ),
    )
