"""Steps in the units of the parameters: Adadelta."""

from __future__ import annotations

from typing import NamedTuple

from jax import Array

from gradtx.core.decorators import per_leaf
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.numerics import abs_sq, real_full_like, running_mean, sqrt
from gradtx.core.rule import Rule
from gradtx.core.state import Updates

__all__ = ["ScaleByAdaDeltaState", "scale_by_adadelta"]


class ScaleByAdaDeltaState(NamedTuple):
    """The running means of the squared gradient (e_g) and of the squared update (e_x): real, shaped
    like the parameter."""

    e_g: Updates
    e_x: Updates


@per_leaf
def scale_by_adadelta(rho: Decay = 0.9, eps: NonNegative = 1e-6) -> Rule:
    """Scale each element by the ratio of the RMS of past updates to the RMS of past gradients.

        e_g <- rho * e_g + (1 - rho) * g^2
        u    = sqrt(e_x + eps) / sqrt(e_g + eps) * g
        e_x <- rho * e_x + (1 - rho) * u^2

    The updates have the units of the parameters, whatever the scale of the gradients; the learning
    rate that follows is usually 1.

    Args:
        rho: the decay of both running means, which reach back about 1 / (1 - rho) steps. Larger
            values average over more gradients and react more slowly.
        eps: a number added to both means under the root. It sets the length of the first steps,
            about sqrt(eps / (1 - rho)), since e_x starts from 0: raise it where training starts too
            slowly.

    State: e_g and e_x, 8 bytes a parameter.

    Example:
        >>> tx = gradtx.scale_by_adadelta()
        >>> params = jnp.zeros(2)
        >>> grads = jnp.array([0.1, 100.0])
        >>> updates, state = tx.update(grads, tx.init(params))
        >>> np.asarray(updates).round(4)  # the same step for both
        array([0.0032, 0.0032], dtype=float32)

    See also: `adadelta`, `scale_by_rms`.

    References: Zeiler, 2012, https://arxiv.org/abs/1212.5701
    """

    def init(param: Array) -> ScaleByAdaDeltaState:
        return ScaleByAdaDeltaState(real_full_like(param, 0), real_full_like(param, 0))

    def update(grad: Array, state: ScaleByAdaDeltaState) -> tuple[Array, ScaleByAdaDeltaState]:
        e_g = running_mean(state.e_g, abs_sq(grad), rho)
        u = sqrt(state.e_x + eps) / sqrt(e_g + eps) * grad
        return u, ScaleByAdaDeltaState(e_g, running_mean(state.e_x, abs_sq(u), rho))

    return Rule(init, update)
