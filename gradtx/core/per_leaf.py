"""Rules of one array, lifted to trees: neighbouring rules run leaf by leaf as one jitted body."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import PyTreeDef

from gradtx.core.counts import check_uncounted, first_state, join_count, start
from gradtx.core.dtypes import Scalar, as_exact, cast, compute_dtype, drop_weak_type, real_dtype
from gradtx.core.elementwise import works_element_by_element
from gradtx.core.flat_updates import FlatUpdates, Selection
from gradtx.core.launches import SMALL, in_one_array
from gradtx.core.leaf_body import (
    Leaf,
    LeafError,
    Shared,
    Spec,
    update_leaf,
    update_leaf_inline,
)
from gradtx.core.leaf_states import LeafStates, Row
from gradtx.core.leaves import (
    Leaves,
    at,
    check_arrays,
    check_floating,
    describe,
    path_words,
    values_needed,
)
from gradtx.core.meshes.manual import named
from gradtx.core.opaque import opaque
from gradtx.core.origin import StateError
from gradtx.core.place import Place
from gradtx.core.problem import Extra
from gradtx.core.ruled import Ruled
from gradtx.core.run import Stage
from gradtx.core.state import EmptyState, OptState, Params, StateClass, is_named_tuple
from gradtx.core.step import Step, one_minus_power
from gradtx.core.transformation import GradientTransformation, Link


class LeafTransformation(Ruled):
    """A transformation defined by the maths of one array."""

    init_names = ("param", "step", "leaf")
    update_names = ("grad", "state", "param", "step", "precomputed", "leaf")

    def _check(self) -> None:
        super()._check()
        if Place.FIRST in self.rule.place:
            raise TypeError(
                f"{self.definition.name}: Place.FIRST is for rules of trees: "
                "the norm of an example is over the whole tree"
            )

    @functools.cached_property
    def sees_the_tree(self) -> bool:
        """Whether it needs all updates before it can update one leaf: `precompute` reads them."""
        return not self.precompute_inputs.names.isdisjoint(("updates", "params"))

    def _can_ignore(self) -> bool:
        return "grad" not in self.inputs.names and not self.sees_the_tree

    def _is_own(self, state: OptState) -> bool:
        return is_named_tuple(state) and super()._is_own(state)

    # -- init --------------------------------------------------------------------------------------

    def _init(self, params: Params) -> OptState:
        own: OptState = EmptyState()
        if self.rule.init is not None:
            leaves = Leaves.of(params)
            values = check_arrays(leaves, self.definition.name, shapes_too=True)
            check_floating(leaves, values, self.definition.name)
            own = self._first_states(leaves, values).write(leaves.treedef)
        return first_state(own, counted=self.counted)

    def _first_states(self, leaves: Leaves, values: Sequence[Any]) -> LeafStates:
        """The first state of each leaf; an absent leaf has a row of None."""
        step = Step(start())
        init = self._leaf_init(step, leaves)
        states = [None if x is None else init(i, x) for i, x in enumerate(values)]
        present = [s for s in states if s is not None]
        made = LeafStates.made(present or [jax.eval_shape(functools.partial(init, None), _DUMMY)])
        absent = (None,) * len(made.rows[0])
        # A buffer can be donated only once, so a rule that keeps step.count has a copy per leaf.
        rows = iter(
            [jax.tree.map(lambda x: jnp.copy(x) if x is step.count else x, r) for r in made.rows]
        )
        return LeafStates(made.state_class, [absent if s is None else next(rows) for s in states])

    def _leaf_init(self, step: Step, leaves: Leaves) -> Callable[[int | None, Any], Any]:
        """`init(i, param)`: the first state of leaf i, or of no leaf in particular if i is None.

        The rule is made once per dtype.
        """
        spec, traced = self._spec(self.numbers_at(step.count), EmptyState)
        name = self.definition.name

        @functools.cache
        def init_in(dtype: np.dtype) -> Any:
            return spec.rule(spec.numbers(traced, real_dtype(dtype))).init

        def init(i: int | None, param: Any) -> Any:
            dtype = compute_dtype(param.dtype)
            asks_for_leaf = i is not None and "leaf" in self.init_inputs.names
            leaf = Leaf(
                param.dtype, path_words(leaves.key_paths[i or 0]) if asks_for_leaf else None
            )
            available = {"param": cast(param, dtype), "step": step, "leaf": leaf}
            where = f"{name}: {at('' if i is None else leaves.paths[i])} ({describe(param)})"
            try:
                with values_needed(where, [param]), named(name):
                    own = self.init_inputs.call(init_in(dtype), available)
            except ValueError as error:
                if type(error) is not ValueError:
                    raise  # JAX's own errors explain themselves
                raise ValueError(f"{where}: {error}") from error
            check_uncounted(name, own, step.count)
            return jax.tree.map(drop_weak_type, own)

        return init

    # -- update ------------------------------------------------------------------------------------

    def _joins(self, before: GradientTransformation) -> bool:
        return isinstance(before, LeafTransformation) and not self.sees_the_tree

    def _run(self, stage: Stage, flat: FlatUpdates) -> tuple[FlatUpdates, list[OptState]]:
        """Run a stage of neighbouring rules on every leaf."""
        if self.sees_the_tree:
            flat = flat.widened()
        bound: list[_Bound] = []
        for link, state, selected in zip(stage.links, stage.states, stage.selections, strict=True):
            try:
                bound.append(_bind(link, state, selected, flat, stage.extra))
            except StateError as error:
                error.link = len(bound)
                raise
        if len({b.spec.definition for b in bound}) < len(bound):
            bound = _with_common_forms(bound, flat)
        values = list(flat.values)
        rows = [list(b.states.rows) for b in bound]
        of_small = _in_one_array(bound, flat)
        for i, value in enumerate(flat.values):
            active = [j for j, b in enumerate(bound) if b.selected[i]]
            if value is None or not active:
                continue
            dtype = flat.out_dtypes[i] if stage.leaving else flat.dtypes[i]
            own = [rows[j][i] for j in active]
            together = [of_small[j] for j in active] if of_small and value.size <= SMALL else None
            values[i], made = _run_leaf([bound[j] for j in active], together, own, dtype, i, flat)
            for j, row in zip(active, made, strict=True):
                rows[j][i] = row
        new = [
            b.new_state(old, own, flat.leaves.treedef)
            for b, old, own in zip(bound, stage.states, rows, strict=True)
        ]
        return flat.with_values(values), new

    def _spec(self, numbers: dict[str, Any], state_class: StateClass) -> tuple[Spec, list[Any]]:
        """The rule as static structure, and the numbers that are arrays, to be traced."""
        if state_class in self._specs:
            return self._specs[state_class]
        leaves, treedef = jax.tree.flatten(numbers)
        known = tuple(
            [
                x if isinstance(x, float) else as_exact(x) if isinstance(x, int) else None
                for x in leaves
            ]
        )
        static = tuple(self._options.items())
        spec = Spec(self.definition, self.inputs, static, treedef, known, state_class)
        made = spec, [x for x in leaves if not isinstance(x, int | float)]
        if not self._is_scheduled:
            self._specs[state_class] = made
        return made

    @functools.cached_property
    def _specs(self) -> dict[StateClass, tuple[Spec, list[Any]]]:
        """Memo of `_spec` by state class, used unless a number is scheduled."""
        return {}


_DUMMY: Any = jax.ShapeDtypeStruct((), np.float32)  # type: ignore[no-untyped-call]


class _Bound(NamedTuple):
    """A rule ready to run on leaves: what they share, and the row of each."""

    spec: Spec
    shared: Shared
    states: LeafStates
    selected: Selection
    keeps_nothing: bool

    def new_state(self, old: OptState, rows: list[Row], treedef: PyTreeDef) -> OptState:
        """The state of the tree, from the new rows of its leaves."""
        if self.keeps_nothing:
            return old
        own = LeafStates(self.states.state_class, rows).write(treedef)
        return join_count(self.shared.count, old, own)


def _bind(
    link: Link, state: OptState, selected: Selection, flat: FlatUpdates, extra: Extra
) -> _Bound:
    """Evaluate a link's hyperparameters, count, biases and `precompute` for this step."""
    tx = link.transformation
    assert isinstance(tx, LeafTransformation)
    own, old_count, count = tx.read_count(state)
    numbers = tx.numbers_at(old_count) if tx._is_scheduled else tx._numbers
    spec, traced = tx._spec(numbers, type(own))
    biases: list[jax.Array] = []
    if "step" in tx.inputs.names and spec.definition.decays:
        decays = spec.decays(spec.numbers(traced, flat.widest_real_dtype))
        known = tuple([x if isinstance(x, int | float) else None for x in decays])
        biases = _biases(known, flat.widest_real_dtype, count, decays)
    precomputed = None
    if tx.rule.precompute is not None:
        available: dict[str, Any] = {"step": Step(count)}
        if tx.sees_the_tree:
            available["updates"] = flat.tree(selected)
            available["params"] = flat.params_tree(selected)
        precompute: Any = spec.rule(spec.numbers(traced, flat.widest_real_dtype)).precompute
        with named(tx.definition.name):
            precomputed = tx.precompute_inputs.call(precompute, available)
    seen = flat.visible(tx.inputs.of(extra), link.masks) if extra else extra
    if spec.state_class is EmptyState:
        states = LeafStates(EmptyState, [()] * len(flat.values))
    else:
        states = LeafStates.read(own, flat.leaves, tx.definition.name)
    shared = Shared(traced, count, biases, precomputed, seen)
    return _Bound(spec, shared, states, selected, tx.keeps_nothing)


