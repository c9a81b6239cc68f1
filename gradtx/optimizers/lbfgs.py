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
    """Multiply the gradient by an inverse Hessian from the last steps, then search along the line.

        dw = w - w_before,  du = g - g_before,  rho = 1 / <dw, du>     (of the last m steps)
        q = g;        for i from the newest to the oldest:  a_i = rho_i <dw_i, q>,  q -= a_i du_i
        p = gamma q;  for i from the oldest to the newest:  p += (a_i - rho_i <du_i, p>) dw_i
        u = -eta p,                                         eta from the line search

    It is for smooth, deterministic objectives: full batches, fits, physics. Gradients of
    mini-batches spoil the estimate. With the line search, update needs the objective, `value_fn=f`;
    passing value and grad, as in the example, saves an evaluation.

    Args:
        learning_rate: a factor on the direction, before the line search; None means 1, which is
            right with a line search
        memory_size: m, how many steps the estimate is based on. More is more accurate and takes
            more memory and time; 5 to 20 is usual
        scale_init_precond: begin with gamma = <dw, du> / <du, du> of the newest step (min(1, 1 /
            ||g||) on the first); False with gamma = 1
        linesearch: the search for eta, `scale_by_zoom_linesearch` by default, which evaluates
            value_fn up to 20 times; None takes the full step, or learning_rate times it, and needs
            only the gradient and params

    State: params, gradient and 2 m differences, 8 (m + 1) bytes a parameter, and 4 more for the
    gradient that the line search leaves: 92 at the default.

    Raises: TypeError if update is called without value_fn where there is a line search.

    Example:
        >>> f = lambda x: jnp.sum(jnp.array([1.0, 100.0]) * (x - 1) ** 2)
        >>> tx = gradtx.lbfgs()
        >>> @jax.jit
        ... def step(params, state):
        ...     value, grad = gradtx.value_and_grad_from_state(f)(params, state=state)
        ...     return gradtx.step(tx, grad, state, params, value=value, grad=grad, value_fn=f)
        >>> params = jnp.zeros(2)
        >>> state = tx.init(params)
        >>> for _ in range(5):
        ...     params, state = step(params, state)
        >>> print(np.asarray(params).round(2))
        [1. 1.]

    See also: `scale_by_lbfgs`, `scale_by_zoom_linesearch`, `value_and_grad_from_state`.

    References: Liu & Nocedal, 1989, https://doi.org/10.1007/BF01589116; Nocedal & Wright, Numerical
    Optimization, 2nd edition, algorithm 7.4
    """
    return chain(
        scale_by_lbfgs(memory_size, scale_init_precond),
        scale(-1.0) if learning_rate is None else scale_by_learning_rate(learning_rate),
        identity() if linesearch is None else linesearch,
    )
