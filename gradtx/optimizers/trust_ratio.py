"""LAMB, LARS and Fromage: steps in proportion to the size of the parameters."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.combinators.masked import masked
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, Fraction, NonNegative
from gradtx.core.mask import MaskLike
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.adam import scale_by_adam
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.momentum import trace
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.trust_ratio import (
    descend_on_sphere,
    scale_by_trust_ratio,
    shrink_to_sphere,
)

__all__ = ["fromage", "lamb", "lars"]


@recipe
def lamb(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    mask: MaskLike = None,
    *,
    cautious_weight_decay: bool = False,
) -> GradientTransformation:
    """Take AdamW's steps, scaled in each array to the norm of its parameter.

        mu <- b1 * mu + (1 - b1) * g
        nu <- b2 * nu + (1 - b2) * g^2
        a   = m / (sqrt(n + eps_root) + eps) + weight_decay * param
        u   = -learning_rate * ||param|| / ||a|| * a
        m   = mu / (1 - b1^t)          n = nu / (1 - b2^t)

    If either of the two norms is 0, u = -learning_rate * a. Every array changes by the same
    fraction, learning_rate, of its norm, which allows large learning rates and thus large batches.

    Args:
        learning_rate: the length of a step relative to the norm of each array
        weight_decay: how strongly parameters are pulled towards 0. It changes the direction of the
            step, but not its length. 0 switches it off
        mask: the parameters that decay: a tree of booleans (or a prefix of one), a function from
            the params to one, or a path pattern such as "kernel" or ~matching("bias|scale"); None
            means all

    State: mu and nu, 8 bytes a parameter.

    Example:
        >>> params = {"large": jnp.array([300.0, 400.0]), "small": jnp.array([3.0, 4.0])}
        >>> grads = {"large": jnp.array([1.0, 1.0]), "small": jnp.array([1.0, 1.0])}
        >>> tx = gradtx.lamb(0.01)
        >>> updates, state = tx.update(grads, tx.init(params), params)
        >>> print(jax.tree.map(lambda u: f"{jnp.linalg.norm(u):.2f}", updates))
        {'large': '5.00', 'small': '0.05'}

    See also: `lars`, without a second moment; `adamw`.

    References: You et al., 2019, https://arxiv.org/abs/1904.00962
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root),
        add_decayed_weights(weight_decay, mask, cautious=cautious_weight_decay),
        scale_by_trust_ratio(),
        scale_by_learning_rate(learning_rate),
    )


@recipe
def lars(
    learning_rate: NonNegative,
    weight_decay: NonNegative = 0.0,
    weight_decay_mask: MaskLike = True,
    trust_coefficient: NonNegative = 0.001,
    eps: NonNegative = 0.0,
    trust_ratio_mask: MaskLike = True,
    momentum: Fraction = 0.9,
    nesterov: bool = False,
) -> GradientTransformation:
    """Take SGD's steps with momentum, scaled in each array to the norm of its parameter.

        g  = grad + weight_decay * param                        (where weight_decay_mask selects)
        a  = trust_coefficient * ||param|| / (||g|| + eps) * g  (where trust_ratio_mask selects)
        v <- momentum * v - learning_rate * a
        u  = v                              u = momentum * v - learning_rate * a with nesterov

    Elsewhere, and if either of the two norms is 0, a = g. The momentum buffer includes the learning
    rate. It is for convolutional networks with large batches; biases and the scales of
    normalisation layers are usually left out of both masks.

    Args:
        learning_rate: the length of a step relative to the norm of each array, times
            trust_coefficient
        weight_decay: L2 regularisation: this fraction of each parameter is added to its gradient,
            before the scaling. 0 switches it off
        weight_decay_mask: the parameters that decay: a tree of booleans (or a prefix of one), a
            function from the params to one, or a path pattern such as "kernel" or
            ~matching("bias|scale"); True means all
        trust_coefficient: the length of a step relative to the norm of the parameter, in addition
            to the learning rate
        eps: a small number added to the gradient's norm
        trust_ratio_mask: the parameters whose gradients are scaled by the trust ratio, given like
            weight_decay_mask
        momentum: the decay of v, the running sum of steps: 0.9 adds up about the last ten

    State: v, 4 bytes a parameter.

    Example:
        >>> params = {"kernel": jnp.array([30.0, 40.0]), "bias": jnp.array([30.0, 40.0])}
        >>> grads = {"kernel": jnp.array([3.0, 4.0]), "bias": jnp.array([3.0, 4.0])}
        >>> tx = gradtx.lars(1.0, trust_coefficient=0.001, trust_ratio_mask="kernel")
        >>> updates, state = tx.update(grads, tx.init(params), params)
        >>> print(np.asarray(updates["kernel"]).round(3), np.asarray(updates["bias"]).round(3))
        [-0.03 -0.04] [-3. -4.]

    See also: `lamb`, with a second moment; `sgd`.

    References: You et al., 2017, https://arxiv.org/abs/1708.03888
    """
    return chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        masked(scale_by_trust_ratio(0.0, trust_coefficient, eps), trust_ratio_mask),
        scale_by_learning_rate(learning_rate),
        trace(momentum, nesterov),
    )


@recipe
def fromage(learning_rate: NonNegative, min_norm: NonNegative = 1e-6) -> GradientTransformation:
    """Take steps of constant relative length that do not make the parameters grow.

        a = max(||param||, min_norm) / max(||g||, min_norm) * g         (norms of each array)
        u = (param - learning_rate * a) / sqrt(1 + learning_rate^2) - param

    With min_norm = 0, a = g if either norm is 0. A step orthogonal to the parameter lengthens it by
    a factor of sqrt(1 + learning_rate^2), which the division undoes.

    Args:
        learning_rate: the length of a step relative to the norm of each array: 0.01 changes
            parameters by about one percent
        min_norm: a lower bound on both norms in the ratio, so that arrays of zeros move, too

    State: none.

    Example:
        >>> params = jnp.array([3.0, 4.0])
        >>> grads = jnp.array([-40.0, 30.0])
        >>> tx = gradtx.fromage(0.5)
        >>> updates, state = tx.update(grads, tx.init(params), params)
        >>> after = np.asarray(params + updates)
        >>> print(after.round(2), np.linalg.norm(after).round(2))
        [4.47 2.24] 5.0

    See also: `lars`, `lamb`.

    References: Bernstein et al., 2020, https://arxiv.org/abs/2002.03432
    """
    return chain(
        scale_by_trust_ratio(min_norm),
        descend_on_sphere(learning_rate),
        shrink_to_sphere(learning_rate),
    )
