"""MARS: gradients corrected by how they changed since the previous step."""

from __future__ import annotations

from typing import NamedTuple

import jax
from jax import Array, lax

from gradtx.core.decorators import per_leaf, per_tree
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.leaves import Leaves, aligned_arrays
from gradtx.core.norms import norm_of
from gradtx.core.numerics import running_mean, times, zeros_like
from gradtx.core.rule import Rule
from gradtx.core.state import LikeParams, Params, Updates
from gradtx.transforms.orthogonal import STANDARD, layouts_of, newton_schulz, of_matrices

__all__ = ["MarsMeanState", "MarsState", "scale_by_mars_correction"]


class MarsState(NamedTuple):
    """The gradient of the previous step, shaped like the parameter; 0 at first."""

    last_grad: Updates


@per_leaf
def scale_by_mars_correction(
    gamma: NonNegative = 0.025, b1: Decay = 0.95, clip: NonNegative | None = 1.0
) -> Rule:
    """Add to the gradient part of its change since the previous step, and clip each array.

        c = g + gamma * b1 / (1 - b1) * (g - g_before)
        u = c * min(1, clip / ||c||)                    u = c if clip is None

    It goes before the moments of any optimizer, whose running mean of gradients lags behind by
    about b1 / (1 - b1) steps: the change makes up for part of that lag, and reduces the variance of
    the mean. The gradient before the first is taken to be 0.

    Args:
        gamma: how much of the change is added; 0 adds nothing, 1 makes up for all of the lag
        b1: the decay of the running mean that follows
        clip: the largest norm of an array; None does not clip

    State: last_grad, 4 bytes a parameter.

    Example:
        >>> tx = gradtx.scale_by_mars_correction(gamma=0.5, b1=0.5, clip=None)
        >>> state = tx.init(jnp.zeros(1))
        >>> for grad in (2.0, 2.0, 1.0):
        ...     updates, state = tx.update(jnp.array([grad]), state)
        ...     print(updates)
        [3.]
        [2.]
        [0.5]

    See also: `mars`.

    References: Yuan et al., 2024, https://arxiv.org/abs/2411.10438
    """

    def init(param: Array) -> MarsState:
        return MarsState(zeros_like(param))

    def update(grad: Array, state: MarsState) -> tuple[Array, MarsState]:
        change = lax.sub(grad, state.last_grad)
        corrected = lax.add(grad, times(gamma * b1 / (1 - b1), change))
        if clip is not None:
            corrected = norm_of([corrected]).shrinking_to(clip).times(corrected)
        return corrected, MarsState(grad)

    return Rule(init, update)


class MarsMeanState(NamedTuple):
    """The running mean of the updates, a tree like the params."""

    mu: LikeParams


@per_tree
def orthogonal_mean(b1: Decay, eps: NonNegative) -> Rule:
    """mu <- b1 * mu + (1 - b1) * g;  u = newton_schulz(mu), with eps beside ||mu|| / (1 - b1)"""

    def init(params: Params) -> MarsMeanState:
        return MarsMeanState(jax.tree.map(zeros_like, params))

    def update(updates: Updates, state: MarsMeanState) -> tuple[Updates, MarsMeanState]:
        leaves = Leaves.of(updates)
        old = aligned_arrays(leaves, state.mu, "mars: the state's mu")
        mu = leaves.tree(
            None if g is None else running_mean(m, g, b1)
            for g, m in zip(leaves.values, old, strict=True)
        )
        given = ((STANDARD,) * 5, "frobenius", eps, 1 / (1 - b1))
        layouts = layouts_of(None, leaves, "mars")
        made = of_matrices(newton_schulz, Leaves.of(mu), layouts, *given)
        return leaves.tree(made), MarsMeanState(mu)

    return Rule(init, update)
