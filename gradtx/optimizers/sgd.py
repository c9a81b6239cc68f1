"""Stochastic gradient descent."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.combinators.stateless import identity
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import DType, Fraction, NonNegative
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.momentum import trace
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["sgd"]


@recipe
def sgd(
    learning_rate: NonNegative,
    momentum: Fraction | None = None,
    nesterov: bool = False,
    accumulator_dtype: DType | None = None,
) -> GradientTransformation:
    """Step against the gradient, optionally with momentum.

        v <- momentum * v + g
        u  = -learning_rate * v         -learning_rate * (g + momentum * v) with nesterov

    and u = -learning_rate * g without momentum. The steps are in proportion to the gradients, so
    the learning rate depends on the problem. With momentum it is the usual choice for convolutional
    networks. v is a sum: a momentum of 0.9 makes steps ten times as long in the end.

    Args:
        momentum: the decay of v, the running sum of gradients: 0.9 adds up about the last ten. None
            keeps no state
        nesterov: look ahead: use what v becomes if the next gradient equals this one. Without
            momentum it changes nothing

    State: none; v, 4 bytes a parameter, with momentum.

    Example:
        >>> tx = gradtx.sgd(0.1, momentum=0.9)
        >>> state = tx.init(jnp.array([0.0]))
        >>> for _ in range(3):
        ...     updates, state = tx.update(jnp.array([1.0]), state)
        ...     print(np.asarray(updates).round(3))
        [-0.1]
        [-0.19]
        [-0.271]

    See also: `gradtx.torch.sgd`, with dampening and L2; `add_decayed_weights`; `adam`.

    References: Sutskever et al., 2013, https://proceedings.mlr.press/v28/sutskever13.html
    """
    return chain(
        identity() if momentum is None else trace(momentum, nesterov, accumulator_dtype),
        scale_by_learning_rate(learning_rate),
    )
