"""A schedule: a function of the step that is a value."""

from __future__ import annotations

import numbers
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.dtypes import bind_numbers, scalar_dtype
from gradtx.core.hyperparameters import Instance, Scalar, ScalarOrSchedule, ScheduleLike
from gradtx.core.printing import show
from gradtx.core.value import Value

if TYPE_CHECKING:
    from gradtx.core.definition import Definition


class ScheduleError(TypeError):
    """A schedule cannot be traced, or does not return one real number.

    It is raised again with the name of the hyperparameter where that is known: see core/run.py.
    """

    def __init__(self, schedule: Schedule, problem: str):
        super().__init__(f"the schedule {schedule!r} {problem}")
        self.schedule = schedule


class Schedule(Value):
    """A function `step -> number` that can be printed, compared, mapped and differentiated.

    `step` is the number of updates so far (0 at the first one): a Python or NumPy number or a
    (traced) array. The result is a number in float32, or float64 under x64, for each step.
    """

    _for_users = (*Value._for_users, "clip", "shift")

    def _check(self) -> None:
        self.definition.call(self.arguments)

    def __call__(self, step: Any) -> Any:
        """The number at this step; of an array of steps, an array of numbers in its shape."""
        shape = np.shape(step)
        if shape == ():
            return self._number(step)
        # Mapped, so that each step is a scalar and does not broadcast with arrays of the arguments.
        dtype = scalar_dtype()
        mapped: Any = jax.vmap(lambda t: jnp.asarray(self._number(t), dtype))
        return mapped(jnp.ravel(_as_array(step))).reshape(shape)

    def _number(self, step: Any) -> Any:
        """The number at one step."""
        with _explained(self):
            value = self._evaluate(step)
        _check_number(self, value)
        return value if isinstance(value, int | float) else jnp.asarray(value, scalar_dtype())

    def _evaluate(self, step: Any) -> Any:
        dtype = scalar_dtype()
        arguments = {
            name: bind_numbers(at(value, step), dtype, f"{self.definition.name}: {name}")
            if self.definition.is_number(name)
            else value
            for name, value in self.arguments.items()
        }
        # The step is cast first: an int32 divided by an int would be float32 even under x64.
        return self.definition.call(arguments)(jnp.asarray(step, dtype))

    # -- arithmetic: a schedule with a number, an array or a schedule is a schedule ----------------

    __array_ufunc__ = None  # NumPy's numbers and arrays leave `number * schedule` to the schedule

    def __add__(self, other: ScalarOrSchedule) -> Schedule:
        return _operate("plus", self, other)

    def __radd__(self, other: ScalarOrSchedule) -> Schedule:
        return _operate("plus", other, self)

    def __sub__(self, other: ScalarOrSchedule) -> Schedule:
        return _operate("minus", self, other)

    def __rsub__(self, other: ScalarOrSchedule) -> Schedule:
        return _operate("minus", other, self)

    def __mul__(self, other: ScalarOrSchedule) -> Schedule:
        return _operate("times", self, other)

    def __rmul__(self, other: ScalarOrSchedule) -> Schedule:
        return _operate("times", other, self)

    def __truediv__(self, other: ScalarOrSchedule) -> Schedule:
        return _operate("divided_by", self, other)

    def __rtruediv__(self, other: ScalarOrSchedule) -> Schedule:
        return _operate("divided_by", other, self)

    def __pow__(self, other: ScalarOrSchedule) -> Schedule:
        return _operate("power", self, other)

    def __rpow__(self, other: ScalarOrSchedule) -> Schedule:
        return _operate("power", other, self)

    def __neg__(self) -> Schedule:
        return EXPRESSIONS["negated"](self)

    def clip(
        self, low: ScalarOrSchedule | None = None, high: ScalarOrSchedule | None = None
    ) -> Schedule:
        """This schedule, but never below low and never above high, which may be schedules too."""
        return EXPRESSIONS["clip"](self, low, high)

    def shift(self, steps: Scalar) -> Schedule:
        """This schedule delayed by `steps`, with its first value until it begins.

        With negative steps it begins that many steps further on, as a resumed run does.
        """
        return EXPRESSIONS["shift"](self, steps)


