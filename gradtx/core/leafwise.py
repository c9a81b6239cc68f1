"""Rules for one array, lifted to trees.

Neighbouring rules of a chain run leaf by leaf as one body. The body is one jitted function whose
static argument says which rules with which constants, so that leaves of equal shape and dtype
share its trace and its lowering, in a jitted program and outside of one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core.batches import parts
from gradtx.core.dtypes import (
    bind_numbers,
    cast,
    compute_dtype,
    is_inexact,
    real_dtype,
    strengthen,
    widen,
)
from gradtx.core.hidden import hidden
from gradtx.core.leaves import (
    Leaves,
    at,
    check_arrays,
    check_floating,
    describe,
    values_needed,
    words_of,
)
from gradtx.core.origin import show_class, show_state
from gradtx.core.rule import Asks, Rule, Step, as_rule, one_minus_power, split_result
from gradtx.core.state import (
    EmptyState,
    LeafState,
    OptState,
    Params,
    Rows,
    is_named_tuple,
    join_count,
    leaf_row,
    leaf_state,
    new_state,
    start,
)
from gradtx.core.transformation import Link, Ruled
from gradtx.core.work import Work


class LeafTransformation(Ruled):
    """A transformation given by the maths of one array."""

    names = ("grad", "state", "param", "step", "gathered", "stored_dtype", "leaf")

    def _check(self) -> None:
        super()._check()
        if self.rule.per_example:
            raise TypeError(
                f"{self.definition.name}: per_example is for rules of trees: "
                "the norm of an example is over the whole tree"
            )

    def _can_ignore(self) -> bool:
        return "grad" not in self.asks.names and not self.sees_the_tree

    def _init(self, params: Params) -> OptState:
        own: Any = EmptyState()
        if self.rule.init is not None:
            leaves = Leaves.of(params)
            values = check_arrays(leaves, self.definition.name, shapes_too=True)
            check_floating(leaves, values, self.definition.name)
            own = self._rows(leaves, values).write(leaves.treedef)
        return new_state(own, counted=self.counted)

    def _is_own(self, state: OptState) -> bool:
        return is_named_tuple(state) and super()._is_own(state)

    def _rows(self, leaves: Leaves, values: list[Any]) -> Rows:
        """The first state of each leaf; of an absent leaf, absent."""
        step = Step(start())
        init = self._leaf_init(step)
        states = [
            None if x is None else init(x, path)
            for x, path in zip(values, leaves.paths, strict=True)
        ]
        present = [s for s in states if s is not None] or [jax.eval_shape(init, _DUMMY)]
        rows = Rows.of_leaf_states(present)
        absent = (None,) * len(rows.rows[0])
        # A buffer can be donated once: a rule that keeps the step as it is has one for each leaf.
        own = [
            jax.tree.map(lambda x: jnp.copy(x) if x is step.count else x, row) for row in rows.rows
        ]
        made = iter(own)
        return Rows(rows.state_class, [absent if s is None else next(made) for s in states])

    def _leaf_init(self, step: Step) -> Callable[..., Any]:
        """The init of one array; what it has in common with the others is made once."""
        spec, traced = self._spec(self.numbers_at(step.count), EmptyState)

        @functools.cache
        def init_in(dtype: Any) -> Any:
            return spec.rule(spec.numbers(traced, real_dtype(dtype))).init

        def init(param: Any, path: str = "") -> Any:
            dtype = compute_dtype(param.dtype)
            available = {"param": cast(param, dtype), "step": step, "stored_dtype": param.dtype}
            where = f"{self.definition.name}: {at(path)} ({describe(param)})"
            try:
                with values_needed(where, [param]):
                    return jax.tree.map(strengthen, self.init_asks.call(init_in(dtype), available))
            except ValueError as error:
                if type(error) is not ValueError:
                    raise  # JAX's own errors explain themselves
                raise ValueError(f"{where}: {error}") from error

        return init

    def _spec(self, numbers: dict[str, Any], state_class: type) -> tuple[Spec, list[Any]]:
        """The rule as static structure, and the numbers that are not known when it is traced."""
        leaves, treedef = jax.tree.flatten(numbers)
        known = tuple(x if isinstance(x, int | float) else None for x in leaves)
        static = tuple(
            (n, x) for n, x in self.arguments.items() if not self.definition.is_number(n)
        )
        traced = [x for x, k in zip(leaves, known, strict=True) if k is None]
        return Spec(self.definition, self.asks, static, treedef, known, state_class), traced


_DUMMY: Any = jax.ShapeDtypeStruct((), np.float32)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Spec:
    """A rule of one leaf without its arrays: hashable, so that equal rules share one trace."""

    definition: Any
    asks: Asks
    static: tuple[tuple[str, Any], ...]
    treedef: Any
    known: tuple[Any, ...]
    state_class: type

    @cached_property
    def _hash(self) -> int:
        return hash((self.definition, self.static, self.treedef, self.known, self.state_class))

    def __hash__(self) -> int:
        return self._hash

    @property
    def name(self) -> str:
        """The name that errors give."""
        name: str = self.definition.name
        return name

    def numbers(self, traced: Sequence[Any], dtype: Any) -> dict[str, Any]:
        """The numeric hyperparameters, the traced ones in `dtype`."""
        arrays = iter(traced)
        leaves = [next(arrays) if known is None else known for known in self.known]
        return {
            name: bind_numbers(value, dtype, f"{self.name}: {name}")
            for name, value in jax.tree.unflatten(self.treedef, leaves).items()
        }

    @cached_property
    def form(self) -> Spec:
        """The rule with its factors not known, which it has in common with others."""
        factors = self._factors
        return replace(self, known=tuple(None if i in factors else k for i, k in self._numbered))

    def arguments_of_form(self, traced: Sequence[Any], beside: Any) -> list[Any]:
        """The numbers that are not known in the form of the rule, to be used with `beside`."""
        arrays, factors = iter(traced), self._factors
        return [
            next(arrays) if known is None else hidden([known], beside)[0]
            for i, known in self._numbered
            if known is None or i in factors
        ]

    @property
    def _numbered(self) -> list[tuple[int, Any]]:
        return list(enumerate(self.known))

    @cached_property
    def _factors(self) -> frozenset[int]:
        numbers = jax.tree.unflatten(self.treedef, range(len(self.known)))
        return frozenset(jax.tree.leaves([numbers[name] for name in self.definition.factors]))

    def rule(self, numbers: dict[str, Any]) -> Rule:
        """The rule with these numbers."""
        return as_rule(self.definition.call(dict(self.static) | numbers), self.name)

    def decays(self, numbers: dict[str, Any]) -> list[Any]:
        """Those of the numbers that are decays of running means."""
        return jax.tree.leaves([numbers[name] for name in self.definition.decays])


class _Shared(NamedTuple):
    """What a rule is given that is the same for all leaves."""

    numbers: list[Any]
    count: Any
    biases: list[Any]
    gathered: Any
    extra: dict[str, Any]


class _LeafError(ValueError):
    """An error in the body of one leaf, before its path is known."""


def _one_leaf(
    specs: tuple[Spec, ...], out_dtype: Any, once: Any, grad: Any, param: Any, leaf: Any, rows: Any
) -> tuple[Any, list[Any]]:
    """One leaf through neighbouring rules: nothing between them is rounded."""
    stored = grad.dtype if param is None else param.dtype
    dtype = compute_dtype(grad.dtype, stored)
    update = cast(grad, dtype)
    param = None if param is None else cast(param, dtype)
    own = {"stored_dtype": stored, "leaf": leaf}
    new_rows = []
    for spec, shared, row in zip(specs, once, rows, strict=True):
        update, new_row = _apply(spec, dtype, update, param, shared, row, own)
        new_rows.append(new_row)
    return cast(update, out_dtype), new_rows


_update_leaf = functools.partial(jax.jit, static_argnums=(0, 1))(_one_leaf)
# A body of one or two operations is put in the place of its call: that is less to lower.
_update_leaf_inline = functools.partial(jax.jit, static_argnums=(0, 1), inline=True)(_one_leaf)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _update_batch(
    specs: tuple[Spec, ...], out_dtype: Any, once: Any, leaves: Sequence[Any]
) -> list[Any]:
    """Leaves of equal shape as one batch, so that their products are batched products."""
    stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *leaves)
    one_leaf = functools.partial(_one_leaf, specs, out_dtype, once)
    results, treedef = jax.tree.flatten(jax.vmap(one_leaf)(*stacked))
    rows = zip(*(parts(x, [1] * len(leaves)) for x in results), strict=True)
    return [jax.tree.unflatten(treedef, [lax.squeeze(x, (0,)) for x in row]) for row in rows]


def _apply(
    spec: Spec,
    dtype: Any,
    grad: Any,
    param: Any,
    shared: _Shared,
    row: tuple[Any, ...],
    own: dict[str, Any],
) -> tuple[Any, tuple[Any, ...]]:
    """One rule on one leaf: the update and the new row of its state, in the dtypes it had."""
    numbers = spec.numbers(shared.numbers, real_dtype(dtype))
    rule = spec.rule(numbers)
    biases = list(zip(spec.decays(numbers), shared.biases, strict=bool(shared.biases)))
    wide_row, gathered = jax.tree.map(lambda x: widen(x, dtype), (row, shared.gathered))
    available = own | {
        "grad": grad,
        "state": leaf_state(spec.state_class, wide_row, shared.count),
        "param": param,
        "step": Step(shared.count, biases),
        "gathered": gathered,
    }
    try:
        result = spec.asks.call(rule.update, available, shared.extra)
    except AttributeError as error:
        if row and all(field is None for field in row):
            problem = f"updates {describe(grad)} have no state: was the leaf None in init's params?"
            raise _LeafError(spec.name, problem) from error
        if error.obj is not available["state"]:
            raise
        held = show_state(available["state"])
        problem = f"the state {held} is not one that its init makes: {error}"
        raise _LeafError(spec.name, problem) from error
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError):
            raise  # JAX's own errors explain themselves
        shapes = ", ".join(map(describe, jax.tree.leaves(row))) or "none"
        raise _LeafError(
            spec.name, f"{error} (updates {describe(grad)}, state: {shapes})"
        ) from error
    update, state = split_result(rule, result, spec.name)
    made, kept = type(state), spec.state_class
    if rule.init is not None and made is not kept and (is_named_tuple(state) or kept != LeafState):
        problem = f"update was given the state {show_class(kept)} and made {show_state(state)}"
        raise _LeafError(spec.name, problem)
    if isinstance(update, int | float):
        update = jnp.full_like(grad, update)
    if isinstance(update, tuple | list | dict) or update is None:
        kind = type(update).__name__
        raise TypeError(f"{spec.name}: update must return one array a leaf, it returned a {kind}")
    if np.shape(update) != np.shape(grad):
        problem = f"updates of shape {np.shape(grad)} became {np.shape(update)}"
        raise _LeafError(spec.name, problem + _ADVICE)
    return cast(update, dtype), _like(row, leaf_row(spec.state_class, state), spec, grad)


_ADVICE = "; was the state made by init on params of these shapes?"


def _like(old: Any, new: Any, spec: Spec, grad: Any) -> Any:
    """The new state in the dtypes of the old one; another shape is an error."""

    def same(before: Any, after: Any) -> Any:
        if np.shape(before) != np.shape(after):
            raise _LeafError(
                spec.name,
                f"updates {describe(grad)} do not fit the state {describe(before)}" + _ADVICE,
            )
        return cast(after, before.dtype) if is_inexact(before) else strengthen(after)

    structure: Any = jax.tree.structure(old)
    if structure != jax.tree.structure(new):
        raise _LeafError(spec.name, "update returned a state of another structure than init's")
    return jax.tree.map(same, old, new)


def run_leafwise(
    links: Sequence[Link], states: Sequence[OptState], work: Work, extra: dict[str, Any], last: bool
) -> list[OptState]:
    """Neighbouring rules on every leaf of the work; returns their new states."""
    bound = [_bind(link, state, work, extra) for link, state in zip(links, states, strict=True)]
    bound = _with_common_forms(bound, work)
    jobs: dict[Any, list[int]] = {}
    for i, value in enumerate(work.values):
        active = tuple(j for j, b in enumerate(bound) if b.selected[i])
        if value is not None and active:
            together = _avals((value, work.params[i], [bound[j].rows.rows[i] for j in active]))
            key = (active, work.out_dtypes[i], together if bound[0].batched else i)
            jobs.setdefault(key, []).append(i)
    for (active, out_dtype, _), indices in jobs.items():
        chosen = [bound[j] for j in active]
        dtype = out_dtype if last else work.compute_dtype(indices[0])
        for i, (update, rows) in zip(indices, _run(chosen, dtype, indices, work), strict=True):
            work.values[i] = update
            for b, row in zip(chosen, rows, strict=True):
                b.rows.rows[i] = row
    return [
        state
        if link.transformation.keeps_nothing
        else join_count(b.count, state, b.rows.write(work.leaves.treedef))
        for link, b, state in zip(links, bound, states, strict=True)
    ]


def _run(bound: list[_Bound], out_dtype: Any, indices: list[int], work: Work) -> list[Any]:
    """(update, rows) of each of these leaves; several are run as one batch."""
    specs = tuple(b.spec for b in bound)
    once = tuple(b.shared for b in bound)
    asked = frozenset().union(*(spec.asks.names for spec in specs))
    leaves = [
        (
            work.values[i],
            work.params[i] if asked & {"param", "stored_dtype"} else None,
            _leaf_words(work, i) if "leaf" in asked else None,
            [b.rows.rows[i] for b in bound],
        )
        for i in indices
    ]
    try:
        if len(leaves) > 1:
            return _update_batch(specs, out_dtype, once, leaves)
        small = len(specs) <= 2 and not jax.tree.leaves(leaves[0][3])
        run = _update_leaf_inline if small else _update_leaf
        return [run(specs, out_dtype, once, *leaves[0])]
    except _LeafError as error:
        name, problem = error.args
        path = work.leaves.paths[indices[0]]
        raise ValueError(f"{name}: {at(path)}: {problem}") from error.__cause__


def _leaf_words(work: Work, i: int) -> tuple[Any, ...]:
    """What a rule that asks for `leaf` is given."""
    return tuple(hidden(words_of(work.leaves.key_paths[i]), work.values[i]))


def _avals(leaf: Any) -> Any:
    arrays, treedef = jax.tree.flatten(leaf)
    return treedef, tuple((x.shape, x.dtype) for x in arrays)


class _Bound(NamedTuple):
    """A rule ready to run on leaves: what is the same for all of them, and a row for each."""

    spec: Spec
    shared: _Shared
    count: Any
    rows: Rows
    selected: list[bool]
    batched: bool


def _bind(link: Link, state: OptState, work: Work, extra: dict[str, Any]) -> _Bound:
    tx = link.transformation
    own, old_count, count = tx.read_count(state)
    spec, traced = tx._spec(tx.numbers_at(old_count), type(own))
    numbers = spec.numbers(traced, work.widest_real_dtype())
    biases = []
    if "step" in tx.asks.names and spec.definition.decays:
        decays = spec.decays(numbers)
        known = tuple(x if isinstance(x, int | float) else None for x in decays)
        biases = _biases(known, work.widest_real_dtype(), count, decays)
    selected = work.selected(link.masks)
    gathered = None
    if tx.rule.gather is not None:
        available: dict[str, Any] = {"step": Step(count)}
        if tx.sees_the_tree:
            available["updates"] = work.tree(selected)
            available["params"] = work.params_tree(selected)
        gathered = tx.gather_asks.call(spec.rule(numbers).gather, available)
    shared = _Shared(traced, count, biases, gathered, work.visible(tx.asks.of(extra), link.masks))
    rows = Rows.read(own, work.leaves, tx.definition.name)
    return _Bound(spec, shared, count, rows, selected, tx.rule.batched)


def _with_common_forms(bound: list[_Bound], work: Work) -> list[_Bound]:
    """Rules that differ in factors alone, as those of groups do, in the form that they share."""
    if len({b.spec.definition for b in bound}) == len(bound):
        return bound  # as in most chains: nothing is to be compared
    specs: dict[Spec, set[Spec]] = {}
    for b in bound:
        specs.setdefault(b.spec.form, set()).add(b.spec)
    some = next((x for x in work.values if x is not None), None)

    def common(b: _Bound) -> _Bound:
        arguments = b.spec.arguments_of_form(b.shared.numbers, some)
        return b._replace(spec=b.spec.form, shared=b.shared._replace(numbers=arguments))

    return [b if len(specs[b.spec.form]) == 1 else common(b) for b in bound]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _biases(known: tuple[Any, ...], dtype: Any, count: Any, decays: list[Any]) -> list[Any]:
    """1 - decay^count of each decay, exact where it is known; jitted so that outside of jit it is
    one call."""
    pairs = zip(known, decays, strict=True)
    time = cast(count, dtype)
    return [one_minus_power(x if number is None else number, time) for number, x in pairs]
