"""A schedule: a function of the step that is a value."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.dtypes import bind_numbers, scalar_dtype
from gradtx.core.value import Value


class Schedule(Value):
    """A function `step -> number` that can be printed, compared, mapped and differentiated.

    `step` is the number of updates so far (0 at the first one): a Python or NumPy number or a
    (traced) array. The result is a scalar in float32, or float64 under x64.
    """

    def _check(self) -> None:
        self.definition.call(self.arguments)

    def __call__(self, step: Any) -> Any:
        """The number at this step."""
        dtype = scalar_dtype()
        arguments = {
            name: bind_numbers(at(value, step), dtype, f"{self.definition.name}: {name}")
            if self.definition.is_number(name)
            else value
            for name, value in self.arguments.items()
        }
        # The step is cast first: an int32 divided by an int would be float32 even under x64.
        value = self.definition.call(arguments)(jnp.asarray(step, dtype))
        return value if isinstance(value, int | float) else jnp.asarray(value, dtype)

    # -- arithmetic: a schedule with a number, an array or a schedule is a schedule --------------

    __array_ufunc__ = None  # NumPy's numbers and arrays leave `number * schedule` to the schedule

    def __add__(self, other: Any) -> Any:
        return _arithmetic().operate(_arithmetic().PLUS, self, other)

    def __radd__(self, other: Any) -> Any:
        return _arithmetic().operate(_arithmetic().PLUS, other, self)

    def __sub__(self, other: Any) -> Any:
        return _arithmetic().operate(_arithmetic().MINUS, self, other)

    def __rsub__(self, other: Any) -> Any:
        return _arithmetic().operate(_arithmetic().MINUS, other, self)

    def __mul__(self, other: Any) -> Any:
        return _arithmetic().operate(_arithmetic().TIMES, self, other)

    def __rmul__(self, other: Any) -> Any:
        return _arithmetic().operate(_arithmetic().TIMES, other, self)

    def __truediv__(self, other: Any) -> Any:
        return _arithmetic().operate(_arithmetic().DIVIDED_BY, self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return _arithmetic().operate(_arithmetic().DIVIDED_BY, other, self)

    def __neg__(self) -> Schedule:
        return _arithmetic().NEGATED(self)

    def clip(self, low: Any = None, high: Any = None) -> Schedule:
        """This schedule, but never below low and never above high, which may be schedules too."""
        return _arithmetic().CLIP(self, low, high)

    def shift(self, steps: Any) -> Schedule:
        """This schedule `steps` steps later: until then its first value.

        With negative steps it begins that many steps further on, as a run that is resumed does.
        """
        return _arithmetic().SHIFT(self, steps)


def _arithmetic() -> ModuleType:
    from gradtx.core import arithmetic

    return arithmetic


def at(tree: Any, step: Any) -> Any:
    """A tree of numbers and schedules as numbers: each schedule at this step."""
    return jax.tree.map(
        lambda x: x(step) if isinstance(x, Schedule) else x,
        tree,
        is_leaf=lambda x: isinstance(x, Schedule),
    )


class FunctionSchedule(Schedule):
    """A user's plain function of the step, kept as it is."""

    def __call__(self, step: Any) -> Any:
        """What the function returns for this step."""
        return self.arguments["function"](step)

    def __repr__(self) -> str:
        function = self.arguments["function"]
        return getattr(function, "__qualname__", None) or repr(function)
