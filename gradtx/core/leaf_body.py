"""One leaf's way through neighbouring rules of one array: one jitted body, without rounding between
them.

The rules and their constants are its static argument, so that leaves of equal shape and dtype share
one trace and one lowering, inside a jitted program and outside.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import PyTreeDef

from gradtx.core.counts import check_uncounted
from gradtx.core.definition import Definition
from gradtx.core.dtypes import (
    Scalar,
    bind_numbers,
    cast,
    compute_dtype,
    drop_weak_type,
    is_inexact,
    real_dtype,
    widen,
)
from gradtx.core.leaf_states import Row, leaf_state, row_of
from gradtx.core.leaves import describe
from gradtx.core.meshes.manual import manual_axes, named
from gradtx.core.opaque import opaque
from gradtx.core.origin import INSTEAD, show_class, show_state
from gradtx.core.problem import Extra
from gradtx.core.rule import Inputs, Rule, as_rule, split_result
from gradtx.core.state import EmptyState, LeafState, StateClass, is_named_tuple
from gradtx.core.step import Step

Words = tuple[np.uint32 | jax.Array, np.uint32 | jax.Array]


@dataclass(frozen=True)
class Leaf:
    """The leaf that a rule of one array is run on.

    dtype: that in which its parameter is stored (or its gradient, if no params were given).
    words: two uint32 scalars made from its path; fold both into a random key.
    """

    dtype: np.dtype
    words: Words | None

    # It still acts as the pair of words that it was in the last release.

    def __len__(self) -> int:
        return len(self.words or ())

    def __getitem__(self, index: int) -> Any:
        return (self.words or ())[index]

    def __iter__(self) -> Iterator[np.uint32 | jax.Array]:
        yield from self.words or ()


@dataclass(frozen=True)
class Spec:
    """A rule of one array without its arrays: hashable, so that equal rules share one trace.

    treedef, known: the flattened numeric hyperparameters; Python numbers are constants of the
    trace, and None stands for an array, which is an argument of it.
    static: the other arguments, in hashable form.
    state_class: that of the rule's own state.
    """

    definition: Definition[Any, Any]
    inputs: Inputs
    static: tuple[tuple[str, Any], ...]
    treedef: PyTreeDef
    known: tuple[float | None, ...]
    state_class: StateClass

    @cached_property
    def _hash(self) -> int:
        return hash((self.definition, self.static, self.treedef, self.known, self.state_class))

    def __hash__(self) -> int:
        return self._hash

    def numbers(self, traced: Sequence[Any], dtype: np.dtype) -> dict[str, Any]:
        """The numeric hyperparameters by name: Python numbers, and the traced arrays in `dtype`."""
        if not traced:
            return self._constants
        arrays, name = iter(traced), self.definition.name
        leaves = [next(arrays) if x is None else x for x in self.known]
        return {
            n: bind_numbers(x, dtype, f"{name}: {n}")
            for n, x in jax.tree.unflatten(self.treedef, leaves).items()
        }

    @cached_property
    def _constants(self) -> dict[str, Any]:
        constants: dict[str, Any] = jax.tree.unflatten(self.treedef, self.known)
        return constants

    def rule(self, numbers: dict[str, Any]) -> Rule:
        """The rule with these numbers."""
        made = self.definition.call(dict(self.static) | numbers)
        return made if isinstance(made, Rule) else as_rule(made, self.definition.name)

    def decays(self, numbers: Mapping[str, Any]) -> list[Scalar]:
        """The numbers that are decays of running means."""
        return jax.tree.leaves([numbers[name] for name in self.definition.decays])

    # -- its form: the rule with its factors as arguments, which it shares with similar rules ------

    @cached_property
    def form(self) -> Spec:
        """The rule with its factors as arguments of the trace instead of constants."""
        known = [None if i in self._factors else x for i, x in enumerate(self.known)]
        return replace(self, known=tuple(known))

    def arguments_of_form(self, traced: Sequence[Any], beside: jax.Array | None) -> list[Any]:
        """The traced numbers of `form`; `beside` is an array that they are used with."""
        arrays = iter(traced)
        return [
            next(arrays) if known is None else opaque([known], beside)[0]
            for i, known in enumerate(self.known)
            if known is None or i in self._factors
        ]

    @cached_property
    def _factors(self) -> frozenset[int]:
        numbers = jax.tree.unflatten(self.treedef, range(len(self.known)))
        return frozenset(jax.tree.leaves([numbers[name] for name in self.definition.factors]))


class Shared(NamedTuple):
    """The inputs of a rule that are the same for all leaves.

    numbers: the hyperparameters that are arrays. count: that of `Step`, if one is kept.
    biases: 1 - decay^count for each of `Spec.decays`, scalars; empty if the rule asks for no step.
    """

    numbers: list[Any]
    count: Any  # an int32 scalar or None; typed, it would clash with tuple.count
    biases: list[jax.Array]
    precomputed: Any
    extra: Extra


class LeafError(ValueError):
    """An error (name, problem) in the body of one leaf, where its path is not known."""


def _update_leaf(
    specs: tuple[Spec, ...],
    out_dtype: np.dtype,
    shared: tuple[Shared, ...],
    grad: jax.Array,
    param: jax.Array | None,
    words: Words | None,
    rows: Sequence[Row],
) -> tuple[jax.Array, list[Row]]:
    """The update of one leaf, in `out_dtype`, and its new row for each rule."""
    stored = grad.dtype if param is None else param.dtype
    dtype = compute_dtype(grad.dtype, stored)
    update = cast(grad, dtype)
    given = {"param": None if param is None else cast(param, dtype), "leaf": Leaf(stored, words)}
    # Asked once for all rules: nothing is named outside of `jax.shard_map`.
    scope = named if manual_axes() else nullcontext
    new_rows = []
    for spec, own, row in zip(specs, shared, rows, strict=True):
        with scope(spec.definition.name):
            update, new_row = _apply(spec, own, dtype, update, row, given)
        new_rows.append(new_row)
    return update if dtype == out_dtype else cast(update, out_dtype), new_rows


update_leaf = functools.partial(jax.jit, static_argnums=(0, 1))(_update_leaf)
# Inlining a body of one or two operations leaves less to lower than a call.
update_leaf_inline = functools.partial(jax.jit, static_argnums=(0, 1), inline=True)(_update_leaf)


def _apply(
    spec: Spec, shared: Shared, dtype: np.dtype, grad: jax.Array, row: Row, given: dict[str, Any]
) -> tuple[jax.Array, Row]:
    """One rule on one leaf: the update in `dtype`, and the new row in the old row's dtypes."""
    numbers, name = spec.numbers(shared.numbers, real_dtype(dtype)), spec.definition.name
    rule = spec.rule(numbers)
    biases = list(zip(spec.decays(numbers), shared.biases, strict=True)) if shared.biases else []
    wide_row, precomputed = jax.tree.map(lambda x: widen(x, dtype), (row, shared.precomputed))
    stateless = spec.state_class is EmptyState
    state = EmptyState() if stateless else leaf_state(spec.state_class, wide_row)
    available = given | {"grad": grad, "state": state, "precomputed": precomputed}
    if "step" in spec.inputs.names:
        available["step"] = Step(shared.count, biases)
    try:
        result = spec.inputs.call(rule.update, available, shared.extra)
    except AttributeError as error:
        problem = _misses_state(error, grad, row, state)
        if problem is None:
            raise
        raise LeafError(name, problem) from error
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError):
            raise  # JAX's own errors explain themselves
        shapes = ", ".join(map(describe, jax.tree.leaves(row))) or "none"
        hint = _ADVICE if any(np.shape(x) != np.shape(grad) for x in jax.tree.leaves(row)) else ""
        problem = f"{error} (updates {describe(grad)}, state: {shapes})"
        raise LeafError(name, problem + hint) from error
    if rule.init is None:
        return cast(_as_update(result, grad, name), dtype), ()
    update, new = split_result(rule, result, name)
    made, kept = type(new), spec.state_class
    if made is not kept and (is_named_tuple(new) or kept is not LeafState):
        problem = f"update was given the state {show_class(kept)} and made {show_state(new)}"
        raise LeafError(name, problem)
    check_uncounted(name, new, shared.count)
    update = cast(_as_update(update, grad, name), dtype)
    return update, _like(row, row_of(spec.state_class, new), name, grad)


