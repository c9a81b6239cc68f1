"""Line searches: evaluations of the objective decide how far to go along the updates."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.tree_util import PyTreeDef
from jax.typing import ArrayLike, DTypeLike

from gradtx import tree
from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import cast, compute_dtype, drop_weak_type, real_dtype
from gradtx.core.hyperparameters import NonNegative, Number, Positive, PositiveInt, ScalarOrSchedule
from gradtx.core.numerics import infinity
from gradtx.core.origin import nodes_of, the_only
from gradtx.core.problem import accepted, is_negated
from gradtx.core.rule import Rule
from gradtx.core.state import LikeParams, OptState, Params, Updates, is_named_tuple

__all__ = [
    "BacktrackingLinesearchInfo",
    "ScaleByBacktrackingLinesearchState",
    "scale_by_backtracking_linesearch",
    "value_and_grad_from_state",
]

Shrink = Annotated[ScalarOrSchedule, Number("in (0, 1)", lambda x: (x > 0) & (x < 1))]
Growth = Annotated[ScalarOrSchedule, Number("> 0", lambda x: x > 0, example=2.0)]  # may be infinite
Curvature = Annotated[ScalarOrSchedule, Number(">= 0", lambda x: x >= 0)]

# value_fn: from params and extra arguments to a scalar.
Objective = Callable[..., ArrayLike]


class Line(NamedTuple):
    """The objective along the updates: phi(step) = f(params + step * updates).

    value, slope and grad: phi(0), phi'(0), both scalars, and the gradient of f at params. Gradients
    here are those of `jax.grad`: for complex params, the conjugate of the direction of ascent.
    """

    function: Callable[[Params], ArrayLike]
    params: Params
    updates: Updates
    value: Array
    slope: Array
    grad: Updates

    def at(self, step: Array) -> Params:
        """params + step * updates, in the dtypes of the gradient, which are those of the params."""
        moved = jax.tree.map(
            lambda p, u: p + cast(step, p.real.dtype) * u, self.params, self.updates
        )
        return _rounded(moved, self.grad)

    def value_at(self, step: Array) -> Array:
        """phi(step)"""
        return _scalar(self.function(self.at(step)), self.value.dtype)

    def look(self, step: Array) -> tuple[Array, Array, Updates]:
        """phi(step), its derivative, and the gradient of f there."""
        value, grad = jax.value_and_grad(self.function)(self.at(step))
        return _scalar(value, self.value.dtype), _slope(grad, self.updates, self.value.dtype), grad


def line_along(
    updates: Updates,
    params: Params,
    value_fn: Objective,
    value: ArrayLike | None,
    grad: Updates | None,
    extra: dict[str, Any],
) -> Line:
    """The line of one search. Derivatives treat what is found on it as constant."""
    updates, params, value, grad = jax.tree.map(lax.stop_gradient, (updates, params, value, grad))
    function = functools.partial(value_fn, **accepted(value_fn, extra))
    dtype = scalar_dtype_of(params)
    if grad is None:
        found, grad = jax.value_and_grad(function)(params)
        value = found if value is None else value
    else:
        value = function(_rounded(params, grad)) if value is None else value
        grad = tree.conj(grad)
    return Line(
        function, params, updates, _scalar(value, dtype), _slope(grad, updates, dtype), grad
    )


def _slope(grad: Updates, updates: Updates, dtype: DTypeLike) -> Array:
    """Re <ascent, updates>"""
    return cast(tree.vdot(tree.conj(grad), updates).real, dtype)


def scalar_dtype_of(params: Params) -> np.dtype[Any]:
    """The real dtype, float32 or wider, of scalars computed from all of these leaves."""
    return real_dtype(compute_dtype(*(x.dtype for x in jax.tree.leaves(params))))


def _rounded(params: Params, like: Updates) -> Params:
    """Params in the dtypes of the gradients, which are those the params are stored in."""

    def leaf(p: Array, g: Array) -> Array:
        same_kind = jnp.iscomplexobj(p) == jnp.iscomplexobj(g)
        return cast(p, g.dtype) if same_kind and hasattr(g, "dtype") else p

    return jax.tree.map(leaf, params, like)


def _scalar(value: ArrayLike, dtype: DTypeLike) -> Array:
    if np.shape(value) != ():
        raise ValueError(f"value_fn must return one number, it returned shape {np.shape(value)}")
    return cast(jnp.asarray(value), dtype)


def scaled(step: Array, updates: Updates) -> Updates:
    """step * updates"""
    return jax.tree.map(lambda u: cast(step, u.real.dtype) * u, updates)


def constants(*numbers: float | Array) -> tuple[float | Array, ...]:
    """The hyperparameters of a search, cut off from derivatives: a search has none."""
    return tuple(x if isinstance(x, int | float) else lax.stop_gradient(x) for x in numbers)


# -- backtracking --------------------------------------------------------------------------------


class BacktrackingLinesearchInfo(NamedTuple):
    """Scalars: the number of evaluations of the objective, and the violation of the criterion (0 if
    it is met)."""

    num_linesearch_steps: Array
    decrease_error: Array


class ScaleByBacktrackingLinesearchState(NamedTuple):
    """The learning rate that was found and the value there, both scalars; and with store_grad the
    gradient there, otherwise None."""

    learning_rate: Array
    value: Array
    grad: LikeParams
    info: BacktrackingLinesearchInfo


class _Backtracking(NamedTuple):
    """The progress of a search: evaluations so far; the last step tried, its value and error."""

    evaluations: Array
    step: Array
    value: Array
    error: Array


def _unsearched(params: Params, store_grad: bool) -> ScaleByBacktrackingLinesearchState:
    """The state before the first search."""
    dtype = scalar_dtype_of(params)
    return ScaleByBacktrackingLinesearchState(
        learning_rate=jnp.ones((), dtype),
        value=infinity(dtype),
        grad=tree.zeros_like(params) if store_grad else None,
        info=BacktrackingLinesearchInfo(no_steps(), infinity(dtype)),
    )


@per_tree
def scale_by_backtracking_linesearch(
    max_backtracking_steps: PositiveInt,
    slope_rtol: NonNegative = 1e-4,
    decrease_factor: Shrink = 0.8,
    increase_factor: Growth = 1.5,
    max_learning_rate: Positive = 1.0,
    atol: NonNegative = 0.0,
    rtol: NonNegative = 0.0,
    store_grad: bool = False,
    verbose: bool = False,
) -> Rule:
    """Multiply the updates by the first of a falling sequence of rates that decreases f enough.

        u = eta g, the first eta with
        f(w + u) <= (1 + rtol) f(w) + slope_rtol * <u, grad f(w)> + atol

    eta begins at min(increase_factor * the previous eta, max_learning_rate) and is multiplied by
    decrease_factor until this holds, at most max_backtracking_steps times. If no finite value was
    found by then, the rate is 0 and the next search starts afresh. The updates must point downhill:
    in a chain this goes after the learning rate, as in

        chain(sgd(1.0), scale_by_backtracking_linesearch(15))

    update takes `value_fn(params, ...)`, the objective f, whose other arguments are taken by name
    from the extra arguments of update (one that nothing takes is a TypeError). Passing `value` and
    `grad`, f and its gradient at params, saves computing them again (for complex params the
    gradient is the conjugate of JAX's, the direction of ascent, as in the updates). Derivatives
    treat the learning rate as constant.

    Args:
        max_backtracking_steps: how many times eta may be multiplied by decrease_factor. Each takes
            one evaluation of f; too few leave a rate that is too long.
        slope_rtol: the decrease asked for, as a fraction of what the slope at w promises. Larger
            asks for more and takes shorter steps; 0 accepts any decrease.
        decrease_factor: the factor on eta when it fails. Smaller finds a rate in fewer evaluations,
            larger finds one closer to the longest that is accepted.
        increase_factor: the factor on the previous eta at the beginning of a search, so that it can
            recover: with 1 it can only fall, and infinity begins every search at max_learning_rate.
        max_learning_rate: the largest eta. 1 takes at most the update itself.
        atol: an increase that is accepted in addition: raise it to the rounding error or noise of
            f.
        rtol: the same relative to f(w).
        store_grad: also evaluate the final gradient, and keep it for `value_and_grad_from_state`.
        verbose: print a message when the search fails.

    State: scalars; with store_grad the gradient, 4 bytes a parameter.

    Raises: ValueError if value_fn returns anything but one number.

    Example:
        >>> def f(w):
        ...     return 100 * jnp.sum(w**2)
        >>> tx = gradtx.scale_by_backtracking_linesearch(15, decrease_factor=0.5)
        >>> w = jnp.array([1.0])
        >>> u, state = tx.update(-jax.grad(f)(w), tx.init(w), w, value_fn=f)
        >>> print(state.learning_rate, f(w + u) < f(w))  # 1/128, where any below 1/100 decreases f
        0.0078125 True

    See also: `scale_by_zoom_linesearch`, `value_and_grad_from_state`, `lbfgs`.

    References: Nocedal & Wright, Numerical Optimization, algorithm 3.1; Vaswani et al., 2019,
    https://arxiv.org/abs/1905.09997
    """

    def init(params: Params) -> ScaleByBacktrackingLinesearchState:
        return _unsearched(params, store_grad)

    def update(
        updates: Updates,
        state: ScaleByBacktrackingLinesearchState,
        params: Params,
        *,
        value_fn: Objective,
        value: ArrayLike | None = None,
        grad: Updates | None = None,
        **extra: Any,
    ) -> tuple[Updates, ScaleByBacktrackingLinesearchState]:
        line = line_along(updates, params, value_fn, value, grad, extra)
        dtype = line.value.dtype
        shrink, grow, largest = constants(decrease_factor, increase_factor, max_learning_rate)
        c1, absolute, relative = constants(slope_rtol, atol, rtol)

        def goes_on(s: _Backtracking) -> Array:
            return ~(s.error <= absolute) & (s.evaluations <= max_backtracking_steps)

        def shorten(s: _Backtracking) -> _Backtracking:
            step = jnp.where(s.evaluations > 0, shrink * s.step, s.step)
            reached = line.value_at(step)
            error = reached - (1 + relative) * line.value - c1 * step * line.slope
            return _Backtracking(s.evaluations + 1, cast(step, dtype), reached, violation(error))

        # Do not start from a rate of 0: all later ones would be 0 too.
        last = lax.stop_gradient(state.learning_rate)
        begin = cast(jnp.minimum(grow * jnp.where(last > 0, last, 1), largest), dtype)
        found = lax.while_loop(
            goes_on,
            shorten,
            _Backtracking(no_steps(), begin, line.value, infinity(dtype)),
        )
        failed = jnp.isinf(found.error)
        rate = jnp.where(failed, 0, found.step)
        reached = jnp.where(failed, line.value, found.value)
        new_grad = line.look(rate)[2] if store_grad else None
        if verbose:
            missed = found.error > absolute
            report(missed, "scale_by_backtracking_linesearch", line, rate, found.error)
        info = BacktrackingLinesearchInfo(found.evaluations, found.error)
        new = ScaleByBacktrackingLinesearchState(rate, reached, new_grad, info)
        return scaled(rate, updates), new

    return Rule(init, update)


def violation(error: Array) -> Array:
    """By how much a criterion is violated: 0 if it is met, infinite for a NaN."""
    return jnp.where(jnp.isnan(error), jnp.inf, jnp.maximum(error, 0))


def no_steps() -> Array:
    """A count of evaluations, at 0."""
    return jnp.zeros((), jnp.result_type(int))


def report(failed: Array, who: str, line: Line, rate: Array, error: Array) -> None:
    """Print why a search failed, if it did."""

    def show(value: Array, slope: Array, rate: Array, error: Array) -> None:
        jax.debug.print(
            who + ": no rate meets the criteria. value: {value}, slope: {slope} (must be "
            "negative), rate taken: {rate}, error of the decrease: {error}",
            value=value,
            slope=slope,
            rate=rate,
            error=error,
        )

    lax.cond(failed, show, lambda *_: None, line.value, line.slope, rate, error)


# -- values and gradients that a search leaves in its state ----------------------------------------


def value_and_grad_from_state(
    value_fn: Callable[..., ArrayLike],
) -> Callable[..., tuple[Array, Updates]]:
    """Make `jax.value_and_grad(value_fn)` reuse what a line search left in the state.

        value, grad = value_and_grad_from_state(f)(params, *args, state=state, **kwargs)

    A search has evaluated f and its gradient where it stopped, which is where the next step begins.
    This is correct if the search was the last link, f is the same at every step, and params are the
    result of that step. Before the first step, or if the stored value is not finite, both are
    computed. Under `maximize` the stored negatives are converted back to the value and gradient of
    value_fn.

    Returns a function that is called like value_fn, with the optimizer's state as an additional
    `state=`, and returns the value and the gradient.

    Args:
        value_fn: the objective, a function of params and any other arguments that returns one
            number.

    Raises: ValueError unless the state holds exactly one search, and that one keeps the gradient of
    all leaves: it keeps none without store_grad, and that of other arrays under a mask, in
    `flatten` or in `split_real_and_imaginary`.

    Example:
        >>> def f(w):
        ...     return jnp.sum(w**2)
        >>> search = gradtx.scale_by_backtracking_linesearch(9, store_grad=True)
        >>> tx = gradtx.chain(gradtx.sgd(0.25), search)
        >>> w, state = jnp.array([1.0]), tx.init(jnp.array([1.0]))
        >>> for _ in range(2):  # f is evaluated by the search only, after the first step
        ...     value, grad = gradtx.value_and_grad_from_state(f)(w, state=state)
        ...     u, state = tx.update(grad, state, w, value=value, grad=grad, value_fn=f)
        ...     w = gradtx.apply_updates(w, u)
        >>> print(value, grad)
        0.25 [1.]

    See also: `scale_by_backtracking_linesearch`, `scale_by_zoom_linesearch`, `lbfgs`.
    """

    def value_and_grad(
        params: Params, *args: Any, state: OptState, **kwargs: Any
    ) -> tuple[Any, Updates]:
        left, grad_left, sign = _left_in(state)

        def compute() -> tuple[Any, Updates]:
            return jax.value_and_grad(value_fn)(params, *args, **kwargs)

        value, grad = jax.eval_shape(compute)
        _check_alike(grad_left, grad)
        kept = (
            cast(sign * left, value.dtype),
            jax.tree.map(lambda x, like: cast(sign * x, like.dtype), grad_left, grad),
        )

        def strong() -> tuple[Any, Updates]:
            return jax.tree.map(drop_weak_type, compute())  # a constant objective returns a float

        return lax.cond(jnp.isfinite(left), lambda: kept, strong)

    return value_and_grad


def _left_in(state: OptState) -> tuple[Any, Updates, int]:
    """The value and the gradient that the only search in a state left, and their sign."""
    who = "value_and_grad_from_state"
    of = "an optimizer with a line search"
    search, sign = the_only(_searches(state), who, "state of a line search", of)
    if search.grad is None:
        raise ValueError(
            f"{who}: the line search keeps no gradient in the state: give it store_grad=True"
        )
    return search.value, search.grad, sign


def _searches(state: OptState, sign: int = 1) -> list[tuple[Any, int]]:
    """The states of searches, with -1 for those that saw the negated objective, otherwise 1."""
    found = []
    for x in nodes_of(state, lambda x: _is_search(x) or is_negated(x)):
        found += _searches(x[1:], -sign) if is_negated(x) else [(x, sign)]
    return found


def _check_alike(left: Updates, grad: Updates) -> None:
    """Refuse a stored gradient that does not match the gradient of these params."""

    def shapes(tree: Updates) -> tuple[PyTreeDef, list[tuple[int, ...]]]:
        return jax.tree.structure(tree), [x.shape for x in jax.tree.leaves(tree)]

    if shapes(left) != shapes(grad):
        raise ValueError(
            "value_and_grad_from_state: the line search saw some of the leaves only, or other "
            "arrays in their place, and what it left is not the gradient of params: call "
            "jax.value_and_grad(value_fn) instead"
        )


def _is_search(x: Any) -> bool:
    return is_named_tuple(x) and {"value", "grad"} <= set(x._fields)
