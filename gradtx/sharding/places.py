"""Where parameters lie, as an argument of a transformation: their specs, by path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from gradtx.core.hyperparameters import ByPattern
from gradtx.core.leaves import Leaves, at, describe
from gradtx.core.value import Labelled
from gradtx.sharding.layout import AnyMesh, layout_of, misfit_of, plain, without_ones

# For each axis of a parameter, the axes of the mesh over which it is divided.
Spec = Sequence[str | Sequence[str] | None]


class Places(ByPattern):
    """Where parameters lie: given as arrays, as shapes or shardings, as specs or as a mesh, and
    kept as the specs by path of those that are divided."""

    def convert(self, where: str, value: Any) -> Labelled:
        """The specs by path."""
        if isinstance(value, Mesh | AbstractMesh):
            return Labelled((), ())
        parts = jax.tree.leaves(value)
        if all(isinstance(x, PartitionSpec | str) for x in parts):
            leaves = Leaves.of(jax.tree.map(_Held, value, is_leaf=_is_spec))
            specs = [None if x is None else x.value for x in leaves.values]
        else:
            leaves = Leaves.of(value)
            if all(isinstance(x, NamedSharding) for x in parts):
                specs = [None if x is None else x.spec for x in leaves.values]
            else:
                specs = list(layout_of(where, value, instead=_INSTEAD).specs)
        pairs = zip(leaves.paths, map(plain, specs), strict=True)
        kept: dict[str, Any] = {}
        for path, spec in sorted(pairs, key=lambda pair: pair[0]):
            if kept.setdefault(path, spec) != spec:
                raise ValueError(
                    f"{where}: {at(path)} are two parameters, of which one is divided as {spec}, "
                    f"the other as {kept[path]}: rename one, or give each an optimizer of its own"
                )
        kept = {path: spec for path, spec in kept.items() if spec}
        return Labelled(kept, kept.values())


_INSTEAD = "give their shardings, their specs or, if every device has all of them, the mesh"


@dataclass(frozen=True)
class _Held:
    """A leaf of the tree that was given."""

    value: Any


def _is_spec(x: Any) -> bool:
    if isinstance(x, PartitionSpec):
        return True
    if type(x) not in (tuple, list) or not x:
        return False
    return all(names is None or isinstance(names, str) or is_names(names) for names in x)


def is_names(x: Any) -> bool:
    """Whether it is a tuple or list of names of axes."""
    return isinstance(x, tuple | list) and all(isinstance(name, str) for name in x)


def spec_of(
    where: str, specs: Mapping[str, Spec], mesh: AnyMesh, leaves: Leaves, i: int
) -> PartitionSpec:
    """How leaf i is divided: as specs says, which must agree with the leaf where that says it."""
    x, path = leaves.values[i], leaves.paths[i]
    told = without_ones(mesh, specs.get(path, ()))
    known = _known_spec(x)
    if known is not None and without_ones(mesh, known) != told:
        raise ValueError(
            f"{where}: {at(path)}: {describe(x)} is divided as {known}, and params said "
            f"{tuple(specs.get(path, ()))}: make the optimizer of the params as they lie, "
            f"{where.rpartition('.')[2]}(tx, params)"
        )
    misfit = misfit_of(mesh, told, np.shape(x))
    if misfit:
        raise ValueError(f"{where}: {at(path)}: {describe(x)}: {misfit}")
    make: Any = PartitionSpec
    spec: PartitionSpec = make(*told)
    return spec


def _known_spec(x: Any) -> PartitionSpec | None:
    """How an array is divided, if it can be seen, which it cannot while a program is traced over
    automatic axes."""
    traced = isinstance(x, jax.core.Tracer)
    sharding: Any = jax.typeof(x).sharding if traced else getattr(x, "sharding", None)
    if traced and AxisType.Explicit not in sharding.mesh.axis_types:
        return None
    make: Any = PartitionSpec
    spec: PartitionSpec = sharding.spec if isinstance(sharding, NamedSharding) else make()
    return spec
