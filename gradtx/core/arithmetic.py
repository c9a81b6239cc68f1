"""Arithmetic on schedules: their sums, products, bounds and shifts are schedules too.

The operators of `Schedule` look these definitions up in its `EXPRESSIONS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ParamSpec

import jax.numpy as jnp
import numpy as np

from gradtx.core.definition import Definition
from gradtx.core.hyperparameters import Number, Real, Scalar, ScalarOrSchedule
from gradtx.core.printing import code
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
    """A schedule computed from others. It prints as the Python expression that makes it."""

    def _text(self) -> str:
        name = _method(self)
        first, *others = self.arguments.values()
        if name in _SIGNS:
            sign, _, left, right = _SIGNS[name]
            return f"{_shown(first, left)} {sign} {_shown(others[0], right)}"
        if name == "negated":
            return f"-{_shown(first, _CALLED)}"
        given = list(self.arguments.items())[1:]
        call = ", ".join(f"{name}={code(x)}" for name, x in given if x is not None)
        return f"{_shown(first, _CALLED)}.{name}({call})"


def _method(expression: Expression) -> str:
    """The name of the method: `plus` for `Schedule.plus`."""
    return expression.definition.function.__name__


def _shown(x: Any, strength: int) -> str:
    """x as an operand, in brackets if it binds less strongly than `strength`."""
    return f"({code(x)})" if _strength(x) < strength else code(x)


def _strength(x: Any) -> int:
    if isinstance(x, Expression):
        name = _method(x)
        return _SIGNS[name][1] if name in _SIGNS else _NEGATED if name == "negated" else _CALLED
    return _NEGATED if code(x).startswith("-") else _CALLED


def _expression(function: Callable[P, Any]) -> Definition[P, Expression]:
    # Named as a method of schedules, since `clip` is also a transformation.
    definition = Definition(function, Expression, f"Schedule.{function.__name__}")
    EXPRESSIONS[function.__name__] = definition
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
    # In the dtype of the step: one Python number to the power of another may be complex.
    return lambda t: jnp.asarray(left, t.dtype) ** right


@_expression
def negated(of: Real) -> Any:
    """-of"""
    return lambda t: -of


@_expression
def clip(schedule: Schedule, low: Real | None = None, high: Real | None = None) -> Any:
    """The schedule, but at least low and at most high. low and high may be schedules too."""
    if low is None and high is None:
        raise ValueError("Schedule.clip: give low, high or both")
    if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
        raise ValueError(f"Schedule.clip: low must not be above high, got low={low}, high={high}")
    return lambda t: jnp.clip(schedule(t), low, high)


@_expression
def shift(schedule: Schedule, steps: AnySteps) -> Any:
    """The schedule delayed by `steps`, with its first value until it begins."""
    return lambda t: schedule(jnp.maximum(t - steps, 0))
