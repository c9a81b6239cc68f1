"""L-BFGS with a line search."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.combinators.stateless import identity
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import NonNegative, PositiveInt
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.lbfgs import scale_by_lbfgs
from gradtx.transforms.scaling import scale, scale_by_learning_rate
from gradtx.transforms.zoom import scale_by_zoom_linesearch

__all__ = ["lbfgs"]

_ZOOM = scale_by_zoom_linesearch(20, initial_guess_strategy="one")


@recipe
def lbfgs(
    learning_rate: NonNegative | None = None,
    memory_size: PositiveInt = 10,
    scale_init_precond: bool = True,
    linesearch: GradientTransformation | None = _ZOOM,
) -> GradientTransformation:
    """L-BFGS. Liu & Nocedal, 1989, https://doi.org/10.1007/BF01589116

    `update(grad, state, params, value=value, grad=grad, value_fn=f)`; linesearch=None takes the
    full step, or learning_rate times it, and needs only the gradient and params. See
    `scale_by_lbfgs`, `scale_by_zoom_linesearch` and `value_and_grad_from_state`.
    """
    return chain(
        scale_by_lbfgs(memory_size, scale_init_precond),
        scale(-1.0) if learning_rate is None else scale_by_learning_rate(learning_rate),
        identity() if linesearch is None else linesearch,
    )
