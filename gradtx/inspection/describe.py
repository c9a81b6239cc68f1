"""What a transformation is made of, in words and formulas."""

from __future__ import annotations

import inspect
import textwrap
from typing import Any

import jax
import numpy as np

from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import show, thaw

_SIDE = 1024


def describe(tx: GradientTransformation) -> str:
    """The parts of a transformation, each with its formula, its hyperparameters and its state.

    The formulas are the docstrings of the parts. The size of the state is given in bytes a
    parameter, as for a large float32 matrix, and compared with the parameters themselves.
    """
    return "\n".join(_lines(tx, number=""))


def state_bytes_per_parameter(tx: GradientTransformation) -> float:
    """Bytes of state for each parameter of a 1024 x 1024 float32 matrix (scalars left out)."""
    param: Any = jax.ShapeDtypeStruct((_SIDE, _SIDE), np.float32)  # type: ignore[no-untyped-call]
    # Link by link, because a mask would have to fit a tree that is not known here.
    states = [jax.eval_shape(link.transformation.init, param) for link in tx._links()]
    arrays = [x for x in jax.tree.leaves(states) if x.ndim > 0]
    return float(sum(x.size * x.dtype.itemsize for x in arrays)) / _SIDE**2


def _lines(tx: GradientTransformation, number: str) -> list[str]:
    title = tx.definition.name
    lines = [f"{number} {title}".strip()]
    body = [*_formula(tx), *_hyperparameters(tx), f"state: {_state(tx)}"]
    lines += [f"    {line}".rstrip() for line in body]
    for i, part in enumerate(tx.parts, start=1):
        lines += ["", *_lines(part, f"{number}{i}.")]
    return lines


def _formula(tx: GradientTransformation) -> list[str]:
    doc = tx.definition.__doc__
    return [*inspect.cleandoc(doc).splitlines(), ""] if doc else []


def _hyperparameters(tx: GradientTransformation) -> list[str]:
    own = {n: x for n, x in tx.arguments.items() if not _holds_transformations(x)}
    if not own:
        return []
    shown = "with " + ", ".join(f"{name}={show(thaw(x))}" for name, x in own.items())
    return [*textwrap.wrap(shown, 92, subsequent_indent="     "), ""]


def _holds_transformations(x: Any) -> bool:
    leaves = jax.tree.leaves(x, is_leaf=lambda y: isinstance(y, GradientTransformation))
    return any(isinstance(y, GradientTransformation) for y in leaves)


def _state(tx: GradientTransformation) -> str:
    size = state_bytes_per_parameter(tx)
    if size == 0:
        return "nothing a parameter"
    return f"{size:g} bytes a parameter, {size / 4:g} times the float32 parameters"
