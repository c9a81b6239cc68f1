"""A schedule: a function of the step that is a value."""

from __future__ import annotations

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
