"""The state of PyTorch's optimizers, imported and exported.

Each optimizer declares PyTorch's names for the fields of its state in its `@recipe(...)`. Here
these fields are filled from `optimizer.state_dict()["state"]`, or written to it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.hyperparameters import StaticZero
from gradtx.core.mask import MaskLike
from gradtx.core.schedule import at
from gradtx.core.state import CountMark, OptState, Params
from gradtx.core.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
)
from gradtx.torch.definitions import definition_of
from gradtx.torch.parameters import Names, Parameter, StateDict, numbered, parameters_of
from gradtx.torch.places import count_in, fields_of, map_fields, moved_by, visited, with_counts
from gradtx.torch.tensors import TensorLike, as_numpy, as_tensor

# What PyTorch keeps for one parameter.
Entries: TypeAlias = Mapping[str, TensorLike]
# Arguments that optimizers here have besides PyTorch's.
NOT_PYTORCHS = frozenset({"ns_dtype"})


def import_state(
    tx: TransformationLike,
    state_dict: StateDict,
    params: Params,
    step: int | None = None,
    names: Names | None = None,
    transpose: MaskLike | None = None,
) -> OptState:
    """Make the state with which `tx` goes on where an optimizer of PyTorch stopped.

    It has the structure, shapes and dtypes of `tx.init(params)`, and its values if PyTorch has kept
    nothing yet. It shares no memory with the tensors.

    Args:
        tx: one of gradtx.torch's optimizers, alone, in a chain with links that keep nothing but
            counts, or in the groups of a partition.
        state_dict: what `optimizer.state_dict()` returned, with tensors or NumPy arrays.
        params: the parameters, a pytree of arrays.
        step: the number of updates made, where PyTorch does not keep it (SGD, Muon); a schedule
            goes on from there.
        names: which leaf is which of PyTorch's parameters: a dict of the leaves' paths,
            `dense/kernel`, and PyTorch's names or numbers, in either direction. PyTorch knows names
            if the optimizer was made from `model.named_parameters()`; otherwise the dict must be in
            PyTorch's order. None means that `jax.tree.leaves(params)` is.
        transpose: the leaves whose axes are (inputs, outputs), or (*window, inputs, outputs), where
            PyTorch's are (outputs, inputs, *window): a path pattern such as "kernel", or any mask.

    Raises: ValueError, with the parameter and its path, for an entry that is missing, has another
    shape, or has no place in tx; TypeError for a tx whose state has no counterpart in PyTorch.

    Example:
        >>> tx = gradtx.torch.sgd(0.1, momentum=0.9)
        >>> params = {"w": jnp.ones((2, 3)), "b": jnp.zeros(2)}
        >>> saved = {  # as optimizer.state_dict() has it, of the parameters b and w
        ...     "state": {
        ...         0: {"momentum_buffer": np.ones(2)},
        ...         1: {"momentum_buffer": np.ones((2, 3))},
        ...     },
        ...     "param_groups": [{"lr": 0.1, "momentum": 0.9, "params": [0, 1]}],
        ... }
        >>> state = gradtx.torch.import_state(tx, saved, params)
        >>> state[0].trace["b"]
        Array([1., 1.], dtype=float32)

    See also: `from_state_dict`, which makes tx too; `export_state`.
    """
    return imported(tx, state_dict, params, step, names, transpose, "import_state")


def imported(
    tx: TransformationLike,
    state_dict: StateDict,
    params: Params,
    step: int | None,
    names: Names | None,
    transpose: MaskLike | None,
    where: str,
) -> OptState:
    """`import_state`. where: the function that errors name."""
    check_state_dict(state_dict, where)
    tx = as_transformation(tx, where)
    first = tx.init(params)
    kept = {int(number): _present(own) for number, own in state_dict["state"].items()}
    if not any(kept.values()) and not step:
        return first
    members = parameters_of(params, transpose, where)
    moved = moved_by(tx, first, members, params, where)
    if any(kept.values()):
        moved = numbered(moved, state_dict, names, where)
    surplus = sorted(set(kept) - {member.number for member in moved})
    if surplus:
        raise ValueError(f"{where}: the state of PyTorch's parameter {surplus[0]} is of no leaf")

    def fill(optimizer: GradientTransformation, state: OptState, own: list[Parameter]) -> OptState:
        entries = [(member, kept.get(member.number, {})) for member in own]
        return _Filling(optimizer, entries, step, where).of(state)

    def count(state: OptState) -> OptState:
        recorded = [_step_in(own) for own in kept.values()]
        known = [x for x in (step, *recorded) if x is not None]
        if not known:
            raise _unknown_step(where)
        return with_counts(state, known[0])

    return _like(first, visited(tx, first, moved, params, fill, count, where))


def export_state(
    tx: TransformationLike,
    state: OptState,
    params: Params,
    step: int | None = None,
    names: Names | None = None,
    transpose: MaskLike | None = None,
) -> dict[str, Any]:
    """Make what `optimizer.load_state_dict` takes, to go on in PyTorch: `import_state` backwards.

    There is a group for each of tx's optimizers, with its arguments, and schedules evaluated at
    this step. The values are tensors, or NumPy arrays where PyTorch is not installed.

    Args:
        tx: one of gradtx.torch's optimizers, alone or as in `import_state`.
        state: its state.
        params: the parameters, a pytree of arrays.
        step: the number of updates made, where the state has no count because nothing depends on
            it; None means 0.
        names: which leaf is which of PyTorch's parameters, as in `import_state`.
        transpose: the leaves whose axes are in another order in PyTorch, as in `import_state`.

    Raises: TypeError for a tx whose state has no counterpart in PyTorch.

    Example:
        >>> tx = gradtx.torch.rmsprop(alpha=0.5)
        >>> params = jnp.zeros(2)
        >>> _, state = tx.update(jnp.array([2.0, 4.0]), tx.init(params), params)
        >>> saved = gradtx.torch.export_state(tx, state, params, step=1)
        >>> print(np.asarray(saved["state"][0]["square_avg"]), saved["param_groups"][0]["lr"])
        [2. 8.] 0.01

    See also: `import_state`.
    """
    where = "export_state"
    tx = as_transformation(tx, where)
    members = parameters_of(params, transpose, where)
    moved = moved_by(tx, state, members, params, where)
    moved = numbered(moved, {"state": dict.fromkeys(range(len(moved)))}, names, where)
    kept: dict[int, dict[str, TensorLike]] = {}
    groups: list[dict[str, Any]] = []

    def read(optimizer: GradientTransformation, own: OptState, mine: list[Parameter]) -> OptState:
        counted = count_in(own)
        now = (step or 0) if counted is None else counted
        arguments = {
            name: _plain(at(x, now))
            for name, x in optimizer.arguments.items()
            if name not in NOT_PYTORCHS
        }
        numbers = [member.number for member in mine]
        groups.append({**arguments, **definition_of(optimizer).fixed, "params": numbers})
        # An optimizer that does not count its steps knows its first one by the lack of a state.
        if counted != 0 or "step" in definition_of(optimizer).entries:
            entries = _entries(optimizer, own, mine, {**arguments, "step": now})
            kept.update((n, own) for n, own in entries.items() if own)
        return own

    visited(tx, state, moved, params, read, lambda own: own, where)
    return {"state": dict(sorted(kept.items())), "param_groups": groups}


def check_state_dict(state_dict: StateDict, where: str) -> None:
    """Refuse what is not the state_dict of an optimizer."""
    if not isinstance(state_dict, Mapping) or not isinstance(state_dict.get("state"), Mapping):
        given = type(state_dict).__name__
        if isinstance(state_dict, Mapping):
            given = f"a dict of {', '.join(map(str, list(state_dict)[:8])) or 'nothing'}"
        raise TypeError(
            f"{where}: expected what optimizer.state_dict() returns, a dict of state and "
            f"param_groups, got {given}"
        )


# -- import ----------------------------------------------------------------------------------------


class _Filling:
    """Fills the state of one optimizer with what PyTorch kept for its parameters."""

    def __init__(
        self,
        optimizer: GradientTransformation,
        own: list[tuple[Parameter, Entries]],
        step: int | None,
        where: str,
    ):
        self.optimizer, self.own, self.step = optimizer, own, step
        self.where = f"{where}: {optimizer.definition.name}"

    def of(self, state: OptState) -> OptState:
        """The state, filled."""
        if not any(kept for _, kept in self.own):
            return with_counts(state, self.step or 0)
        fields = fields_of(state)
        entries = definition_of(self.optimizer).entries
        expected = {
            entry: field
            for entry, field in entries.items()
            if callable(field) or field == "count" or field in fields
        }
        self._check_surplus(expected)
        by_field = {field: entry for entry, field in expected.items()}
        count = self._count(state)

        def field(name: str, x: Any, mark: CountMark | None) -> Any:
            if mark is not None:
                return np.int32(count + mark.first)
            return self._field(by_field[name], x)

        return map_fields(field, state)

    def _field(self, entry: str, x: Any) -> Any:
        """One field: a tree like the params, or one array for all of them."""
        leaves, treedef = jax.tree.flatten(x)
        shared = len(leaves) != len(self.own)
        shapes = [leaf.shape for leaf in leaves] * (len(self.own) if shared else 1)
        pairs = zip(self.own, shapes, strict=True)
        values = [self._value(entry, *own, shape) for own, shape in pairs]
        return jax.tree.unflatten(treedef, [self._common(entry, values)] if shared else values)

    def _value(
        self, entry: str, member: Parameter, kept: Entries, shape: tuple[int, ...]
    ) -> np.ndarray:
        if 0 in shape:
            return np.zeros(shape)
        if entry not in kept:
            raise ValueError(
                f"{self.where}: {member} has no {entry}, but {', '.join(kept) or 'nothing'}: the "
                "optimizer there was another, or had other arguments"
            )
        x = as_numpy(kept[entry])
        if shape == member.shape:
            x = member.here(x)
        elif member.transposed and x.ndim > 1:
            raise ValueError(f"{self.where}: {member}: {entry} cannot be transposed")
        if x.shape != shape:
            raise ValueError(
                f"{self.where}: {member}: {entry} has the shape {tuple(np.shape(kept[entry]))}"
                f"{' (transposed)' if member.transposed else ''}, expected {shape}. Is the order "
                "of the parameters another (names), or that of the axes (transpose)?"
            )
        return x

    def _count(self, state: OptState) -> int:
        """The number of updates made, according to PyTorch or the user."""
        if count_in(state) is None:
            return 0
        if "step" in definition_of(self.optimizer).entries:
            count = int(self._common("step", [self._value("step", *own, ()) for own in self.own]))
            if self.step not in (None, count):
                raise ValueError(f"{self.where}: PyTorch made {count} updates, step={self.step}")
            return count
        if self.step is None and _is_scheduled(self.optimizer):
            raise _unknown_step(self.where)
        return 1 if self.step is None else self.step  # it only says that the first is over

    def _common(self, entry: str, values: list[np.ndarray]) -> np.ndarray:
        """The one value that an entry has for all parameters."""
        for (member, _), x in zip(self.own, values, strict=True):
            if x != values[0]:
                raise ValueError(
                    f"{self.where}: {self.own[0][0]} has {entry} {values[0]}, {member} has {x}; "
                    "here all have one. Parameters whose gradients began later need an optimizer "
                    "of their own, in a partition"
                )
        return values[0]

    def _check_surplus(self, expected: Mapping[str, Any]) -> None:
        for member, kept in self.own:
            surplus = [entry for entry in kept if entry not in expected]
            if surplus:
                raise ValueError(
                    f"{self.where}: {member} has {surplus[0]}, for which {self.optimizer} has no "
                    "place: the optimizer there was another, or had other arguments"
                )


def _present(own: Entries | None) -> Entries:
    """The entries that there are: PyTorch writes None for some that it does not need."""
    return {name: x for name, x in (own or {}).items() if x is not None}


def _step_in(kept: Entries) -> int | None:
    return int(as_numpy(kept["step"])) if "step" in kept else None


def _unknown_step(where: str) -> ValueError:
    return ValueError(
        f"{where}: PyTorch's optimizer does not count its steps, and a schedule here needs the "
        "count: give step, the number of updates made"
    )


def _is_scheduled(optimizer: GradientTransformation) -> bool:
    links = (link.transformation for link in optimizer._links)
    return any(getattr(tx, "_is_scheduled", False) for tx in links)


def _like(first: OptState, state: OptState) -> OptState:
    """The state in the dtypes, and on the devices, of the first one; each array in a buffer of its
    own."""

    def placed(old: Any, new: Any) -> jax.Array:
        if np.iscomplexobj(new) and not np.iscomplexobj(old):
            raise TypeError(f"a complex array cannot be kept as {old.dtype}")
        array = np.array(new).astype(old.dtype)
        if isinstance(old, jax.Array) and old.committed:
            return jax.device_put(array, old.sharding)
        return jnp.array(array)

    return jax.tree.map(placed, first, state)


# -- export ----------------------------------------------------------------------------------------


def _entries(
    optimizer: GradientTransformation,
    state: OptState,
    members: list[Parameter],
    known: Mapping[str, Any],
) -> dict[int, dict[str, TensorLike]]:
    """What PyTorch would have kept for each parameter, by its number."""
    fields = {name: jax.tree.leaves(x) for name, x in fields_of(state).items()}
    made: dict[int, dict[str, TensorLike]] = {member.number: {} for member in members}
    for entry, field in definition_of(optimizer).entries.items():
        for i, member in enumerate(members):
            if callable(field):
                value = np.asarray(_call(field, known))
            elif field == "count":
                value = np.asarray(known["step"], np.float32)
            elif field in fields:
                leaves = fields[field]
                value = np.asarray(leaves[i] if len(leaves) == len(members) else leaves[0])
            else:
                continue
            if value.size or 0 in member.shape:
                turned = member.there(value) if value.shape == member.shape else value
                made[member.number][entry] = as_tensor(turned)
    return made


def _call(function: Callable[..., float], known: Mapping[str, Any]) -> float:
    """Call the function with those arguments that it names."""
    return function(**{name: known[name] for name in inspect.signature(function).parameters})


def _plain(argument: Any) -> Any:
    """An argument as plain Python numbers."""

    def number(x: Any) -> Any:
        return x if isinstance(x, bool | int | str) else float(x)

    return jax.tree.map(number, argument, is_leaf=lambda x: isinstance(x, StaticZero))