def _as_update(update: Any, grad: jax.Array, name: str) -> jax.Array:
    """What a rule returned as the update of a leaf: a number is broadcast, and anything else but an
    array of the leaf's shape is an error."""
    if isinstance(update, int | float):
        return jnp.full_like(grad, update)
    if isinstance(update, tuple | list | dict) or update is None:
        kind = type(update).__name__
        raise TypeError(f"{name}: update must return one array a leaf, it returned a {kind}")
    if np.shape(update) != np.shape(grad):
        problem = f"updates of shape {np.shape(grad)} became {np.shape(update)}"
        raise LeafError(name, problem + _ADVICE)
    return update


_ADVICE = "; was the state made by init on params of these shapes?"


def _misses_state(error: AttributeError, grad: jax.Array, row: Row, state: Any) -> str | None:
    """What is wrong with the state, if that is why a rule did not find an attribute."""
    if row and not jax.tree.leaves(row):  # None, or another group's
        return f"updates {describe(grad)} have no state: was the leaf None in init's params?"
    if error.obj is not state:
        return None
    return f"the state {show_state(state)} is not one that its init makes: {error}. {INSTEAD}"


def _like(old: Row, new: Row, name: str, grad: jax.Array) -> Row:
    """The new row in the dtypes of the old one; another structure or shape is an error."""

    def same(before: Any, after: Any) -> Any:
        if np.shape(before) != np.shape(after):
            raise LeafError(
                name, f"updates {describe(grad)} do not fit the state {describe(before)}" + _ADVICE
            )
        return cast(after, before.dtype) if is_inexact(before) else drop_weak_type(after)

    structure: Any = jax.tree.structure(old)
    if structure != jax.tree.structure(new):
        raise LeafError(name, "update returned a state of another structure than init's")
    return jax.tree.map(same, old, new)
