"""The parts of a traced function that work element by element on arrays of one shape.

Such a part gives the same numbers however its arrays are cut: into another shape, or block by block
inside a kernel. It is taken from the function's jaxpr, so that no rule has to be written twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

if TYPE_CHECKING:
    from jax.extend.core import ClosedJaxpr, Primitive

Shape = tuple[int, ...]
# A variable of the function, by its number.
Variable = int


class Constant(NamedTuple):
    """An operand that is a literal of the function."""

    value: Any


Operand = Variable | Constant


def value_of(x: Operand, values: Mapping[Variable, Any]) -> Any:
    """The value of an operand."""
    return x.value if isinstance(x, Constant) else values[x]


class Equation(NamedTuple):
    """One operation: results = operation(operands).

    alone: the operation as a jaxpr of its own, which takes the operands `given`.
    """

    primitive: Primitive
    params: Mapping[str, Any]
    operands: tuple[Operand, ...]
    results: tuple[Variable, ...]
    alone: ClosedJaxpr
    given: tuple[Operand, ...]

    @property
    def reads(self) -> list[Variable]:
        """The operands that are variables."""
        return [x for x in self.operands if not isinstance(x, Constant)]

    def run(self, values: dict[Variable, Any]) -> None:
        """Run the operation and add its results to the values."""
        from jax.extend.core import jaxpr_as_fun  # makes JAX import all of Pallas

        made = jaxpr_as_fun(self.alone)(*[value_of(x, values) for x in self.given])
        values.update(zip(self.results, made, strict=True))


# Maps an axis of an array to the positions of some of its elements along that axis.
Positions = Callable[[int], jax.Array]


@dataclass(frozen=True)
class Part:
    """Equations that work element by element on arrays of one shape.

    shape: that of the arrays when they were traced. arrays: the variables of that shape that the
    equations read; scalars: the scalar ones; makes: the variables that are needed outside, of which
    the first `wanted` were asked for.
    """

    shape: Shape
    equations: tuple[Equation, ...]
    arrays: tuple[Variable, ...]
    scalars: tuple[Variable, ...]
    makes: tuple[Variable, ...]
    wanted: int

    def __call__(
        self,
        arrays: Sequence[jax.Array],
        scalars: Sequence[jax.Array],
        cut: tuple[Shape, Positions] | None = None,
    ) -> list[Any]:
        """The results for whole arrays or for a cut of them.

        cut: the shape of the cut, and a function from an axis of the whole arrays to the positions
        of the cut's elements along that axis, int32 in the shape of the cut.
        """
        shape, positions = cut or (self.shape, partial(lax.broadcasted_iota, np.int32, self.shape))
        values = dict(zip((*self.arrays, *self.scalars), (*arrays, *scalars), strict=True))
        for equation in self.equations:
            operands = [value_of(x, values) for x in equation.operands]
            (result,) = equation.results
            match equation.primitive.name:
                case "broadcast_in_dim":
                    x = operands[0]
                    values[result] = x if np.ndim(x) else lax.broadcast(x, shape)
                case "iota":
                    position = positions(equation.params["dimension"])
                    values[result] = position.astype(equation.params["dtype"])
                case "sign":  # the compiler of kernels would query a TPU for it
                    x = operands[0]
                    one = jnp.ones_like(x)
                    values[result] = jnp.where(x > 0, one, jnp.where(x < 0, -one, x))
                case _:
                    bind: Any = equation.primitive.bind
                    values[result] = bind(*operands, **equation.params)
        return [values[x] for x in self.makes]

    def making(self, makes: Sequence[Variable]) -> Part:
        """The part reduced to what makes these variables."""
        equations = alive(self.equations, set(makes))
        read = {x for e in equations for x in e.reads} | set(makes)
        arrays = tuple(x for x in self.arrays if x in read)
        scalars = tuple(x for x in self.scalars if x in read)
        return Part(self.shape, tuple(equations), arrays, scalars, tuple(makes), len(makes))

    # Parts that differ only in the names of their variables are equal, so that leaves of equal
    # shape share one trace.

    @cached_property
    def _text(self) -> tuple[Any, ...]:
        names: dict[Variable, int] = defaultdict(lambda: len(names))

        def named(x: Operand) -> Any:
            return (
                (str(x.value), str(np.asarray(x.value).dtype))
                if isinstance(x, Constant)
                else names[x]
            )

        ends = [tuple(map(named, xs)) for xs in (self.arrays, self.scalars)]
        body = [
            (e.primitive.name, str(e.params), *map(named, e.operands), *map(named, e.results))
            for e in self.equations
        ]
        return (self.shape, *ends, *body, tuple(map(named, self.makes)), self.wanted)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Part) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


class Function:
    """A traced function as one list of equations, in which the calls that depend on some of its
    inputs, `chosen`, are inlined."""

    def __init__(self, jaxpr: ClosedJaxpr, chosen: Iterable[int]):
        self.shapes: list[Shape] = []
        self.constants: dict[Variable, Any] = {}
        self.equations: list[Equation] = []
        self.inputs = [self._new(v.aval) for v in jaxpr.jaxpr.invars]
        self.chosen = {self.inputs[i] for i in chosen}
        self._depends = set(self.chosen)
        self.outputs = self._write_out(jaxpr, self.inputs)

    def _new(self, aval: Any) -> Variable:
        self.shapes.append(getattr(aval, "shape", ()))
        return len(self.shapes) - 1

    def _write_out(self, jaxpr: Any, operands: Sequence[Operand]) -> list[Operand]:
        """Add a jaxpr's equations, and return its results."""
        from jax.extend.core import ClosedJaxpr, Literal

        closed, consts = getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ())
        names: dict[Any, Operand] = dict(zip(closed.invars, operands, strict=True))
        for variable, value in zip(closed.constvars, consts, strict=True):
            names[variable] = new = self._new(variable.aval)
            self.constants[new] = value

        def of(x: Any) -> Operand:
            if not isinstance(x, Literal):
                return names[x]
            aval: Any = x.aval
            return Constant(np.asarray(x.val, aval.dtype))

        for equation in closed.eqns:
            inside = tuple(map(of, equation.invars))
            depends = any(not isinstance(x, Constant) and x in self._depends for x in inside)
            called = depends and _called(equation.primitive, equation.params)
            if called:
                results = self._write_out(called, inside)
                names.update(zip(equation.outvars, results, strict=True))
                continue
            made = tuple(self._new(v.aval) for v in equation.outvars)
            names.update(zip(equation.outvars, made, strict=True))
            if depends:
                self._depends.update(made)
            reads = list(dict.fromkeys(x for x in equation.invars if not isinstance(x, Literal)))
            alone = closed.replace(
                constvars=[],
                invars=reads,
                outvars=equation.outvars,
                eqns=[equation],
                effects=equation.effects,
            )
            given = tuple(map(of, reads))
            self.equations.append(
                Equation(
                    equation.primitive, equation.params, inside, made, ClosedJaxpr(alone, []), given
                )
            )
        return [of(x) for x in closed.outvars]

    def is_elementwise(self, equation: Equation, shape: Shape) -> bool:
        """Whether an equation works element by element on scalars and arrays of this shape."""
        operands = (() if isinstance(x, Constant) else self.shapes[x] for x in equation.operands)
        if equation.primitive.name not in ELEMENTWISE or any(
            x not in (shape, ()) for x in operands
        ):
            return False
        return all(self.shapes[x] == shape for x in equation.results)


