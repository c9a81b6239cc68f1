"""What a transformation consists of, in words and formulas."""

from __future__ import annotations

import textwrap
from typing import Any

import jax

from gradtx.combinators.chain import Chain, NamedChain
from gradtx.combinators.masked import Masked
from gradtx.combinators.partition import Partition
from gradtx.core.documentation import summary
from gradtx.core.printing import code, show
from gradtx.core.recipe import Recipe
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import thaw
from gradtx.inspection.state_size import state_bytes_per_parameter

__all__ = ["describe"]

# These have no formula of their own: their parts say what they do.
_STRUCTURE = (Chain, Masked, Partition)


def describe(tx: GradientTransformation) -> str:
    """Describe a transformation part by part: what each does, its hyperparameters and its state.

    The words and formulas are from the docstrings of the parts. Parts of a `partition` are printed
    with their group, those of a `named_chain` with their name. The size of the state is given in
    bytes a parameter, for large float32 arrays, and as a multiple of the parameters' own size. If
    several lines, such as those of groups, apply to a leaf, their sizes add up.

    Args:
        tx: a gradtx transformation; recipes and chains are taken apart.

    Returns: the description, a string of many lines.

    Example:
        >>> text = gradtx.inspection.describe(gradtx.sgd(0.1, momentum=0.9))
        >>> [line for line in text.splitlines() if line[:1].isdigit()]
        ['1. trace', '2. scale_by_learning_rate']

    See also: `state_bytes_per_parameter`.
    """
    return "\n".join(_lines(tx, number="", label=""))


def _lines(tx: GradientTransformation, number: str, label: str) -> list[str]:
    lines = [" ".join(filter(None, (number, tx.definition.name, label)))]
    body = [*_formula(tx), *_hyperparameters(tx), *_state(tx)]
    lines += [f"    {line}".rstrip() for line in body]
    for i, (part, its) in enumerate(zip(tx.parts, _labels(tx), strict=True), start=1):
        lines += ["", *_lines(part, f"{number}{i}.", its)]
    return lines


def _labels(tx: GradientTransformation) -> list[str]:
    """What tells the parts apart besides their numbers: their groups, or their names."""
    match tx:
        case Recipe():
            return _labels(tx.body)
        case Partition():
            return [f"(group {show(label)})" for label in tx.transforms]
        case NamedChain():
            return [f"({show(name)})" for name in tx.names]
        case _:
            return [""] * len(tx.parts)


def _formula(tx: GradientTransformation) -> list[str]:
    said = "" if isinstance(tx, _STRUCTURE) else summary(tx.definition)
    return [*said.splitlines(), ""] if said else []


def _hyperparameters(tx: GradientTransformation) -> list[str]:
    own = {n: x for n, x in tx.arguments.items() if not _holds_transformations(x)}
    if not own:
        return []
    shown = "with " + ", ".join(f"{name}={code(thaw(x))}" for name, x in own.items())
    return [*textwrap.wrap(shown, 92, subsequent_indent="     "), ""]


def _holds_transformations(x: Any) -> bool:
    leaves = jax.tree.leaves(x, is_leaf=lambda y: isinstance(y, GradientTransformation))
    return any(isinstance(y, GradientTransformation) for y in leaves)


def _state(tx: GradientTransformation) -> list[str]:
    try:
        sizes = state_bytes_per_parameter(tx)
    except Exception:
        return ["state: as jax.eval_shape(tx.init, params) says, since it depends on the tree"]
    lines = [
        f"{size:g} bytes a parameter{place and ' '}{place}, {size / 4:.3g}x the parameters' own "
        "size in float32"
        for place, size in sizes.items()
    ]
    first, *others = lines or ["none that grows with the parameters"]
    return [f"state: {first}", *(f"       {line}" for line in others)]
