"""GaLore: an optimizer run on low-rank projections of matrix gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.batches import undifferentiated
from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import widen
from gradtx.core.holding import anywhere, here, now_and_then
from gradtx.core.hyperparameters import PositiveInt, Real
from gradtx.core.inner import Inner
from gradtx.core.leaves import Leaves, align, at, describe
from gradtx.core.meshes.placing import parted
from gradtx.core.numerics import times
from gradtx.core.rule import Rule
from gradtx.core.state import Count, LikeParams, OptState, Params, Updates
from gradtx.core.step import Step
from gradtx.core.transformation import TransformationLike
from gradtx.transforms.adam import scale_by_adam
from gradtx.transforms.matrix_axes import Axes, GaLoreDimensionNumbers, Layout, axes_of
from gradtx.tree.types import Tree

__all__ = ["GaLoreState", "scale_by_galore"]


class GaLoreState(NamedTuple):
    """base_optimizer_state: the state of base_optimizer, on the projected matrices; projector: for
    each matrix P, (longer side, at most rank), and None for arrays that are not projected."""

    count: Count
    base_optimizer_state: OptState
    projector: LikeParams


@per_tree
def scale_by_galore(
    rank: PositiveInt = 128,
    update_proj_gap: PositiveInt = 200,
    scale: Real = 1.0,
    base_optimizer: TransformationLike | None = None,
    weight_dimension_numbers: Tree | Callable[[Params], Tree] | None = None,
) -> Rule:
    """Run an optimizer on the projection of each matrix onto its top singular directions.

        P <- the first `rank` left singular vectors of G         on every update_proj_gap-th step,
                                                                 and on the first with a gradient
        u  = scale * P base_optimizer(P^T G)

    for matrices with at least as many rows as columns; for the others P holds right singular
    vectors, and u = scale * base_optimizer(G P) P^T. All other arrays go through base_optimizer
    unprojected. The moments of a matrix take less memory, in proportion to rank. Derivatives treat
    P as a constant.

    Args:
        rank: how many singular directions are kept. Larger is closer to base_optimizer itself and
            takes more memory.
        update_proj_gap: how many steps pass before P is recomputed, from the gradient of that step.
            Smaller follows the gradients more closely and spends more time on decompositions.
        scale: a factor on the updates of projected matrices, but not on those of other arrays.
        base_optimizer: the transformation that is run on the projections, gradtx's or Optax's; None
            is `scale_by_adam()`. It must not need the parameters.
        weight_dimension_numbers: which axes are rows and which columns: `GaLoreDimensionNumbers`
            for all arrays of two or more axes; or a tree of them like the params, with None for
            arrays that are not projected; or a function from params to such a tree. None takes the
            arrays of two axes as matrices.

    State: that of base_optimizer on the projections, and P. With Adam a matrix of m x n, m >= n,
    keeps rank (m + 2 n) numbers: 1.5 bytes a parameter for 1024 x 1024. Arrays that are not
    projected keep 8.

    Raises: ValueError unless rank and update_proj_gap are whole numbers >= 1 and, with the leaf's
    path, for dimension numbers that omit an axis.

    Example:
        >>> tx = gradtx.scale_by_galore(rank=8)
        >>> params = {"kernel": jnp.zeros((64, 32)), "bias": jnp.zeros(32)}
        >>> state = jax.eval_shape(tx.init, params)
        >>> mu = state.base_optimizer_state.mu
        >>> print(state.projector["kernel"].shape, mu["kernel"].shape, mu["bias"].shape)
        (64, 8) (8, 32) (32,)

    See also: `galore`, `GaLoreDimensionNumbers`.

    References: Zhao et al., 2024, https://arxiv.org/abs/2403.03507
    """
    inner = scale_by_adam() if base_optimizer is None else base_optimizer

    def init(params: Params) -> GaLoreState:
        leaves = Leaves.of(params)
        projectors: list[Array | None] = []
        small: list[Array | None] = []
        for x, layout in zip(
            leaves.values, _layouts(weight_dimension_numbers, leaves), strict=True
        ):
            if layout is None:
                projectors.append(None)
                small.append(x)
            else:
                tall = _tall(layout.split(x)[0], layout)
                few = min(rank, tall.shape[1])
                projectors.append(parted(jnp.zeros((tall.shape[0], few), x.dtype), x))
                small.append(parted(_tall(jnp.zeros((few, tall.shape[1]), x.dtype), layout), x))
        base = inner.init(leaves.tree(small))
        return GaLoreState(count=None, base_optimizer_state=base, projector=leaves.tree(projectors))

    def update(
        updates: Updates, state: GaLoreState, step: Step, **extra: Any
    ) -> tuple[Updates, GaLoreState]:
        leaves = Leaves.of(updates)
        layouts = _layouts(weight_dimension_numbers, leaves)
        old = align(leaves, state.projector, "scale_by_galore: the state's projector")
        due = (step.count - 1) % update_proj_gap == 0
        projectors, small = list(old), list(leaves.values)
        for i, layout in enumerate(layouts):
            x = leaves.values[i]
            if x is not None:
                _check(x, layout, old[i], rank, leaves.paths[i])
            if layout is not None:
                p = _projector(due, x, layout, widen(old[i], x.dtype), rank)
                tall = _tall(layout.split(x)[0], layout)
                projectors[i], small[i] = p, parted(_tall(p.mT.conj() @ tall, layout), x)
        made, base = Inner(inner, None, extra)(leaves.tree(small), state.base_optimizer_state)
        results = align(leaves, made, "scale_by_galore: what base_optimizer returned")
        for i, layout in enumerate(layouts):
            if layout is not None:
                lifted = projectors[i] @ _tall(results[i], layout)
                results[i] = times(scale, layout.join(_tall(lifted, layout)[None]))
        return leaves.tree(results), state._replace(
            base_optimizer_state=base, projector=leaves.tree(projectors)
        )

    return Rule(init, update)


def _tall(matrix: Array, layout: Layout) -> Array:
    """The matrix transposed if it has more columns than rows; its own inverse."""
    return matrix if layout.rows >= layout.columns else matrix.mT


def _projector(due: Array, x: Array, layout: Layout, old: Array, rank: int) -> Array:
    """The singular vectors, along the longer axis, of the largest singular values if due, else the
    old ones.

    They are also due where there are none yet: a leaf may get its first gradient between two steps
    on which they are recomputed.
    """
    due = due | ~jnp.any(old[:, 0] != 0)  # singular vectors have length 1

    def decompose(old: Array) -> tuple[None, Array]:
        new = undifferentiated(singular_vectors, layout.split(x))[0]
        return None, jnp.where(here(due), new, old)

    def singular_vectors(x: Array) -> Array:
        # XLA copies a matrix into another order to make a batch of it.
        u, _, vt = jnp.linalg.svd(x[0] if len(x) == 1 else x, full_matrices=False)
        long = (u if layout.rows >= layout.columns else vt.mT)[..., :rank]
        return long.reshape(-1, *long.shape[-2:])

    projector: Array = now_and_then(anywhere(due), decompose, lambda old: None, old)[1]
    return projector


def _layouts(dimension_numbers: Any, leaves: Leaves) -> list[Layout | None]:
    """How each array is laid out as a matrix; None for arrays that are not projected."""
    where = "scale_by_galore"
    given = dimension_numbers
    single = GaLoreDimensionNumbers() if given is None else given
    axes: list[Axes | None]
    if isinstance(single, GaLoreDimensionNumbers):
        most = 2 if given is None else 99
        axes = [
            Axes.of(single) if x is not None and 2 <= x.ndim <= most else None
            for x in leaves.values
        ]
    else:
        axes = axes_of(given, leaves, where)
    layouts: list[Layout | None] = []
    for x, own, path in zip(leaves.values, axes, leaves.paths, strict=True):
        if x is None or own is None or not x.size:
            layouts.append(None)
            continue
        layout = Layout.of(x.shape, own, where, path)
        if len(own.rows) + len(own.columns) != x.ndim:
            raise ValueError(
                f"{where}: {at(path)}: rows {own.rows} and columns {own.columns} must be all the "
                f"axes of an array of shape {x.shape}"
            )
        layouts.append(layout)
    return layouts


def _check(x: Array, layout: Layout | None, projector: Array | None, rank: int, path: str) -> None:
    """Refuse a projector that init made for an array of another shape."""
    fits = projector is None or not projector.size  # Optax keeps one without elements
    if layout is not None:
        short, long = sorted((layout.rows, layout.columns))
        fits = projector is not None and projector.shape == (long, min(rank, short))
    if not fits:
        given = "None" if projector is None else describe(projector)
        raise ValueError(
            f"scale_by_galore: {at(path)}: updates {describe(x)} do not fit the state's projector "
            f"{given}; was the state made by init on params of these shapes?"
        )