def works_element_by_element(jaxpr: Any) -> bool:
    """Whether every operation of a jaxpr works element by element."""
    closed = getattr(jaxpr, "jaxpr", jaxpr)
    return all(
        works_element_by_element(called)
        if (called := _called(equation.primitive, equation.params))
        else equation.primitive.name in ELEMENTWISE
        for equation in closed.eqns
    )


def _called(primitive: Primitive, params: Mapping[str, Any]) -> Any:
    """The jaxpr of a call that may be inlined, or None."""
    return params[_CALLS[primitive.name]] if primitive.name in _CALLS else None


class Split(NamedTuple):
    """A function in three steps: what does not depend on the chosen inputs, the parts that work
    element by element on them, and what follows."""

    before: list[Equation]
    parts: list[Part]
    after: list[Equation]
    needed_after: set[Variable]


def split(function: Function, wanted: Sequence[Variable], others: Iterable[Operand]) -> Split:
    """Cut the parts out of a function: whatever works element by element on its chosen inputs and
    on values that do not depend on them.

    The parts make as many of the `wanted` variables as they can, and whatever else the other
    outputs need from them.
    """
    find, join = _groups()
    late: set[Variable] = set()
    inside: dict[Variable, Variable] = {x: x for x in function.chosen if function.shapes[x]}
    late.update(function.chosen - inside.keys())
    producers: dict[Variable, Equation] = {}
    before, after = [], []
    for equation in function.equations:
        producers.update(dict.fromkeys(equation.results, equation))
        reads = equation.reads
        groups = {find(inside[x]) for x in reads if x in inside}
        is_late = any(x in late for x in reads)
        if not groups and not is_late:
            before.append(equation)
        elif is_late or not function.is_elementwise(equation, function.shapes[min(groups)]):
            late.update(equation.results)
            after.append(equation)
        else:
            group = join(groups)
            inside.update(dict.fromkeys(equation.results, group))
    used = {x for e in after for x in e.reads} | {x for x in others if not isinstance(x, Constant)}
    asked: dict[Variable, list[Variable]] = defaultdict(list)
    beside: dict[Variable, list[Variable]] = defaultdict(list)
    for x in wanted:
        if x in inside:
            asked[find(inside[x])].append(x)
    for x in sorted(used - function.chosen):
        if x in inside:
            beside[find(inside[x])].append(x)
    parts = [
        _part(function, asked[group], beside[group], producers, inside)
        for group in dict.fromkeys([*asked, *beside])
    ]
    needed = used | {x for part in parts for x in (*part.arrays, *part.scalars)}
    needed |= {x for x in wanted if x not in inside}
    return Split(alive(before, needed), parts, after, needed)


