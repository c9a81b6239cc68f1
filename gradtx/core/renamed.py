"""The names of the last release that rules may still use. They work for one more release."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from gradtx.core.place import Place

# The inputs that a rule may ask for by old names, made from the inputs under the new ones.
INPUTS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "gathered": lambda given: given["precomputed"],
    "stored_dtype": lambda given: given["leaf"].dtype,
    "stored_params": lambda given: given["stored_params"],
}
_NEW_INPUTS = {
    "gathered": "precomputed",
    "stored_dtype": "leaf, whose dtype it is",
    "stored_params": "the argument that is a transformation, and take its params",
}


def warn_of_input(where: str, name: str) -> None:
    """Warn that a rule asks for an input by an old name, and say what to ask for instead."""
    warnings.warn(
        f"{where} asks for {name!r}: ask for {_NEW_INPUTS[name]}", DeprecationWarning, stacklevel=2
    )


def rule_fields(
    old: Mapping[str, Any], precompute: Callable[..., Any] | None, place: Place
) -> tuple[Callable[..., Any] | None, Place]:
    """`precompute` and `place` of a `Rule` that was constructed with old names of fields."""
    for name, value in old.items():
        match name:
            case "gather":
                precompute, new = value, "precompute=..."
            case "unrounded":
                place, new = place | Place.LAST if value else place, "place=Place.LAST"
            case "per_example":
                place, new = place | Place.FIRST if value else place, "place=Place.FIRST"
            case "batched":
                new = "a rule of trees that stacks arrays of equal shape"
            case _:
                raise TypeError(f"Rule has no argument {name!r}")
        warnings.warn(f"Rule: in place of {name}= write {new}", DeprecationWarning, stacklevel=4)
    return precompute, place
