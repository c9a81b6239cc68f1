"""AdaBelief and ACProp."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.mask import MaskLike
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.belief import scale_by_acprop, scale_by_belief
from gradtx.transforms.decay import decoupled_decay
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["acprop", "adabelief"]


@recipe
def adabelief(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """Divide the running mean of the gradient by the RMS distance of gradients from that mean.

        mu <- b1 * mu + (1 - b1) * g
        nu <- b2 * nu + (1 - b2) * (g - mu)^2 + eps_root
        u   = -learning_rate * m / (sqrt(nu / (1 - b2^t)) + eps),       m = mu / (1 - b1^t)

    With nesterov, m = b1 * mu / (1 - b1^(t+1)) + (1 - b1) * g / (1 - b1^t).

    Steps are long where gradients agree with their mean, and short where they scatter around it;
    Adam's are short wherever gradients are large.

    Args:
        b2: the decay of the running mean of squared distances, which reaches back about 1 / (1 -
            b2) steps
        eps: a small number added to the denominator; it is small because distances are smaller than
            gradients. Raise it (1e-12, 1e-8) if steps become too long where gradients hardly vary
        eps_root: a number added to nu at every step, so that the root has a derivative

    State: mu and nu, 8 bytes a parameter.

    Example:
        >>> params = jnp.array([0.0, 0.0])
        >>> tx = gradtx.adabelief(0.1)
        >>> state = tx.init(params)
        >>> for sign in (1.0, -1.0) * 5:  # gradients that agree; that scatter
        ...     updates, state = tx.update(jnp.array([1.0, sign]), state, params)
        >>> print(np.asarray(updates).round(3))
        [-0.164  0.006]

    See also: `adam`, `acprop`.

    References: Zhuang et al., 2020, https://arxiv.org/abs/2010.07468
    """
    return chain(
        scale_by_belief(b1, b2, eps, eps_root, nesterov=nesterov),
        scale_by_learning_rate(learning_rate),
    )


@recipe
def acprop(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
    weight_decay: NonNegative = 0.0,
    mask: MaskLike = None,
    *,
    independent_decay: bool = False,
    cautious_weight_decay: bool = False,
) -> GradientTransformation:
    """Divide the gradient by the RMS distance of the earlier gradients from their running mean.

        a   = g / (sqrt(nu / (1 - b2^(t-1))) + eps)         a = g / (1 + eps) on the first step
        nu <- b2 * nu + (1 - b2) * (g - mu)^2 + eps_root
        mu <- b1 * mu + (1 - b1) * g
        u   = -learning_rate * (a + weight_decay * param)

    in this order: the distance is measured from the mean of the earlier gradients, as in the
    authors' implementation, and a gradient does not enter its own divisor. There is no momentum.

    If all gradients of an element so far were zero or absent, its nu is, to within one percent,
    what eps_root alone accumulates to, and its first nonzero gradient would produce a step in the
    millions. There the gradient is divided by |g| if that is larger, so that |a| <= 1.

    Args:
        b1: the decay of the running mean of gradients, from which distances are measured; it does
            not smooth the step
        b2: the decay of the running mean of squared distances, which reaches back about 1 / (1 -
            b2) steps
        eps_root: a number added to nu at every step, so that the root has a derivative
        mask: the parameters that decay: a tree of booleans (or a prefix of one), a function from
            the params to one, or a path pattern such as "kernel" or ~matching("bias|scale"); None
            means all

    State: mu and nu, 8 bytes a parameter.

    Example:
        >>> params = jnp.array([0.0])
        >>> tx = gradtx.acprop(0.1)
        >>> state = tx.init(params)
        >>> for grad in (2.0, 2.0, -2.0):
        ...     updates, state = tx.update(jnp.array([grad]), state, params)
        ...     print(np.asarray(updates).round(3))
        [-0.2]
        [-0.1]
        [0.105]

    See also: `adabelief`, with momentum; `adopt`.

    References: Zhuang et al., 2021, https://arxiv.org/abs/2110.05454
    """
    return chain(
        scale_by_acprop(b1, b2, eps, eps_root),
        *decoupled_decay(
            learning_rate, weight_decay, mask, independent_decay, cautious_weight_decay
        ),
    )