def _part(
    function: Function,
    asked: Sequence[Variable],
    beside: Sequence[Variable],
    producers: Mapping[Variable, Equation],
    inside: Mapping[Variable, Variable],
) -> Part:
    """The part that makes these variables. What it reads is computed inside it too where that works
    element by element, so that it need not be stored in between."""
    makes = (*asked, *beside)
    shape = function.shapes[makes[0]]
    equations: dict[int, Equation] = {}
    reads: dict[Variable, None] = {}
    todo, seen = list(makes), set(makes)
    while todo:
        x = todo.pop()
        equation = producers.get(x)
        if equation is None or not (x in inside or function.is_elementwise(equation, shape)):
            reads[x] = None
            continue
        equations[equation.results[0]] = equation
        new = [y for y in equation.reads if y not in seen]
        seen.update(new)
        todo += new
    arrays = sorted(x for x in reads if function.shapes[x] == shape)
    scalars = sorted(x for x in reads if function.shapes[x] != shape)
    ordered = tuple(equations[i] for i in sorted(equations))
    return Part(shape, ordered, tuple(arrays), tuple(scalars), makes, len(asked))


def alive(equations: Sequence[Equation], needed: set[Variable]) -> list[Equation]:
    """The equations whose results are needed, in order."""
    needed, kept = set(needed), []
    for equation in reversed(equations):
        if not needed.isdisjoint(equation.results):
            needed.update(equation.reads)
            kept.append(equation)
    return kept[::-1]


def _groups() -> tuple[Callable[[Variable], Variable], Callable[[Iterable[Variable]], Variable]]:
    """find(x), the smallest variable in the group of x, and join(xs), which merges their groups."""
    parents: dict[Variable, Variable] = {}

    def find(x: Variable) -> Variable:
        while x in parents:
            x = parents[x]
        return x

    def join(xs: Iterable[Variable]) -> Variable:
        first, *others = sorted(map(find, xs))
        parents.update((x, first) for x in others if x != first)
        return first

    return find, join


# Calls, and the parameter that holds what they call.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}
# fmt: off
ELEMENTWISE = frozenset((
    "abs", "add", "add_any", "and", "atan2", "bitcast_convert_type", "broadcast_in_dim", "cbrt",
    "ceil", "clamp", "convert_element_type", "copy", "copy_p", "cos", "div", "eq", "erf", "exp",
    "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "iota", "is_finite", "le", "log", "log1p",
    "logistic", "lt", "max", "min", "mul", "ne", "neg", "nextafter", "not", "or", "pow",
    "reduce_precision", "rem", "round", "rsqrt", "select_n", "shift_left",
    "shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sqrt", "square", "sub",
    "tan", "tanh", "xor",
))
# fmt: on
