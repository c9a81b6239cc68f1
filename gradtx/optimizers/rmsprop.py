"""RMSProp."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.combinators.stateless import identity
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, Fraction, NonNegative
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.momentum import trace
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.second_moment import scale_by_rms, scale_by_stddev

__all__ = ["rmsprop"]


@recipe
def rmsprop(
    learning_rate: NonNegative,
    decay: Decay = 0.9,
    eps: NonNegative = 1e-8,
    initial_scale: NonNegative = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Fraction | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
    *,
    learning_rate_in_momentum: bool = True,
) -> GradientTransformation:
    """Divide each gradient by the root of the running mean of its square.

        nu <- decay * nu + (1 - decay) * g^2        (nu starts at initial_scale)
        a   = g / sqrt(nu + eps)                    g / (sqrt(nu) + eps) with eps_in_sqrt=False
        u   = -learning_rate * a

        mu <- decay * mu + (1 - decay) * g          with centered: max(nu - mu^2, 0) replaces nu
        v  <- momentum * v - learning_rate * a      with momentum: u = v, and with nesterov
                                                    u = momentum * v - learning_rate * a

    With learning_rate_in_momentum=False, v <- momentum * v + a, and the learning rate multiplies v.

    Steps are about learning_rate long whatever the scale of the gradients; it is the usual choice
    where gradients are far from stationary, as in reinforcement learning.

    Args:
        decay: the decay of the running mean of squares, which reaches back about 1 / (1 - decay)
            steps. Larger (0.99) is steadier
        initial_scale: the initial value of the running mean of squares; above 0 it shortens the
            first steps
        centered: divide by the running standard deviation instead, which makes steps longer where
            gradients agree
        momentum: the decay of a running sum of steps: 0.9 adds up about the last ten. None keeps no
            state
        bias_correction: divide the running means by 1 - decay^t, since they start from 0; without
            it the first steps are too long
        learning_rate_in_momentum: whether the momentum buffer holds steps, already multiplied by
            the learning rate (Optax), or directions (False, PyTorch). The two differ once the rate
            changes

    State: nu, 4 bytes a parameter; centered and momentum add 4 bytes a parameter each.

    Example:
        >>> for correct in (False, True):
        ...     tx = gradtx.rmsprop(0.1, bias_correction=correct)
        ...     updates, state = tx.update(jnp.array([5.0]), tx.init(jnp.array([0.0])))
        ...     print(np.asarray(updates).round(3))
        [-0.316]
        [-0.1]

    See also: `adam`, also with a mean of gradients; `adagrad`, which forgets nothing.

    References: Tieleman & Hinton, 2012,
    https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf; centered: Graves,
    2013, https://arxiv.org/abs/1308.0850
    """
    scale_by = scale_by_stddev if centered else scale_by_rms
    direction = scale_by(decay, eps, initial_scale, eps_in_sqrt, bias_correction)
    buffer = identity() if momentum is None else trace(momentum, nesterov)
    rate = scale_by_learning_rate(learning_rate)
    if learning_rate_in_momentum:
        return chain(direction, rate, buffer)
    return chain(direction, buffer, rate)
