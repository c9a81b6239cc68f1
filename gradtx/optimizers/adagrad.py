"""AdaGrad."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import NonNegative
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.second_moment import scale_by_rss

__all__ = ["adagrad"]


@recipe
def adagrad(
    learning_rate: NonNegative,
    initial_accumulator_value: NonNegative = 0.1,
    eps: NonNegative = 1e-7,
    *,
    eps_in_sqrt: bool = True,
) -> GradientTransformation:
    """Divide each gradient by the root of the sum of all its squares so far.

        s <- s + g^2                                (s starts at initial_accumulator_value)
        u  = -learning_rate * g / sqrt(s + eps)     (sqrt(s) + eps below with eps_in_sqrt=False)

    and u = 0 where s = 0. Steps only ever become shorter, like 1 / sqrt(t) while gradients keep
    their size. It suits sparse gradients: a rare feature, such as the embedding of a rare word,
    still moves far when its gradient comes.

    Args:
        initial_accumulator_value: the initial value of the sum of squares; a larger one makes the
            first steps shorter, 0 makes the very first one learning_rate long
        eps: a small number added to the sum of squares (to its root with eps_in_sqrt=False), which
            keeps the divisor away from 0

    State: the sum s, 4 bytes a parameter.

    Example:
        >>> params = jnp.array([0.0])
        >>> tx = gradtx.adagrad(1.0, initial_accumulator_value=0.0)
        >>> state = tx.init(params)
        >>> for _ in range(3):
        ...     updates, state = tx.update(jnp.array([5.0]), state, params)
        ...     print(np.asarray(updates).round(2))
        [-1.]
        [-0.71]
        [-0.58]

    See also: `rmsprop` and `adam`, which forget old gradients; `sm3`, with less state.

    References: Duchi et al., 2011, https://jmlr.org/papers/v12/duchi11a.html
    """
    return chain(
        scale_by_rss(initial_accumulator_value, eps, eps_in_sqrt=eps_in_sqrt),
        scale_by_learning_rate(learning_rate),
    )
