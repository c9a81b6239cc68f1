"""NovoGrad."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, NonNegative, NonNegativeOrOff
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.novograd import scale_by_novograd
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["novograd"]


@recipe
def novograd(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.25,
    eps: NonNegative = 1e-6,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegativeOrOff = 0.0,
) -> GradientTransformation:
    """Divide each array's gradient by a running norm of the whole array, then apply momentum.

        nu <- b2 * nu + (1 - b2) * ||g||^2          (the first nu is ||g||^2)
        mu <- b1 * mu + g / (sqrt(nu + eps_root) + eps) + weight_decay * param
        u   = -learning_rate * mu

    Every layer moves by steps of similar length, with half of Adam's state. mu is a sum: steps grow
    to about 1 / (1 - b1) times the first. Weight decay is inside the momentum.

    Args:
        b1: the decay of mu, the running sum of divided gradients, which adds up about 1 / (1 - b1)
            of them
        b2: the decay of nu, the running mean of the squared norm. It is low, since a norm varies
            less than the elements
        weight_decay: how strongly parameters are pulled towards 0: this fraction of each is added
            to the divided gradient. A literal 0 turns it off, and then no parameters are needed

    State: mu, 4 bytes a parameter, and one number per array.

    Example:
        >>> tx = gradtx.novograd(1.0)
        >>> grads = {"large": jnp.array([30.0, 40.0]), "small": jnp.array([0.3, 0.4])}
        >>> updates, state = tx.update(grads, tx.init(grads))
        >>> print(np.asarray(updates["large"]).round(3), np.asarray(updates["small"]).round(3))
        [-0.6 -0.8] [-0.6 -0.8]

    See also: `adam`, with a divisor per element; `lars`, whose steps also depend on the parameter's
    norm.

    References: Ginsburg et al., 2019, https://arxiv.org/abs/1905.11286
    """
    return chain(
        scale_by_novograd(b1, b2, eps, eps_root, weight_decay),
        scale_by_learning_rate(learning_rate),
    )