def _run_leaf(
    bound: Sequence[_Bound],
    together: Sequence[Shared] | None,
    rows: list[Row],
    out_dtype: np.dtype,
    i: int,
    flat: FlatUpdates,
) -> tuple[jax.Array, Sequence[Row]]:
    """The update of leaf i, in `out_dtype`, and its new row for each of these rules.

    together: what the rules share, with scalars read from one array so that XLA merges the loops of
    several leaves; used if the body works element by element. XLA fuses a body that also reduces as
    far as it can, and less of it if it is merged with those of other leaves.
    """
    specs, shared = tuple([b.spec for b in bound]), tuple([b.shared for b in bound])
    asked = frozenset().union(*[spec.inputs.names for spec in specs])
    param = flat.params[i] if asked & {"param", "leaf", "stored_dtype"} else None
    words = None
    if "leaf" in asked:
        words = tuple(opaque(path_words(flat.leaves.key_paths[i]), flat.values[i]))
    small = len(specs) <= 2 and not jax.tree.leaves(rows)
    run = update_leaf_inline if small else update_leaf
    given = flat.values[i], param, words, rows
    try:
        if together and works_element_by_element(run.trace(specs, out_dtype, shared, *given).jaxpr):
            shared = tuple(together)
        return run(specs, out_dtype, shared, *given)
    except LeafError as error:
        name, problem = error.args
        where = f"{name}: {at(flat.leaves.paths[i])}"
        raise ValueError(f"{where}: {problem}") from error.__cause__


