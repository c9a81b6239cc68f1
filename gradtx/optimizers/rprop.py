"""Rprop."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import AtLeastOne, Fraction, NonNegative
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.rprop import scale_by_rprop
from gradtx.transforms.scaling import scale

__all__ = ["rprop"]


@recipe
def rprop(
    learning_rate: NonNegative,
    eta_minus: Fraction = 0.5,
    eta_plus: AtLeastOne = 1.2,
    min_step_size: NonNegative = 1e-6,
    max_step_size: NonNegative = 50.0,
) -> GradientTransformation:
    """Follow the gradient's signs, with longer steps while they persist, shorter once they flip.

        turn  = sign(g) * sign(the last step's g)       (0 after a step of 0)
        size <- clip(size * f, min_step_size, max_step_size)
        f     = eta_plus where turn > 0,    eta_minus where turn < 0,    1 where turn = 0
        u     = -size * sign(g), and 0 where turn < 0

    Resilient propagation, for full-batch gradients: the signs of noisy ones flip by chance. There
    is no backtracking (iRprop-), as in PyTorch.

    Args:
        learning_rate: the step size with which every parameter starts
        eta_minus: the factor on a step size when the sign flips
        eta_plus: the factor on a step size while the sign persists
        min_step_size: the least step size
        max_step_size: the largest step size

    State: the step sizes and the last steps, 8 bytes a parameter.

    Raises: TypeError for complex parameters.

    Example:
        >>> tx = gradtx.rprop(0.1)
        >>> state = tx.init(jnp.array([0.0]))
        >>> for grad in (5.0, 3.0, -0.1, -0.1):
        ...     updates, state = tx.update(jnp.array([grad]), state)
        ...     print(np.asarray(state[0].step_sizes).round(3))
        [0.1]
        [0.12]
        [0.06]
        [0.06]

    See also: `sign_sgd`, with one step size; `lbfgs`, also for full batches.

    References: Riedmiller & Braun, 1993, https://doi.org/10.1109/ICNN.1993.298623
    """
    return chain(
        scale_by_rprop(learning_rate, eta_minus, eta_plus, min_step_size, max_step_size),
        scale(-1.0),
    )
