"""A function of whole arrays, run inside `jax.shard_map` on the pieces that the devices hold.

The function is traced for the shapes of the whole arrays, so that whatever it reads from shapes
(the size that a mean divides by, which dimensions are factored) is right, and its equations are run
one by one on the pieces, each by its rule.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jax import lax

from gradtx.core.meshes.manual import varies_over
from gradtx.sharding.operations import RULES, Operation, Rule, of_one_type, on_wholes
from gradtx.sharding.pieces import Division, Piece, Shape, joined, whole

if TYPE_CHECKING:
    from jax.extend.core import ClosedJaxpr, JaxprEqn


def run_on_pieces(jaxpr: ClosedJaxpr, pieces: Sequence[Piece]) -> list[Piece]:
    """The results of a function that was traced for whole arrays."""
    from jax.extend.core import Literal  # here, since JAX imports all of Pallas with it

    consts = [Piece.of(x, whole(np.shape(x))) for x in jaxpr.consts]
    known: dict[Any, Piece] = dict(zip(jaxpr.jaxpr.constvars, consts, strict=True))
    known.update(zip(jaxpr.jaxpr.invars, pieces, strict=True))

    def of(x: Any) -> Piece:
        if not isinstance(x, Literal):
            return known[x]
        aval: Any = x.aval
        return Piece.of(np.asarray(x.val, aval.dtype), whole(aval.shape))  # type: ignore[arg-type]

    for equation in jaxpr.jaxpr.eqns:
        made = _results(equation, [of(x) for x in equation.invars])
        known.update(zip(equation.outvars, made, strict=True))
    return [of(x) for x in jaxpr.jaxpr.outvars]


def _results(equation: JaxprEqn, pieces: Sequence[Piece]) -> list[Piece]:
    operation, name = Operation(equation), equation.primitive.name
    if name in _CONTROL:
        return _CONTROL[name](operation, pieces)
    called = next(
        (equation.params[key] for key in _CALLS.get(name, ()) if key in equation.params), None
    )
    if called is not None:
        return run_on_pieces(_closed(called), pieces)
    return RULES.get(name, on_wholes)(operation, pieces)


def _closed(jaxpr: Any) -> ClosedJaxpr:
    from jax.extend.core import ClosedJaxpr

    return jaxpr if hasattr(jaxpr, "consts") else ClosedJaxpr(jaxpr, [])


# Calls, and the parameters that may hold what they call. A function with a derivative rule of its
# own is run without it: differentiating the whole traces the derivative for whole arrays.
_CALLS = {
    "jit": ("jaxpr",),
    "pjit": ("jaxpr",),
    "closed_call": ("call_jaxpr",),
    "core_call": ("call_jaxpr",),
    "checkpoint": ("jaxpr",),
    "remat2": ("jaxpr",),
    "custom_jvp_call": ("call_jaxpr",),
    "custom_vjp_call": ("call_jaxpr", "fun_jaxpr"),
    "custom_vjp_call_jaxpr": ("fun_jaxpr",),
    "custom_vmap_call": ("call",),
    "custom_partitioning": ("call",),
}


# -- control flow ----------------------------------------------------------------------------------

# From pieces to pieces.
Body = Callable[[Sequence[Piece]], list[Piece]]


class _Kind(NamedTuple):
    """How a value is held throughout a loop, or whichever branch is taken."""

    shape: Shape
    division: Division
    axes: frozenset[str]  # that it may vary over

    @classmethod
    def of(cls, piece: Piece) -> _Kind:
        return cls(piece.shape, piece.division, varies_over(piece.here))

    def with_(self, other: _Kind) -> _Kind:
        return _Kind(
            self.shape, joined(self.shape, (self.division, other.division)), self.axes | other.axes
        )

    def array(self, piece: Piece) -> jax.Array:
        """The piece, held in this way."""
        (made,) = of_one_type([piece.divided(self.division)], self.axes)
        return made

    def piece(self, array: jax.Array) -> Piece:
        return Piece.of(array, self.division)


def _kinds_of(body: Body, kinds: Sequence[_Kind], arrays: Sequence[jax.Array]) -> list[_Kind]:
    """The kinds of what the body makes from such pieces."""
    found: list[_Kind] = []

    def traced(*arrays: jax.Array) -> list[jax.Array]:
        made = [p.as_held() for p in body(_pieces(kinds, arrays))]
        found.extend(map(_Kind.of, made))
        return [p.here for p in made]

    jax.eval_shape(traced, *arrays)
    return found


def _pieces(kinds: Sequence[_Kind], arrays: Sequence[jax.Array]) -> list[Piece]:
    return [kind.piece(x) for kind, x in zip(kinds, arrays, strict=True)]


def _arrays(kinds: Sequence[_Kind], pieces: Sequence[Piece]) -> list[jax.Array]:
    return [kind.array(p) for kind, p in zip(kinds, pieces, strict=True)]


def _cond(operation: Operation, pieces: Sequence[Piece]) -> list[Piece]:
    index, *operands = [p.as_held() for p in pieces]
    given = [_Kind.of(p) for p in operands]
    arrays = _arrays(given, operands)
    bodies = [_calling(branch) for branch in operation.params["branches"]]
    first, *others = [_kinds_of(body, given, arrays) for body in bodies]
    kinds = [functools.reduce(_Kind.with_, same) for same in zip(first, *others, strict=True)]

    def local(body: Body) -> Callable[..., list[jax.Array]]:
        return lambda *arrays: _arrays(kinds, body(_pieces(given, arrays)))

    branches, platforms = list(map(local, bodies)), operation.params.get("branches_platforms")
    with operation.context():
        if platforms is None:
            made = lax.switch(index.all, branches, *arrays)
        else:
            by_name = {
                name or "default": branch
                for names, branch in zip(platforms, branches, strict=True)
                for name in names or (None,)
            }
            made = lax.platform_dependent(*arrays, **by_name)
    return _pieces(kinds, made)


def _while(operation: Operation, pieces: Sequence[Piece]) -> list[Piece]:
    params = operation.params
    ends = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    of_test, of_body, carry = _split_at([p.as_held() for p in pieces], ends)
    test, body = map(_calling, (params["cond_jaxpr"], params["body_jaxpr"]))

    def step(carry: Sequence[Piece]) -> list[Piece]:
        return body([*of_body, *carry])

    kinds = _steady(step, [_Kind.of(p) for p in carry], carry)
    with operation.context():
        made = lax.while_loop(
            lambda arrays: test([*of_test, *_pieces(kinds, arrays)])[0].all,
            lambda arrays: _arrays(kinds, step(_pieces(kinds, arrays))),
            _arrays(kinds, carry),
        )
    return _pieces(kinds, made)


def _steady(
    step: Callable[[Sequence[Piece]], list[Piece]], kinds: list[_Kind], carry: Sequence[Piece]
) -> list[_Kind]:
    """Kinds for what is carried that also hold what a step makes of it."""
    while True:
        made = _kinds_of(step, kinds, _arrays(kinds, carry))[: len(kinds)]
        new = [kind.with_(other) for kind, other in zip(kinds, made, strict=True)]
        if new == kinds:
            return kinds
        kinds = new


def _scan(operation: Operation, pieces: Sequence[Piece]) -> list[Piece]:
    params = operation.params
    ends = params["num_consts"], params["num_consts"] + params["num_carry"]
    consts, carry, sequences = _split_at([p.as_held() for p in pieces], ends)
    body, number = _calling(params["jaxpr"]), len(carry)
    # Every device takes all steps; the other dimensions stay cut as they are.
    rows = [_Kind(p.shape, ((), *p.division[1:]), varies_over(p.here)) for p in sequences]
    along = _arrays(rows, sequences)
    row_kinds = [_Kind(kind.shape[1:], kind.division[1:], kind.axes) for kind in rows]

    def step(carry_and_row: Sequence[Piece]) -> list[Piece]:
        return body([*consts, *carry_and_row])

    some = [_Kind.piece(kind, x[0]) for kind, x in zip(row_kinds, along, strict=True)]
    kinds = _steady(lambda own: step([*own, *some]), [_Kind.of(p) for p in carry], carry)
    held = _arrays(kinds, carry)
    out = _kinds_of(step, [*kinds, *row_kinds], [*held, *_arrays(row_kinds, some)])[number:]

    def local(held: Any, row: Any) -> Any:
        made = step([*_pieces(kinds, held), *_pieces(row_kinds, row)])
        return _arrays(kinds, made[:number]), _arrays(out, made[number:])

    with operation.context():
        held, stacked = lax.scan(
            local,
            held,
            along,
            length=params["length"],
            reverse=params["reverse"],
            unroll=params["unroll"],
        )
    stacks = [Piece.of(x, ((), *kind.division)) for x, kind in zip(stacked, out, strict=True)]
    return [*_pieces(kinds, held), *stacks]


def _split_at(pieces: Sequence[Piece], ends: tuple[int, int]) -> Iterator[Sequence[Piece]]:
    first, second = ends
    yield from (pieces[:first], pieces[first:second], pieces[second:])


def _calling(jaxpr: ClosedJaxpr) -> Body:
    return lambda pieces: run_on_pieces(jaxpr, pieces)


_CONTROL: dict[str, Rule] = {"cond": _cond, "while": _while, "scan": _scan}