# By name, the definitions that make a schedule from others. core/arithmetic.py enters them here,
# since the module of definitions imports this one.
EXPRESSIONS: dict[str, Definition[Any, Any]] = {}


def _operate(name: str, left: Any, right: Any) -> Any:
    """The operation on a schedule and a number, an array or another schedule."""
    known = all(map(_is_operand, (left, right)))
    return EXPRESSIONS[name](left, right) if known else NotImplemented


def _is_operand(x: Any) -> bool:
    if isinstance(x, Value):
        return isinstance(x, Schedule)
    number = isinstance(x, numbers.Real) and not isinstance(x, bool)
    return number or isinstance(x, np.ndarray | jax.Array) or callable(x)


def at(tree: Any, step: Any) -> Any:
    """A tree of numbers and schedules as numbers: each schedule at this step."""
    return jax.tree.map(
        lambda x: x(step) if isinstance(x, Schedule) else x,
        tree,
        is_leaf=lambda x: isinstance(x, Schedule),
    )


class FunctionSchedule(Schedule):
    """A user's plain function of the step, kept as it is."""

    def _evaluate(self, step: Any) -> Any:
        return self.arguments["function"](step)

    def _stands_for(self) -> Any:
        return self.arguments["function"]

    def _text(self) -> str:
        return show(self._stands_for())


# A schedule, or a plain function of the step, which becomes one.
AnySchedule = Annotated[ScheduleLike, Instance(Schedule)]


# -- what a user's function may do -----------------------------------------------------------------


def _as_array(steps: Any) -> jax.Array:
    """NumPy's steps as JAX keeps them; those that do not fit into its int32 become floating."""
    wide = isinstance(steps, np.ndarray) and steps.dtype.kind in "iu" and steps.size > 0
    if wide and not np.can_cast(np.min_scalar_type(np.abs(steps).max()), np.int32):
        return jnp.asarray(steps, scalar_dtype())
    return jnp.asarray(steps)


@contextmanager
def _explained(schedule: Schedule) -> Iterator[None]:
    """Turn JAX's errors about the use of a traced step into advice on what to write instead."""
    try:
        yield
    except jax.errors.TracerArrayConversionError as error:
        problem = "it calls NumPy on the step. Write jnp.cos(step) in place of np.cos(step)"
        raise ScheduleError(schedule, f"cannot be traced: {problem}") from error
    except jax.errors.TracerBoolConversionError as error:
        problem = (
            "it uses Python's if, and, or, min or max on the step. Write jnp.where(step < n, a, b) "
            "or jax.lax.cond in place of if, jnp.minimum in place of min"
        )
        raise ScheduleError(schedule, f"cannot be traced: {problem}") from error
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerIntegerConversionError) as error:
        problem = (
            "it makes a Python number of the step, as math.cos, float, int, range and an index of "
            "a list do. Write jnp.cos(step) in place of math.cos(step), jnp.asarray(list)[step] in "
            "place of list[step]"
        )
        raise ScheduleError(schedule, f"cannot be traced: {problem}") from error


def _check_number(schedule: Schedule, value: Any) -> None:
    """Refuse what a schedule returned unless it is one real number."""
    dtype = getattr(value, "dtype", np.dtype(object))
    is_array = isinstance(value, np.generic | np.ndarray | jax.Array)
    real = any(jnp.issubdtype(dtype, kind) for kind in (np.bool_, np.integer, np.floating))
    if not (real if is_array else isinstance(value, numbers.Real)):
        got = f"{show(value)} ({type(value).__name__})" if value is not None else "None"
        raise ScheduleError(schedule, f"must return a number, it returned {got}")
    if np.shape(value) != ():
        got = f"an array of shape {np.shape(value)}"
        raise ScheduleError(schedule, f"must return one number for a step, it returned {got}")
