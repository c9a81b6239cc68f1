"""How much state a transformation keeps per parameter, for large arrays of any kind.

A transformation may treat kinds of arrays differently, as Adafactor does, or groups of leaves, as
`partition` does. So the answer is a table: a leaf's state is the sum of the lines that apply to it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterator
from typing import Any

import jax
import numpy as np

from gradtx.combinators.masked import Masked
from gradtx.combinators.partition import Partition
from gradtx.combinators.stateless import identity
from gradtx.core.mask import Mask
from gradtx.core.printing import show
from gradtx.core.recipe import Recipe
from gradtx.core.ruled import Ruled
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import thaw

__all__ = ["state_bytes_per_parameter"]

KINDS = {"a matrix": (1024, 1024), "a convolution kernel": (4, 4, 256, 256), "a vector": (2**20,)}
Names = tuple[str, ...]


def state_bytes_per_parameter(tx: GradientTransformation) -> dict[str, float]:
    """Count the bytes of state per parameter of large float32 arrays by place, without scalars.

        {"": 8.0}                                                   adamw
        {"in group 'muon'": 4.0, "in group 'adam'": 8.0}            muon
        {"of a matrix": 0.0078125, ..., "of a vector": 4.0}         adafactor

    The state of all leaves is listed under "", and what a mask or a group adds under its name;
    parts without state are left out. The bytes of a leaf are the sum of the lines that apply to
    it. For the state of given parameters, use `jax.eval_shape(tx.init, params)`.

    Args:
        tx: a gradtx transformation. Nothing is allocated: its init is only traced.

    Returns: a dict from places to bytes per parameter.

    Raises: what `init` raises if it refuses every kind of array, as one does that needs the
    values of the parameters.

    Example:
        >>> gradtx.inspection.state_bytes_per_parameter(gradtx.adamw(1e-3))
        {'': 8.0}
        >>> groups = {"bias": gradtx.sgd(0.1, momentum=0.9), ".*": gradtx.adam(1e-3)}
        >>> gradtx.inspection.state_bytes_per_parameter(gradtx.partition(groups))
        {"in group 'bias'": 4.0, "in group '.*'": 8.0}

    See also: `describe`, `store`.
    """
    table: dict[str, float] = {}
    for (masks, inner), parts in _parts(tx).items():
        place = ", ".join((*map(_name, reversed(masks)), *inner))
        for kinds, size in _by_kind(parts).items():
            where = " ".join(filter(None, (kinds, place)))
            names = itertools.chain([where], (f"{where} ({i})" for i in itertools.count(2)))
            if size:  # different masks may print alike, and are then numbered
                table[next(name for name in names if name not in table)] = size
    return table


def _parts(
    tx: GradientTransformation,
) -> dict[tuple[tuple[Mask, ...], Names], list[GradientTransformation]]:
    """The parts that keep state, by the masks above their link and the groups inside it."""
    found: dict[tuple[tuple[Mask, ...], Names], list[GradientTransformation]] = {}
    for link in tx._links:
        for inner, part in _by_group(link.transformation):
            if not (isinstance(part, Ruled) and part.keeps_nothing):
                found.setdefault((link.masks, inner), []).append(part)
    return found


def _by_group(tx: GradientTransformation) -> Iterator[tuple[Names, GradientTransformation]]:
    """The transformation as each group of leaves sees it, without masks and groups inside it."""
    match tx:
        case Recipe():
            yield from _by_group(tx.body)
        case Partition() | Masked():
            for name, part in _groups(tx):
                yield from ((name + names, seen) for names, seen in _by_group(part))
        case _:
            arguments, treedef = jax.tree.flatten(tx, lambda x: x is not tx and _is_inner(x))
            choices = (_by_group(x) if _is_inner(x) else [((), x)] for x in arguments)
            for chosen in itertools.product(*choices):
                names: Names = sum((own for own, _ in chosen), ())
                yield names, jax.tree.unflatten(treedef, [part for _, part in chosen])


def _groups(tx: Partition | Masked) -> Iterator[tuple[Names, GradientTransformation]]:
    if isinstance(tx, Partition):
        for link_group, part in zip(tx.transforms, tx.parts, strict=True):
            yield (_group(link_group),), part
    else:
        yield (_name(tx._mask),), tx.inner
        yield (f"not {_name(tx._mask)}",), identity()


def _is_inner(x: object) -> bool:
    return isinstance(x, GradientTransformation)


def _group(label: Hashable) -> str:
    return f"in group {show(label)}"


def _name(mask: Mask) -> str:
    """A mask in words, but not a tree of booleans, which would be long."""
    if hasattr(mask, "label"):
        return _group(mask.label)
    given = thaw(mask.given)
    return f"under the mask {show(given)}" if isinstance(given, str) else "under the mask"


def _by_kind(parts: list[GradientTransformation]) -> dict[str, float]:
    """Bytes per parameter by kind of array; kinds of equal size share a line, "" if all do."""
    sizes: dict[str, float] = {}
    refusal: Exception | None = None
    for kind, shape in KINDS.items():
        try:
            sizes[kind] = float(f"{sum(_bytes(part, shape) for part in parts):.4g}")
        except Exception as error:  # a rule of matrices, for example, refuses a vector
            refusal = error
    if not sizes and refusal is not None:
        raise refusal
    if len(set(sizes.values())) == 1 and len(sizes) == len(KINDS):
        return {"": next(iter(sizes.values()))}
    alike: dict[float, list[str]] = {}
    for kind, size in sizes.items():
        alike.setdefault(size, []).append(kind)
    return {f"of {' or '.join(kinds)}": size for size, kinds in alike.items()}


def _bytes(tx: GradientTransformation, shape: tuple[int, ...]) -> float:
    param: Any = jax.ShapeDtypeStruct(shape, np.float32)  # type: ignore[no-untyped-call]
    arrays = [x for x in jax.tree.leaves(jax.eval_shape(tx.init, param)) if x.ndim > 0]
    return float(sum(x.size * x.dtype.itemsize for x in arrays)) / math.prod(shape)
