"""Arithmetic on schedules: sums, products, bounds and shifts are schedules again.

The operators of `Schedule` look these definitions up in its `EXPRESSIONS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ParamSpec

import jax.numpy as jnp
import numpy as np

from gradtx.core.definition import Definition
from gradtx.core.hyperparameters import Number, Real, Scalar, ScalarOrSchedule
from gradtx.core.printing import show
from gradtx.core.schedule import EXPRESSIONS, Schedule

P = ParamSpec("P")

NonZero = Annotated[
    ScalarOrSchedule,
    Number("a finite number and not 0", lambda x: np.isfinite(x) & (x != 0), example=1.0),
]
AnySteps = Annotated[Scalar, Number("a finite number", np.isfinite, example=1, scheduled=False)]

# The sign of each operation, how strongly it binds, and how strongly its operands must bind to be
# printed without brackets: a - b - c is (a - b) - c, a ** b ** c is a ** (b ** c).
_SIGNS = {
    "plus": ("+", 1, 1, 2),
    "minus": ("-", 1, 1, 2),
    "times": ("*", 2, 2, 3),
    "divided_by": ("/", 2, 2, 3),
    "power": ("**", 4, 5, 3),
}
_NEGATED, _CALLED = 3, 5


class Expression(Schedule):
    """A schedule that is computed from others. It is printed as it would be written."""

    def _text(self) -> str:
        name = self.definition.name
        first, *others = self.arguments.values()
        if name in _SIGNS:
            sign, _, left, right = _SIGNS[name]
            return f"{_shown(first, left)} {sign} {_shown(others[0], right)}"
        if name == "negated":
            return f"-{_shown(first, _CALLED)}"
        given = list(self.arguments.items())[1:]
        call = ", ".join(f"{name}={show(x)}" for name, x in given if x is not None)
        return f"{_shown(first, _CALLED)}.{name}({call})"


def _shown(x: Any, strength: int) -> str:
    """x as an operand, in brackets if it binds less strongly."""
    return f"({show(x)})" if _strength(x) < strength else show(x)


def _strength(x: Any) -> int:
    if isinstance(x, Expression):
        name = x.definition.name
        return _SIGNS[name][1] if name in _SIGNS else _NEGATED if name == "negated" else _CALLED
    return _NEGATED if show(x).startswith("-") else _CALLED


def _expression(function: Callable[P, Any]) -> Definition[P, Expression]:
    definition = Definition(function, Expression)
    EXPRESSIONS[definition.name] = definition
    return definition


@_expression
def plus(left: Real, right: Real) -> Any:
    """left + right"""
    return lambda t: left + right


@_expression
def minus(left: Real, right: Real) -> Any:
    """left - right"""
    return lambda t: left - right


@_expression
def times(left: Real, right: Real) -> Any:
    """left * right"""
    return lambda t: left * right


@_expression
def divided_by(left: Real, right: NonZero) -> Any:
    """left / right"""
    return lambda t: left / right


@_expression
def power(left: Real, right: Real) -> Any:
    """left ** right"""
    # In the dtype of the step: of two Python numbers it may be complex.
    return lambda t: jnp.asarray(left, t.dtype) ** right


@_expression
def negated(of: Real) -> Any:
    """-of"""
    return lambda t: -of


@_expression
def clip(schedule: Schedule, low: Real | None = None, high: Real | None = None) -> Any:
    """The schedule, but at least low and at most high. low and high may be schedules too."""
    if low is None and high is None:
        raise ValueError("clip: give low, high or both")
    if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
        raise ValueError(f"clip: low must not be above high, got low={low}, high={high}")
    return lambda t: jnp.clip(schedule(t), low, high)


@_expression
def shift(schedule: Schedule, steps: AnySteps) -> Any:
    """The schedule that many steps later, and its first value until then."""
    return lambda t: schedule(jnp.maximum(t - steps, 0))
