"""GaLore: an optimizer that sees each matrix of gradients through a few of its directions."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import widen
from gradtx.core.holding import now_and_then
from gradtx.core.inner import Inner
from gradtx.core.kinds import PositiveInt, Real
from gradtx.core.leaves import Leaves, align, at, describe
from gradtx.core.numerics import times
from gradtx.core.rule import Rule
from gradtx.core.state import Count, LikeParams, OptState
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.adam import scale_by_adam
from gradtx.transforms.matrix_axes import Axes, GaLoreDimensionNumbers, Layout, axes_of

__all__ = ["GaLoreState", "scale_by_galore"]


class GaLoreState(NamedTuple):
    """The optimizer's state, of small matrices; the projectors, empty where there is none."""

    count: Count
    base_optimizer_state: OptState
    projector: LikeParams


@per_tree
def scale_by_galore(
    rank: PositiveInt = 128,
    update_proj_gap: PositiveInt = 200,
    scale: Real = 1.0,
    base_optimizer: GradientTransformation | None = None,
    weight_dimension_numbers: Any = None,
) -> Any:
    """Run an optimizer on each matrix's projection to the largest singular directions.

        P <- the first `rank` left singular vectors of G         on every update_proj_gap-th step
        u  = scale * P base_optimizer(P^T G)

    for matrices with at least as many rows as columns; of the others the right singular vectors,
    u = scale * base_optimizer(G P) P^T. All other arrays go through base_optimizer as they are; it
    is `scale_by_adam()` without one, and it must not need the parameters. P is a constant to
    derivatives.

    weight_dimension_numbers: `GaLoreDimensionNumbers` for all arrays of two axes and more, a tree
    of them like the params, with None for arrays that are not projected, or a function that makes
    one. Without it the arrays of two axes are matrices.

    Raises: ValueError where rank or update_proj_gap is no whole number >= 1 and, with the leaf's
    path, for dimension numbers that leave out an axis. Zhao et al., 2024,
    https://arxiv.org/abs/2403.03507
    """
    inner = scale_by_adam() if base_optimizer is None else base_optimizer

    def init(params: Any, step: Any) -> GaLoreState:
        leaves = Leaves.of(params)
        projectors, small = [], []
        for x, layout in zip(
            leaves.values, _layouts(weight_dimension_numbers, leaves), strict=True
        ):
            if layout is None:
                projectors.append(None if x is None else jnp.zeros((0, 0), x.dtype))
                small.append(x)
            else:
                tall = _tall(layout.split(x)[0], layout)
                # Zeros like a part of the parameter lie where the parameter lies.
                directions = jnp.zeros_like(tall[:, :rank][:, : tall.shape[1]])
                projectors.append(directions)
                few = min(rank, tall.shape[1])
                small.append(_tall(jnp.zeros((few, tall.shape[1]), x.dtype), layout))
        base = inner.init(leaves.tree(small))
        return GaLoreState(step.count, base, leaves.tree(projectors))

    def update(updates: Any, state: GaLoreState, step: Any, **extra: Any) -> Any:
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
                tall = _tall(layout.split(x)[0], layout)
                projectors[i] = p = _projector(due, tall, widen(old[i], x.dtype), rank)
                small[i] = _tall(p.mT.conj() @ tall, layout)
        made, base = Inner(inner, None, extra)(leaves.tree(small), state.base_optimizer_state)
        results = align(leaves, made, "scale_by_galore: what base_optimizer returned")
        for i, layout in enumerate(layouts):
            if layout is not None:
                lifted = projectors[i] @ _tall(results[i], layout)
                results[i] = times(scale, layout.join(_tall(lifted, layout)[None]))
        return leaves.tree(results), GaLoreState(step.count, base, leaves.tree(projectors))

    return Rule(init, update)


def _tall(matrix: jax.Array, layout: Layout) -> jax.Array:
    """The matrix with at least as many rows as columns, and back."""
    return matrix if layout.rows >= layout.columns else matrix.mT


def _projector(due: Any, tall: jax.Array, old: jax.Array, rank: int) -> jax.Array:
    """The left singular vectors of the largest singular values, where they are due."""

    def decompose(old: jax.Array) -> tuple[None, jax.Array]:
        return None, jnp.linalg.svd(lax.stop_gradient(tall), full_matrices=False)[0][:, :rank]

    projector: jax.Array = now_and_then(due, decompose, lambda old: None, old)[1]
    return projector


def _layouts(dimension_numbers: Any, leaves: Leaves) -> list[Layout | None]:
    """How each array is a matrix; None for those that are not projected."""
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


def _check(x: Any, layout: Layout | None, projector: Any, rank: int, path: str) -> None:
    shape: tuple[int, ...] = (0, 0)
    if layout is not None:
        short, long = sorted((layout.rows, layout.columns))
        shape = (long, min(rank, short))
    if projector.shape != shape:
        raise ValueError(
            f"scale_by_galore: {at(path)}: updates {describe(x)} do not fit the state's projector "
            f"{describe(projector)}; was the state made by init on params of these shapes?"
        )
