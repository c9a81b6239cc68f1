"""Inside `jax.shard_map` a function sees one device's piece of each array. What works element by
element is right there; a sum over an array would be a sum over the piece, and is refused.

The types of values say over which mesh axes they differ from device to device. A value made by
combining elements of one that differs is *partial* over these axes, and so is what is computed from
it, until a collective (`psum`) makes it the same along them. A partial result is an error.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, jaxpr_as_fun

from gradtx.core.leaves import at, shown
from gradtx.core.meshes.manual import EACH_SHARD, SCOPE, varies_over


def whole_sums(name: str, function: Callable[..., Any], *trees: Any) -> Any:
    """function(*trees) inside `jax.shard_map`, with an error if a result is summed over pieces of
    arrays.

    name: the transformation's, for errors where it is not known which part of it sums.
    """
    entries, treedef = jax.tree_util.tree_flatten_with_path(trees)
    leaves = [x for _, x in entries]
    traced = [i for i, x in enumerate(leaves) if isinstance(x, jax.Array)]
    if not any(varies_over(leaves[i]) for i in traced):
        return function(*trees)

    def of_arrays(*arrays: jax.Array) -> Any:
        known = dict(zip(traced, arrays, strict=True))
        return function(
            *jax.tree.unflatten(treedef, [known.get(i, x) for i, x in enumerate(leaves)])
        )

    arrays = [leaves[i] for i in traced]
    try:
        jaxpr, made = jax.make_jaxpr(of_arrays, return_shape=True)(*arrays)
    except TypeError as error:
        if "manual ax" not in str(error):
            raise
        raise TypeError(
            f"{name}: inside jax.shard_map it would decide by one device's pieces of arrays, and "
            f"each device otherwise. {_WAYS_OUT}"
        ) from error
    given = [_Value(None, shown(entries[i][0][1:])) for i in traced]
    partial = _first(_values(jaxpr, given, name))
    if partial is not None:
        raise _refusal(partial)
    return jax.tree.unflatten(jax.tree.structure(made), jaxpr_as_fun(jaxpr)(*arrays))


class _Partial(NamedTuple):
    """Where elements of one device's piece were combined: by which primitive of which
    transformation, in the piece of which leaf, cut by which mesh axes. number: larger for what came
    later."""

    number: int
    axes: frozenset[str]
    primitive: str
    name: str
    path: str


class _Value(NamedTuple):
    """What is known about a value: whether it is partial, and which leaf it is made from."""

    partial: _Partial | None
    path: str | None


_CONSTANT = _Value(None, None)
_NUMBERS = itertools.count()


def _refusal(partial: _Partial) -> ValueError:
    axes = ", ".join(map(repr, sorted(partial.axes)))
    return ValueError(
        f"{partial.name}: {at(partial.path)}: inside jax.shard_map it combines the elements of one "
        f"device's piece of an array, by {partial.primitive}, and not those of the whole array, "
        f"which is cut over the mesh axes {axes}. {_WAYS_OUT}"
    )


_WAYS_OUT = (
    "gradtx.sharding.on_shards(tx, specs), with the in_specs of the params, computes with whole "
    "arrays; on_shards(tx, PartitionSpec()) takes each piece for an array of its own"
)


def _values(jaxpr: ClosedJaxpr | Any, given: Sequence[_Value], name: str) -> list[_Value]:
    """What is known about the values that a traced function returns."""
    inside = getattr(jaxpr, "jaxpr", jaxpr)
    known: dict[Any, _Value] = dict(zip(inside.invars, given, strict=True))

    def of(x: Any) -> _Value:
        return _CONSTANT if isinstance(x, Literal) else known.get(x, _CONSTANT)

    for equation in inside.eqns:
        made = _results(equation, [of(x) for x in equation.invars], name)
        for variable, value in zip(equation.outvars, made, strict=True):
            known[variable] = _left(value, varies_over(variable.aval))
    return [of(x) for x in inside.outvars]


def _left(value: _Value, axes: frozenset[str]) -> _Value:
    """The value as one that differs over these axes only."""
    partial = value.partial
    if partial is None or partial.axes <= axes:
        return value
    left = partial.axes & axes
    return value._replace(partial=partial._replace(axes=left) if left else None)


def _results(equation: JaxprEqn, operands: Sequence[_Value], name: str) -> Sequence[_Value]:
    primitive, params = equation.primitive.name, equation.params
    scopes = str(equation.source_info.name_stack).split("/")
    count = len(equation.outvars)
    path = _path_of(operands)
    if EACH_SHARD in scopes:
        return [_Value(None, path)] * count
    name = next((s.removeprefix(SCOPE) for s in reversed(scopes) if s.startswith(SCOPE)), name)
    match primitive:
        case "cond":
            test, rest = operands[0], operands[1:]
            found = [_values(branch, rest, name) for branch in params["branches"]]
            return [_any([test, *same]) for same in zip(*found, strict=True)]
        case "while":
            first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
            of_test, of_body, carry = operands[:first], operands[first:second], operands[second:]
            for _ in carry:
                carry = _with(carry, _values(params["body_jaxpr"], [*of_body, *carry], name))
            (test,) = _values(params["cond_jaxpr"], [*of_test, *carry], name)
            return [_any([x, test]) for x in carry]
        case "scan":
            first, second = params["num_consts"], params["num_consts"] + params["num_carry"]
            consts, carry, rows = operands[:first], operands[first:second], operands[second:]
            made = _values(params["jaxpr"], operands, name)
            for _ in carry:
                carry = _with(carry, made)
                made = _values(params["jaxpr"], [*consts, *carry, *rows], name)
            return made
    called = next((params[key] for key in _CALLED if hasattr(params.get(key), "eqns")), None)
    if called is not None and len(getattr(called, "jaxpr", called).invars) == len(operands):
        return _values(called, operands, name)
    partial = _first(operands)
    axes = frozenset[str]().union(*(varies_over(x.aval) for x in equation.invars))
    if partial is None and axes and primitive.startswith(_COMBINING):
        partial = _Partial(next(_NUMBERS), axes, primitive, name, path or "")
    return [_Value(partial, path)] * count


def _with(carry: Sequence[_Value], made: Sequence[_Value]) -> list[_Value]:
    return [_any(pair) for pair in zip(carry, made, strict=False)]


def _any(values: Sequence[_Value]) -> _Value:
    """A value that is made from any of these."""
    return _Value(_first(values), _path_of(values))


def _first(values: Sequence[_Value]) -> _Partial | None:
    """The earliest of the operations that made them partial."""
    return min((x.partial for x in values if x.partial is not None), default=None)


def _path_of(values: Sequence[_Value]) -> str | None:
    """The leaf that these are made from: a gradient or parameter rather than the state of one."""
    return min((x.path for x in values if x.path is not None), key=len, default=None)


# The parameters of a calling operation that may hold what it calls.
_CALLED = ("jaxpr", "call_jaxpr", "fun_jaxpr", "call")
# Prefixes of the names of operations that combine elements of an array.
_COMBINING = (
    "reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod", "reduce_sum",
    "reduce_window", "reduce_xor", "approx_top_k", "argmax", "argmin", "cholesky", "conv_general",
    "cum", "dot_general", "eig", "fft", "geqrf", "householder", "lu", "qr", "schur", "sort", "svd",
    "top_k", "triangular_solve", "tridiagonal",
)  # fmt: skip
