"""NorMuon's second moment: one number for each output of an orthogonalised matrix."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.decorators import per_tree
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.leaves import Leaves, align, at, describe
from gradtx.core.norms import norm_over
from gradtx.core.numerics import abs_sq, plus, running_mean, sqrt, zeros_like_result
from gradtx.core.rule import Rule
from gradtx.core.state import LikeParams, Params, Updates
from gradtx.transforms.matrix_axes import Layout, Numbering, Split
from gradtx.transforms.orthogonal import layouts_of

__all__ = ["NeuronState", "normalize_neurons"]


class NeuronState(NamedTuple):
    """nu: for each matrix the running mean of squares of each column, (batch, columns)."""

    nu: LikeParams


@per_tree
def normalize_neurons(
    b2: Decay = 0.95,
    eps: NonNegative = 1e-10,
    *,
    weight_dimension_numbers: Numbering = None,
    split_outputs: Split = None,
) -> Rule:
    """Even out the columns of every matrix, and keep the matrix's norm.

        nu <- b2 * nu + (1 - b2) * mean(g^2, over the rows of a column)
        v   = g / (sqrt(nu) + eps)
        u   = v * ||g|| / (||v|| + eps)                                         for each matrix

    A column holds the weights of one output, a neuron. Newton-Schulz leaves columns of quite
    different lengths; after this all neurons move about equally far.

    Args:
        b2: the decay of the running mean of squares, which reaches back about 1 / (1 - b2) steps
        eps: a small number added to both denominators
        weight_dimension_numbers: which axes are rows and which columns, as in `scale_by_muon`
        split_outputs: the widths of matrices side by side, as in `scale_by_muon`: each of them
            keeps its norm

    State: nu, 4 bytes a column. update needs params.

    Raises: ValueError, with the leaf's path, for an array that is not a matrix.

    Example:
        >>> grads = jnp.array([[3.0, 0.1], [4.0, 0.1]])
        >>> tx = gradtx.normalize_neurons(b2=0.0)
        >>> updates, state = tx.update(grads, tx.init(grads), grads)
        >>> print(np.linalg.norm(updates, axis=0).round(3), np.linalg.norm(updates).round(3))
        [3.537 3.537] 5.002

    See also: `normuon`, `scale_by_muon`.

    References: Li et al., 2025, https://arxiv.org/abs/2510.05491
    """
    where = "normalize_neurons"

    def zeros(x: Array, layout: Layout) -> Array:
        """One number for each column, placed as the array is."""
        first: Array = zeros_like_result(lambda x: jnp.sum(abs_sq(layout.split(x)), 1), x)
        return first

    def init(params: Params) -> NeuronState:
        leaves = Leaves.of(params)
        layouts = layouts_of(weight_dimension_numbers, leaves, where, split_outputs)
        return NeuronState(
            leaves.tree(
                x if layout is None else zeros(x, layout)
                for x, layout in zip(leaves.values, layouts, strict=True)
            )
        )

    def evened(x: Array, layout: Layout, nu: Array, path: str) -> tuple[Array, Array]:
        """The update of one array, and its new nu."""
        matrices = layout.split(x)
        if nu.shape != (layout.batch, layout.columns):
            raise ValueError(
                f"{where}: {at(path)}: updates {describe(x)} do not fit the state's nu, "
                f"{describe(nu)}"
            )
        nu = running_mean(nu, jnp.sum(abs_sq(matrices), 1) / max(layout.rows, 1), b2)
        divided = matrices / plus(eps, sqrt(nu))[:, None]
        kept = [
            new * (norm_over(old, (1, 2)).value / plus(eps, norm_over(new, (1, 2)).value))
            for old, new in zip(
                layout.side_by_side(matrices), layout.side_by_side(divided), strict=True
            )
        ]
        return layout.join_pieces(kept), nu

    # params are requested so that shapes are checked: nu does not know how many rows there are.
    def update(updates: Updates, state: NeuronState, params: Params) -> tuple[Updates, NeuronState]:
        leaves = Leaves.of(updates)
        layouts = layouts_of(weight_dimension_numbers, leaves, where, split_outputs)
        old = align(leaves, state.nu, "normalize_neurons: the state's nu")
        made = [
            (x, nu) if layout is None else evened(x, layout, nu, path)
            for x, layout, nu, path in zip(leaves.values, layouts, old, leaves.paths, strict=True)
        ]
        return leaves.tree(u for u, _ in made), NeuronState(leaves.tree(nu for _, nu in made))

    return Rule(init, update)
