"""A line search for quasi-Newton methods: sufficient decrease and a small slope."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from gradtx import tree
from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import cast
from gradtx.core.hyperparameters import NonNegative, Positive, PositiveInt
from gradtx.core.numerics import infinity
from gradtx.core.rule import Rule
from gradtx.core.state import LikeParams, Params, Updates
from gradtx.transforms.linesearch import (
    Curvature,
    Growth,
    Line,
    Objective,
    constants,
    line_along,
    no_steps,
    report,
    scalar_dtype_of,
    scaled,
    violation,
)

__all__ = ["ScaleByZoomLinesearchState", "ZoomLinesearchInfo", "scale_by_zoom_linesearch"]


class ZoomLinesearchInfo(NamedTuple):
    """Scalars: the number of evaluations of the objective, and the violation of each criterion
    (0 if it is met)."""

    num_linesearch_steps: Array
    decrease_error: Array
    curvature_error: Array


class ScaleByZoomLinesearchState(NamedTuple):
    """The learning rate that was found and the value there, scalars, and the gradient there."""

    learning_rate: Array
    value: Array
    grad: LikeParams
    info: ZoomLinesearchInfo


class _Point(NamedTuple):
    """A step, and the value and the slope there; scalars."""

    step: Array
    value: Array
    slope: Array


# low, high, third, bracketed: as in `_Zoom`.
_Interval = tuple[_Point, _Point, _Point, Array]


class _Best(NamedTuple):
    """The point to fall back on, which decreases the objective enough, and its gradient."""

    step: Array
    value: Array
    grad: Updates


class _Zoom(NamedTuple):
    """The progress of a search.

    last: the last point tried; bracketed: whether the interval between low and high is known to
    contain a suitable step, low being the end with the smaller value; third: another point, for the
    cubic.
    """

    evaluations: Array
    last: _Point
    grad: Updates
    decrease_error: Array
    curvature_error: Array
    bracketed: Array
    done: Array
    failed: Array
    low: _Point
    high: _Point
    third: _Point
    best: _Best


class _Criteria(NamedTuple):
    """The conditions that a step must satisfy."""

    line: Line
    slope_rtol: float | Array
    curv_rtol: float | Array
    approx_dec_rtol: float | Array | None
    tol: float | Array

    def errors(self, at: _Point) -> tuple[Array, Array]:
        """The violations of the decrease condition and of the curvature condition."""
        value, slope = self.line.value, self.line.slope
        decrease = at.value - value - self.slope_rtol * at.step * slope
        if self.approx_dec_rtol is not None:
            # Near the minimum, differences of values are all rounding error: there slopes decide.
            rises = at.value - value - self.approx_dec_rtol * jnp.abs(value)
            falls = at.slope - (2 * self.slope_rtol - 1) * slope
            decrease = jnp.minimum(decrease, jnp.maximum(falls, rises))
        curvature = jnp.abs(at.slope) - self.curv_rtol * jnp.abs(slope)
        return violation(decrease), violation(curvature)


@per_tree
def scale_by_zoom_linesearch(
    max_linesearch_steps: PositiveInt,
    max_learning_rate: Positive | None = None,
    tol: NonNegative = 0.0,
    increase_factor: Growth = 2.0,
    slope_rtol: NonNegative = 1e-4,
    curv_rtol: Curvature = 0.9,
    approx_dec_rtol: NonNegative | None = 1e-6,
    stepsize_precision: NonNegative = 1e-5,
    initial_guess_strategy: Literal["keep", "one"] = "keep",
    verbose: bool = False,
) -> Rule:
    """Multiply the updates by a rate that satisfies the strong Wolfe conditions.

        u = eta g with
        f(w + u) <= f(w) + slope_rtol * <u, grad f(w)> + tol
        |<u, grad f(w + u)>| <= curv_rtol * |<u, grad f(w)>| + tol

    First eta grows by increase_factor until an interval contains such a rate; then the interval is
    narrowed by cubic and quadratic interpolation. After max_linesearch_steps evaluations, or once
    the interval is shorter than stepsize_precision, the rate with the smallest value among those
    that satisfy the first condition is taken.

    For the arguments of update (value_fn, the objective f, and optionally value and grad) and the
    place in a chain, see `scale_by_backtracking_linesearch`. Each evaluation is of f and its
    gradient; the last ones stay in the state for `value_and_grad_from_state`.

    Args:
        max_linesearch_steps: the most evaluations of f and its gradient in one step
        max_learning_rate: the largest rate; None sets no bound
        tol: by how much both conditions may be violated
        increase_factor: the factor on eta while no interval is known; larger reaches distant rates
            in fewer evaluations
        slope_rtol: the fraction of the decrease promised by the slope that must be reached
        curv_rtol: the fraction of the slope that may be left. Smaller is a more exact search: 0.9
            is usual for L-BFGS, 0.1 for conjugate gradients
        approx_dec_rtol: where values differ only by rounding error, f(w + u) <= f(w) +
            approx_dec_rtol * |f(w)|, slopes may establish the decrease instead: <u, grad f(w + u)>
            <= (2 slope_rtol - 1) <u, grad f(w)>; None turns this off
        stepsize_precision: the length at which an interval is not divided further
        initial_guess_strategy: start from the last rate ("keep", for gradient descent) or from 1
            ("one", for L-BFGS)
        verbose: print a message when the search fails

    State: grad, 4 bytes a parameter; the scalars learning_rate, value and info.

    Raises: ValueError for any other strategy and for max_linesearch_steps < 1.

    Example:
        >>> params, loss = jnp.array([1.0, 1.0]), lambda x: x[0] ** 2 + 50 * x[1] ** 2
        >>> value, grads = jax.value_and_grad(loss)(params)
        >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_zoom_linesearch(20))
        >>> state = tx.init(params)
        >>> updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=loss)
        >>> print(value, state[-1].value.round(2), state[-1].learning_rate.round(4))
        51.0 0.96 0.01

    See also: `lbfgs`, which uses it; `scale_by_backtracking_linesearch`, which evaluates values
    only.

    References: Nocedal & Wright, Numerical Optimization, 2nd edition, algorithms 3.5 and 3.6; Hager
    & Zhang, 2006, https://doi.org/10.1145/1132973.1132979
    """

    def update(
        updates: Updates,
        state: ScaleByZoomLinesearchState,
        params: Params,
        *,
        value_fn: Objective,
        value: ArrayLike | None = None,
        grad: Updates | None = None,
        **extra: Any,
    ) -> tuple[Updates, ScaleByZoomLinesearchState]:
        line = line_along(updates, params, value_fn, value, grad, extra)
        grow, c1, c2, accepted, precision = constants(
            increase_factor, slope_rtol, curv_rtol, tol, stepsize_precision
        )
        largest = None if max_learning_rate is None else constants(max_learning_rate)[0]
        near = None if approx_dec_rtol is None else constants(approx_dec_rtol)[0]
        criteria = _Criteria(line, c1, c2, near, accepted)
        # Do not start from a rate of 0: all later ones would be 0 too.
        last = lax.stop_gradient(state.learning_rate)
        kept = cast(jnp.where(last > 0, last, 1), line.value.dtype)
        guess = kept if initial_guess_strategy == "keep" else jnp.ones_like(kept)

        def step(s: _Zoom) -> _Zoom:
            wider, at_most = _widened(s, guess, grow, largest)
            eta = cast(jnp.where(s.bracketed, _narrowed(s), wider), line.value.dtype)
            reached, slope, new_grad = line.look(eta)
            new_grad = tree.cast_like(new_grad, s.grad)
            new = _Point(eta, reached, slope)
            return _after(s, new, new_grad, criteria, at_most, (max_linesearch_steps, precision))

        found = lax.while_loop(lambda s: ~(s.done | s.failed), step, _beginning(line))
        rate, reached, new_grad = _taken(found)
        if verbose:
            missed = found.decrease_error > accepted
            report(missed, "scale_by_zoom_linesearch", line, rate, found.decrease_error)
        info = ZoomLinesearchInfo(found.evaluations, found.decrease_error, found.curvature_error)
        new = ScaleByZoomLinesearchState(rate, reached, new_grad, info)
        return scaled(rate, updates), new

    return Rule(_unsearched, update)


def _unsearched(params: Params) -> ScaleByZoomLinesearchState:
    """The state before the first search."""
    dtype = scalar_dtype_of(params)
    unknown = [infinity(dtype) for _ in range(3)]
    return ScaleByZoomLinesearchState(
        learning_rate=jnp.ones((), dtype),
        value=unknown[0],
        grad=tree.zeros_like(params),
        info=ZoomLinesearchInfo(no_steps(), *unknown[1:]),
    )


def _taken(found: _Zoom) -> _Best:
    """The last point, or after a failure the best one, if there is any."""
    best, end = found.best, _Best(found.last.step, found.last.value, found.grad)
    # Outside of the domain there is no gradient to continue from: if need be, stay.
    use_best = found.failed & ((best.step > 0) | jnp.isinf(found.decrease_error))
    taken: _Best = tree.where(use_best, best, end)
    return taken


def _beginning(line: Line) -> _Zoom:
    """The start: only the value and the slope at 0 are known."""
    zero, infinite = jnp.zeros_like(line.value), infinity(line.value.dtype)
    start = _Point(zero, line.value, line.slope)
    no = jnp.zeros((), bool)
    return _Zoom(
        no_steps(),
        start,
        line.grad,
        infinite,
        infinite,
        no,
        no,
        no,
        start,
        start,
        start,
        _Best(zero, line.value, line.grad),
    )


def _widened(
    s: _Zoom, guess: Array, factor: float | Array, largest: float | Array | None
) -> tuple[Array, Array]:
    """The next step while no interval is known, and whether it is the largest allowed."""
    eta = jnp.where(s.evaluations == 0, guess, factor * s.last.step)
    if largest is None:
        return eta, jnp.zeros((), bool)
    return jnp.minimum(eta, largest), eta >= largest


def _narrowed(s: _Zoom) -> Array:
    """The next step within the interval: by a cubic, by a parabola, or by bisection."""
    low, high = s.low, s.high
    left, right = jnp.minimum(low.step, high.step), jnp.maximum(low.step, high.step)
    length = right - left

    def inside(x: Array, margin: float) -> Array:  # False for NaN
        return (x > left + margin * length) & (x < right - margin * length)

    cubic, quadratic = _cubic_minimum(low, high, s.third), _quadratic_minimum(low, high)
    bisected = (low.step + high.step) / 2
    fallback = jnp.where(inside(quadratic, 0.1), quadratic, bisected)
    return jnp.where(inside(cubic, 0.2), cubic, fallback)


def _quadratic_minimum(a: _Point, b: _Point) -> Array:
    """The stationary point of the parabola through both values with the slope at a."""
    d = b.step - a.step
    curvature = ((b.value - a.value) / d - a.slope) / d
    return a.step - a.slope / (2 * curvature)


def _cubic_minimum(a: _Point, b: _Point, c: _Point) -> Array:
    """The minimum of the cubic through three values with the slope at a, or NaN.

    With x measured from a: value(x) = a.value + a.slope x + q x^2 + p x^3. For q > 0 the root is
    written without cancellation: p, which near a parabola is all rounding error, may be 0.
    """
    db, dc = b.step - a.step, c.step - a.step
    bend_b = ((b.value - a.value) / db - a.slope) / db  # q + p db
    bend_c = ((c.value - a.value) / dc - a.slope) / dc
    p = (bend_b - bend_c) / (db - dc)
    q = bend_b - p * db
    root = jnp.sqrt(q * q - 3 * p * a.slope)
    return a.step + jnp.where(q > 0, -a.slope / (q + root), (root - q) / (3 * p))


def _after(
    s: _Zoom,
    new: _Point,
    grad: Updates,
    criteria: _Criteria,
    at_most: Array,
    limits: tuple[int, float | Array],
) -> _Zoom:
    """The search after the new point was evaluated.

    at_most: whether its step is the largest allowed; limits: the most evaluations, and the shortest
    interval to search.
    """
    max_steps, precision = limits
    decrease_error, curvature_error = criteria.errors(new)
    error, tol = jnp.maximum(decrease_error, curvature_error), criteria.tol
    low, high, third, bracketed = tree.where(
        s.bracketed,
        _smaller_interval(s, new, decrease_error),
        _first_interval(s, new, decrease_error, error <= tol),
    )
    better = (decrease_error <= tol) & (~s.bracketed | (new.value < s.best.value))
    best = tree.where(better, _Best(new.step, new.value, grad), s.best)
    gave_up = ~s.bracketed & at_most & ~bracketed
    done = (error <= tol) | gave_up
    # Until some step decreases the objective enough, short intervals are searched too: some
    # functions are very steep.
    too_short = s.bracketed & (jnp.abs(s.high.step - s.low.step) <= precision) & (best.step > 0)
    failed = ((s.evaluations + 1 >= max_steps) | too_short) & ~done
    return _Zoom(
        s.evaluations + 1,
        new,
        grad,
        decrease_error,
        curvature_error,
        bracketed,
        done,
        failed,
        low,
        high,
        third,
        best,
    )


def _first_interval(s: _Zoom, new: _Point, decrease_error: Array, met: Array) -> _Interval:
    """Algorithm 3.5: the last step and this one bracket a suitable one if the value has risen, or
    if the slope has turned positive."""
    risen = (decrease_error > 0) | ((new.value >= s.last.value) & (s.evaluations > 0))
    past = (new.slope >= 0) & ~risen
    low, high = tree.where(past, (new, s.last), (s.last, new))
    return low, high, low, risen | past | met


def _smaller_interval(s: _Zoom, new: _Point, decrease_error: Array) -> _Interval:
    """Algorithm 3.6: the new point becomes one of the ends."""
    worse = (decrease_error > 0) | (new.value >= s.low.value)
    past = (new.slope * (s.high.step - s.low.step) >= 0) & ~worse
    high = tree.where(worse, new, tree.where(past, s.low, s.high))
    low = tree.where(worse, s.low, new)
    third = tree.where(worse | past, s.high, s.low)
    return low, high, third, s.bracketed
