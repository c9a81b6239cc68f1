"""CAME: a factored second moment, and a factored measure of how far the mean can be trusted."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.decorators import per_leaf
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.norms import rms_of
from gradtx.core.numerics import (
    abs_sq,
    real_full_like,
    running_mean,
    zeros_like,
    zeros_like_result,
)
from gradtx.core.rule import Rule
from gradtx.core.state import Updates
from gradtx.transforms.factored import over_root, root, unused

__all__ = ["CameState", "scale_by_came"]


class CameState(NamedTuple):
    """The running mean of the steps (mu), and factored running means of squares.

    For an array of two or more axes, v_row and residual_row have the parameter's shape without the
    last axis, v_col and residual_col without the last but one; for any other array, v is shaped
    like the parameter. Fields that an array does not use are zeros of shape (1,).
    """

    mu: Updates
    v_row: Updates
    v_col: Updates
    v: Updates
    residual_row: Updates
    residual_col: Updates


@per_leaf
def scale_by_came(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.9999,
    eps: NonNegative = 1e-30,
    eps_instability: NonNegative = 1e-16,
    clip_threshold: NonNegative = 1.0,
) -> Rule:
    """Divide by a factored second moment, average, and divide by how unsteady the steps are.

        V  <- b2 * V + (1 - b2) * (g^2 + eps)                           factored
        s   = g / sqrt(V),      s = s * min(1, clip_threshold / rms(s))
        mu <- b1 * mu + (1 - b1) * s
        U  <- b3 * U + (1 - b3) * ((s - mu)^2 + eps_instability)        factored
        u   = mu / sqrt(U)

    A factored mean keeps the means R over the last axis and C over the last but one; its elements
    are R * C / mean(R). Vectors and scalars keep the whole V and no U: u = mu. Running means are
    not corrected for their start at 0.

    Args:
        b3: the decay of the running mean of squared residuals. It reaches back farther than b2
        eps: a tiny number added to every squared gradient, so that no mean is 0
        eps_instability: a small number added to every squared residual, which bounds steps that
            hardly vary
        clip_threshold: the largest root mean square of a divided gradient

    State: mu, 4 bytes a parameter; for matrices, the R and C of V and U, 8 bytes a row and a
    column; for vectors, V, 4 more bytes a parameter.

    Example:
        >>> params = {"embedding": jnp.ones((4096, 512)), "scale": jnp.ones(512)}
        >>> state = jax.eval_shape(gradtx.scale_by_came().init, params)
        >>> for field in (state.mu, state.v_row, state.v_col, state.v):
        ...     print(field["embedding"].shape, field["scale"].shape)
        (4096, 512) (512,)
        (4096,) (1,)
        (512,) (1,)
        (1,) (512,)

    See also: `came`, `scale_by_factored_rms`.

    References: Luo et al., 2023, https://arxiv.org/abs/2307.02047
    """

    def init(param: Array) -> CameState:
        mu, axes = zeros_like(param), _factored_axes(param)
        if axes is None:
            none = [unused(param) for _ in range(4)]
            return CameState(mu, none[0], none[1], real_full_like(param, 0), none[2], none[3])

        def means(x: Array) -> tuple[Array, Array]:
            return jnp.mean(abs_sq(x), axes[0]), jnp.mean(abs_sq(x), axes[1])

        v_row, v_col = zeros_like_result(means, param)
        residual_row, residual_col = zeros_like_result(means, param)
        return CameState(mu, v_row, v_col, unused(param), residual_row, residual_col)

    def update(grad: Array, state: CameState) -> tuple[Array, CameState]:
        axes, square = _factored_axes(grad), abs_sq(grad) + eps

        if axes is None:
            v = running_mean(state.v, square, b2)
            mu = running_mean(state.mu, _clipped(grad / root(v), clip_threshold), b1)
            return mu, state._replace(mu=mu, v=v)

        row, column = (
            running_mean(old, jnp.mean(square, axis), b2)
            for old, axis in zip((state.v_row, state.v_col), axes, strict=True)
        )
        scaled = _clipped(over_root(grad, row, column, axes), clip_threshold)
        mu = running_mean(state.mu, scaled, b1)
        residual = abs_sq(scaled - mu) + eps_instability
        by_row, by_column = (
            running_mean(old, jnp.mean(residual, axis), b3)
            for old, axis in zip((state.residual_row, state.residual_col), axes, strict=True)
        )
        new = CameState(mu, row, column, state.v, by_row, by_column)
        return over_root(mu, by_row, by_column, axes), new

    return Rule(init, update)


def _factored_axes(x: Array) -> tuple[int, int] | None:
    """The last axis and the last but one, or None for arrays that are not factored."""
    return (x.ndim - 1, x.ndim - 2) if x.ndim > 1 and x.size else None


def _clipped(x: Array, threshold: float | Array) -> Array:
    """x, scaled down to a root mean square of at most threshold."""
    return rms_of(x).shrinking_to(threshold).times(x)