def _in_one_array(bound: list[_Bound], flat: FlatUpdates) -> list[Shared] | None:
    """What the rules share, with its scalars in one array, if several small leaves can read it."""
    small = [x for x in flat.values if x is not None and x.size <= SMALL]
    return in_one_array([b.shared for b in bound]) if len(small) > 1 else None


def _with_common_forms(bound: list[_Bound], flat: FlatUpdates) -> list[_Bound]:
    """Make rules that differ only in factors, as those of parameter groups do, share one trace:
    their factors become arguments of the body."""
    specs: dict[Spec, set[Spec]] = {}
    for b in bound:
        specs.setdefault(b.spec.form, set()).add(b.spec)
    some = next((x for x in flat.values if x is not None), None)

    def common(b: _Bound) -> _Bound:
        arguments = b.spec.arguments_of_form(b.shared.numbers, some)
        return b._replace(spec=b.spec.form, shared=b.shared._replace(numbers=arguments))

    return [b if len(specs[b.spec.form]) == 1 else common(b) for b in bound]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _biases(
    known: tuple[float | None, ...], dtype: np.dtype, count: jax.Array, decays: list[Scalar]
) -> list[jax.Array]:
    """1 - decay^count for each decay, scalars in `dtype`; `known` holds the decays that are Python
    numbers, which stay exact. Jitted so that, eagerly, it is one dispatch."""
    pairs = zip(known, decays, strict=True)
    time = cast(count, dtype)
    return [one_minus_power(x if number is None else number, time) for number, x in pairs]
