"""Which of PyTorch's parameters each leaf is, and how its axes are ordered there.

`optimizer.state_dict()` numbers the parameters in the order in which the optimizer was given them;
if it was given names too, they are in the groups under `param_names`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from gradtx.core.leaves import Leaves, at, paths
from gradtx.core.mask import Mask, MaskLike
from gradtx.core.state import Params

# Leaves' paths, `dense/kernel`, and PyTorch's names or numbers for them, in either direction; or a
# tree of those like the params.
Names: TypeAlias = Mapping[Any, Any]
# What `optimizer.state_dict()` returns.
StateDict: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Parameter:
    """One leaf: its path and shape, its number in PyTorch, and whether its axes are in another
    order there, outputs first."""

    path: str
    shape: tuple[int, ...]
    transposed: bool
    number: int = -1

    def __str__(self) -> str:
        return f"parameter {self.number} ({at(self.path)})"

    def here(self, x: np.ndarray) -> np.ndarray:
        """An array with PyTorch's axes, (outputs, inputs, *window), rearranged to those of the
        leaf, (*window, inputs, outputs)."""
        return x.transpose(*range(2, x.ndim), 1, 0) if self._turns(x) else x

    def there(self, x: np.ndarray) -> np.ndarray:
        """The inverse of `here`."""
        last = x.ndim - 1
        return x.transpose(last, last - 1, *range(last - 1)) if self._turns(x) else x

    def _turns(self, x: np.ndarray) -> bool:
        return self.transposed and x.ndim >= 2


def parameters_of(params: Params, transpose: MaskLike | None, where: str) -> list[Parameter]:
    """The leaves of the params, without their numbers."""
    leaves = Leaves.of(params)
    turned = [False] * len(leaves.values)
    if transpose is not None:
        turned = Mask(transpose).select(leaves, f"{where}: transpose")
    return [
        Parameter(path, np.shape(x), own)
        for x, path, own in zip(leaves.values, leaves.paths, turned, strict=True)
        if x is not None
    ]


def numbers_in(state_dict: StateDict) -> list[int]:
    """The numbers of all parameters, in PyTorch's order."""
    groups = state_dict.get("param_groups")
    if groups:
        return [int(number) for group in groups for number in group["params"]]
    return sorted(int(number) for number in state_dict["state"])


def numbered(
    leaves: Sequence[Parameter], state_dict: StateDict, names: Names | None, where: str
) -> list[Parameter]:
    """The leaves with their numbers: in order, or by name."""
    order = numbers_in(state_dict)
    if names is not None:
        found = _by_name(leaves, order, _names_in(state_dict), names, where)
        return [replace(leaf, number=found[leaf.path]) for leaf in leaves]
    if len(order) != len(leaves):
        raise ValueError(
            f"{where}: PyTorch has {len(order)} parameters, the optimizer here {len(leaves)}: "
            f"{_listed([leaf.path for leaf in leaves])}. Leave frozen ones out on both sides (None "
            "here), or say by names which is which"
        )
    return [replace(leaf, number=n) for leaf, n in zip(leaves, order, strict=True)]


def _names_in(state_dict: StateDict) -> list[str]:
    """PyTorch's names of the parameters in its order, if the optimizer was given them."""
    groups = state_dict.get("param_groups") or []
    return [str(name) for group in groups for name in group.get("param_names") or []]


def _by_name(
    leaves: Sequence[Parameter],
    order: list[int],
    known: list[str],
    names: Names,
    where: str,
) -> dict[str, int]:
    """The number of each leaf by its path."""
    mine = {leaf.path for leaf in leaves}
    pairs = _pairs(names)
    if mine.isdisjoint(path for path, _ in pairs) and any(x in mine for _, x in pairs):
        pairs = [(path, key) for key, path in pairs]
    unknown = [path for path, _ in pairs if path not in mine]
    missing = sorted(mine - {path for path, _ in pairs})
    if unknown or missing:
        problem = f"{unknown[0]!r} is no leaf" if unknown else f"nothing for {missing[0]!r}"
        raise ValueError(
            f"{where}: names has {problem}; the leaves are {_listed(sorted(mine))}. It is a dict "
            "of the leaves' paths and PyTorch's names or numbers"
        )
    theirs = known or [str(key) for _, key in pairs]

    def number(key: Any) -> int:
        if isinstance(key, int | np.integer) and int(key) in order:
            return int(key)
        if key in theirs and theirs.index(key) < len(order):
            return order[theirs.index(key)]
        raise ValueError(
            f"{where}: names has {key!r}, which is none of PyTorch's: {_listed(known or order)}"
        )

    found = {path: number(key) for path, key in pairs}
    left = [n for n in order if n not in found.values()]
    if left or len(set(found.values())) < len(found):
        raise ValueError(
            f"{where}: names must give each of PyTorch's {len(order)} parameters one leaf, got "
            f"{found}"
        )
    return found


def _pairs(names: Names) -> list[tuple[str, Any]]:
    """Paths and names in the order in which they are given; for a tree, in that of its leaves."""
    if all(isinstance(x, str | int | np.integer) for x in names.values()):
        return [(key, x) for key, x in names.items()]
    return list(zip(paths(names), Leaves.of(names).values, strict=True))


def _listed(items: Sequence[Any]) -> str:
    return ", ".join(map(str, items[:8])) + (", ..." if len(items) > 8 else "")
