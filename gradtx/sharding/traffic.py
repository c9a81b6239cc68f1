"""What the devices of a mesh exchange in a compiled program, read from its text: exact, without
noise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from gradtx.core.printing import a_or_an

__all__ = ["Collective", "collectives"]

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)

_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*?)([a-z][a-z\-]*)\((.*)$", re.M)
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_NAME = re.compile(r"%([\w.\-]+)")


class Collective(NamedTuple):
    """One exchange. kind: such as "all-gather". bytes: those of its operands or of its results on
    each device, whichever are more: an all-gather counts what it gathers, a reduce-scatter what it
    reduces, and padding does not count.
    """

    kind: str
    bytes: int


def collectives(hlo: str) -> list[Collective]:
    """The collectives of an optimized program, counting those in a loop's body or a conditional's
    branches once.

    Args:
        hlo: its text, from `jax.jit(f).lower(x).compile().as_text()`.

    Returns: one `Collective` for each, in the order of the text.

    Raises: TypeError for anything but a text; ValueError for that of a program that is not compiled
    yet, which has no collectives.

    Example:
        >>> mesh = jax.make_mesh((1,), ("data",))
        >>> whole = jax.jit(jnp.sum).lower(jnp.ones(4)).compile()
        >>> gradtx.sharding.collectives(whole.as_text())
        []
    """
    if not isinstance(hlo, str):
        raise TypeError(
            f"collectives: hlo must be the text of a compiled program, compiled.as_text(), got "
            f"{a_or_an(type(hlo).__name__)}"
        )
    if re.search(r"^\s*module @", hlo, re.M):
        raise ValueError(
            "collectives: hlo is the text of a program that is only lowered: compile it, "
            "lowered.compile().as_text()"
        )
    sizes: dict[str, int] = {}  # of the result of each instruction
    started: list[tuple[str, str, list[str]]] = []
    for name, shape, opcode, rest in _INSTRUCTION.findall(hlo):
        operands = _NAME.findall(rest.partition(")")[0])
        sizes[name] = _bytes(shape)
        if opcode.removesuffix("-start") in KINDS:
            started.append((name, opcode, operands))
        elif opcode.removesuffix("-done") in KINDS:
            sizes[operands[0]] = sizes[name]  # a start's own result names its operands again
    return [
        Collective(
            opcode.removesuffix("-start"),
            max(sizes[name], sum(sizes.get(operand, 0) for operand in operands)),
        )
        for name, opcode, operands in started
    ]


def by_kind(found: Iterable[Collective]) -> dict[str, tuple[int, int]]:
    """How many collectives there are of each kind, and their bytes together."""
    made: dict[str, tuple[int, int]] = {}
    for kind, size in found:
        number, total = made.get(kind, (0, 0))
        made[kind] = (number + 1, total + size)
    return dict(sorted(made.items(), key=lambda item: -item[1][1]))


def _bytes(shape: str) -> int:
    """The bytes of a shape as HLO writes it, `(f32[2,3]{1,0}, s4[8])`."""
    bits = sum(
        _bits(kind) * math.prod(int(n) for n in lengths.split(",") if n)
        for kind, lengths in _ARRAY.findall(shape)
    )
    return -(-bits // 8)


def _bits(kind: str) -> int:
    """The bits of an element, which the name of its type gives: bf16, s4, f8e4m3fn."""
    width = re.search(r"\d+", kind)
    return int(width[0]) if width else 8 if kind == "pred" else 0
