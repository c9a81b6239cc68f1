"""One leaf through neighbouring rules of one array: one jitted body, rounded nowhere between them.

Its static argument says which rules with which constants, so that leaves of equal shape and dtype
share its trace and its lowering, in a jitted program and outside of one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.counts import check_uncounted
from gradtx.core.dtypes import (
    bind_numbers,
    cast,
    compute_dtype,
    is_inexact,
    real_dtype,
    strengthen,
    widen,
)
from gradtx.core.leaf_states import Row, leaf_state, row_of
from gradtx.core.leaves import describe
from gradtx.core.opaque import opaque
from gradtx.core.origin import show_class, show_state
from gradtx.core.rule import Inputs, Rule, as_rule, split_result
from gradtx.core.state import EmptyState, LeafState, is_named_tuple
from gradtx.core.step import Step


@dataclass(frozen=True)
class Leaf:
    """Which leaf a rule of one array is run on.

    dtype: in which its parameter is kept, or its gradient, where no parameters are given; words:
    two uint32 scalars made from its path, both of which are to be folded into a random key.
    """

    dtype: Any
    words: tuple[Any, Any] | None

    def __iter__(self) -> Iterator[Any]:
        yield from self.words or ()


@dataclass(frozen=True)
class Spec:
    """A rule of one array without its arrays: hashable, so that equal rules share one trace.

    static: the arguments that are no numbers, as structure, and options, as they were given; known:
    the numbers that are constants of the trace, None in the place of those that are not.
    """

    definition: Any
    inputs: Inputs
    static: tuple[tuple[str, Any], ...]
    treedef: Any
    known: tuple[Any, ...]
    state_class: type
    options: dict[str, Any] = field(compare=False)

    @cached_property
    def _hash(self) -> int:
        return hash((self.definition, self.static, self.treedef, self.known, self.state_class))

    def __hash__(self) -> int:
        return self._hash

    def numbers(self, traced: Sequence[Any], dtype: Any) -> dict[str, Any]:
        """The numeric hyperparameters, the traced ones in `dtype`."""
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
        made = self.definition.build(self.options | numbers)
        return made if isinstance(made, Rule) else as_rule(made, self.definition.name)

    def decays(self, numbers: dict[str, Any]) -> list[Any]:
        """Those of the numbers that are decays of running means."""
        return jax.tree.leaves([numbers[name] for name in self.definition.decays])

    # -- with its factors not known, which it has in common with others ----------------------------

    @cached_property
    def form(self) -> Spec:
        """The rule with its factors not known."""
        known = [None if i in self._factors else x for i, x in enumerate(self.known)]
        return replace(self, known=tuple(known))

    def arguments_of_form(self, traced: Sequence[Any], beside: Any) -> list[Any]:
        """The numbers that are not known in the form of the rule, to be used with `beside`."""
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
    """What a rule is given that is the same for all leaves."""

    numbers: list[Any]
    count: Any
    biases: list[Any]
    precomputed: Any
    extra: dict[str, Any]


class LeafError(ValueError):
    """An error in the body of one leaf, before its path is known."""


def _update_leaf(
    specs: tuple[Spec, ...],
    out_dtype: Any,
    shared: tuple[Shared, ...],
    grad: jax.Array,
    param: jax.Array | None,
    words: Any,
    rows: Sequence[Row],
) -> tuple[jax.Array, list[Row]]:
    """The update of one leaf, in `out_dtype`, and its new state under each rule."""
    stored = grad.dtype if param is None else param.dtype
    dtype = compute_dtype(grad.dtype, stored)
    update = cast(grad, dtype)
    given = {"param": None if param is None else cast(param, dtype), "leaf": Leaf(stored, words)}
    new_rows = []
    for spec, own, row in zip(specs, shared, rows, strict=True):
        update, new_row = _apply(spec, own, dtype, update, row, given)
        new_rows.append(new_row)
    return update if dtype == out_dtype else cast(update, out_dtype), new_rows


update_leaf = functools.partial(jax.jit, static_argnums=(0, 1))(_update_leaf)
# A body of one or two operations is put in the place of its call: that is less to lower.
update_leaf_inline = functools.partial(jax.jit, static_argnums=(0, 1), inline=True)(_update_leaf)


def _apply(
    spec: Spec, shared: Shared, dtype: Any, grad: jax.Array, row: Row, given: dict[str, Any]
) -> tuple[jax.Array, Row]:
    """One rule on one leaf: the update and the new row of its state, in the dtypes it had."""
    numbers, name = spec.numbers(shared.numbers, real_dtype(dtype)), spec.definition.name
    rule = spec.rule(numbers)
    biases = list(zip(spec.decays(numbers), shared.biases, strict=True)) if shared.biases else []
    wide_row, precomputed = jax.tree.map(lambda x: widen(x, dtype), (row, shared.precomputed))
    stateless = spec.state_class is EmptyState
    state = EmptyState() if stateless else leaf_state(spec.state_class, wide_row, shared.count)
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
        raise LeafError(name, f"{error} (updates {describe(grad)}, state: {shapes})") from error
    if stateless:
        return cast(_as_update(result, grad, name), dtype), ()
    update, new = split_result(rule, result, name)
    made, kept = type(new), spec.state_class
    if made is not kept and (is_named_tuple(new) or kept is not LeafState):
        problem = f"update was given the state {show_class(kept)} and made {show_state(new)}"
        raise LeafError(name, problem)
    check_uncounted(name, new, state, shared.count)
    update = cast(_as_update(update, grad, name), dtype)
    return update, _like(row, row_of(spec.state_class, new), name, grad)


def _as_update(update: Any, grad: jax.Array, name: str) -> Any:
    """What a rule returned as the update of a leaf; anything but an array like it is an error."""
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


def _misses_state(error: AttributeError, grad: Any, row: Row, state: Any) -> str | None:
    """What to say of an attribute that a rule did not find in a state that is not its own."""
    if row and all(x is None for x in row):
        return f"updates {describe(grad)} have no state: was the leaf None in init's params?"
    if error.obj is not state:
        return None
    return f"the state {show_state(state)} is not one that its init makes: {error}"


def _like(old: Row, new: Row, name: str, grad: Any) -> Any:
    """The new state in the dtypes of the old one; another shape is an error."""

    def same(before: Any, after: Any) -> Any:
        if np.shape(before) != np.shape(after):
            raise LeafError(
                name, f"updates {describe(grad)} do not fit the state {describe(before)}" + _ADVICE
            )
        return cast(after, before.dtype) if is_inexact(before) else strengthen(after)

    structure: Any = jax.tree.structure(old)
    if structure != jax.tree.structure(new):
        raise LeafError(name, "update returned a state of another structure than init's")
    return jax.tree.map(same, old, new)
