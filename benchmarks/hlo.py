"""What the text of an optimized program says that it runs: exact, without noise."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

# What costs no launch: names, views and values that exist already.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("opt-barrier", "partition-id", "replica-id"),
}
# What runs other computations, instruction by instruction, and the attributes that name them.
_COMPOSITE = {
    "call": ("to_apply",),
    "conditional": ("branch_computations", "true_computation", "false_computation"),
    "while": ("condition", "body"),
    "async-start": ("calls",),
    "call-start": ("to_apply",),
}
_ENDS = {"async-done", "async-update", "call-done"}  # of a composite, which counts where it starts
_COLLECTIVES = {
    *("all-gather", "all-reduce", "all-to-all", "ragged-all-to-all"),
    *("reduce-scatter", "collective-permute", "collective-broadcast"),
}
_PALLAS = 'custom_call_target="tpu_custom_call"'
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?)([a-z][a-z\-]*)\((.*)$")
_ATTRIBUTE = re.compile(r", (\w+)=(?:\{([^}]*)\}|%?([\w.\-]+))")
_NAME = re.compile(r"%([\w.\-]+)")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")


class Instruction(NamedTuple):
    """One line of a computation. size: the bytes of its result. opaque: whether it is a kernel of
    which XLA itself knows no costs."""

    opcode: str
    size: float
    operands: frozenset[str]
    called: tuple[str, ...]
    opaque: bool


Computation = dict[str, Instruction]


@dataclass
class Tally:
    """What a program runs: kernels, the bytes that they read and write, and its collectives.

    Kernels are the fusions, custom calls, copies and other instructions of the entry computation
    and of those that it calls, each a loop on CPU and a kernel on GPU: every branch of a
    conditional, and a loop's body once. What a library call launches inside does not count. Bytes
    are those of each kernel's operands and results, whole. opaque: those of them that XLA's own
    count leaves out.
    """

    kernels: int = 0
    bytes: float = 0.0
    opaque: float = 0.0
    collectives: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Run the other too."""
        self.kernels += other.kernels
        self.bytes += other.bytes
        self.opaque += other.opaque
        self.collectives += other.collectives


def tally(hlo: str) -> Tally:
    """Count what an optimized program runs."""
    computations, entry = _computations(hlo)
    found: dict[str, Tally] = {}

    def of(name: str) -> Tally:
        if name not in found:
            found[name] = total = Tally()
            body = computations.get(name, {})
            for instruction in body.values():
                for called in instruction.called:
                    total.add(of(called))
                total.add(_own(instruction, body))
        return found[name]

    return of(entry)


def _own(instruction: Instruction, body: Computation) -> Tally:
    """What one instruction adds. A pair of start and done reads at the start and writes at the
    end: the result of the start names its operands again."""
    opcode = instruction.opcode
    if opcode in _FREE or opcode in _COMPOSITE or opcode in _ENDS:
        return Tally()
    if opcode.endswith("-done"):
        return Tally(bytes=instruction.size)
    read = sum(body[name].size for name in instruction.operands if name in body)
    started = opcode.removesuffix("-start")
    collectives = Counter({started: 1} if started in _COLLECTIVES else {})
    size = read + (0 if started != opcode else instruction.size)
    return Tally(1, size, size if instruction.opaque else 0, collectives)


def count_texts(hlo: str) -> int:
    """How many different fused loops an optimized program has: XLA compiles loops that differ only
    in names once."""
    plain = re.sub(r", metadata=\{[^}]*\}", "", hlo)
    bodies = re.findall(r"^%(?:fused|wrapped)\S* \([^\n]*\{\n(.*?)^\}", plain, re.S | re.M)
    return len(set(map(_without_names, bodies)))


def _without_names(body: str) -> str:
    names: dict[str, str] = {}
    return re.sub(r"%[\w.\-]+", lambda m: names.setdefault(m[0], f"%{len(names)}"), body)


def _computations(hlo: str) -> tuple[dict[str, Computation], str]:
    """The instructions of each computation by name, and the name of the entry computation."""
    found: dict[str, Computation] = {}
    entry = name = ""
    for line in hlo.splitlines():
        if header := _HEADER.match(line):
            name = header[2]
            found[name] = {}
            entry = name if header[1] else entry
        elif match := _INSTRUCTION.match(line):
            own, shape, opcode, rest = match.groups()
            operands = frozenset(_NAME.findall(_inside(rest)))
            opaque = _PALLAS in rest and '"cost_estimate"' not in rest
            called = _called(rest, opcode)
            found[name][own] = Instruction(opcode, size_of(shape), operands, called, opaque)
    return found, entry


def _inside(rest: str) -> str:
    """What stands before the closing parenthesis."""
    depth = 1
    for i, character in enumerate(rest):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return rest[:i]
    return rest


def _called(rest: str, opcode: str) -> tuple[str, ...]:
    attributes = [(key, several or one) for key, several, one in _ATTRIBUTE.findall(rest)]
    called = [value for key, value in attributes if key in _COMPOSITE.get(opcode, ())]
    return tuple(name.strip("% ") for several in called for name in several.split(","))


def size_of(shape: str) -> float:
    """The bytes of a shape as HLO writes it, `(f32[2,3]{1,0}, s4[8])`, without padding."""
    return sum(
        _bits(kind) / 8 * math.prod(int(n) for n in lengths.split(",") if n)
        for kind, lengths in _ARRAY.findall(shape)
    )


def _bits(kind: str) -> int:
    """Of an element; its name says it: bf16, s4, f8e4m3fn."""
    width = re.search(r"\d+", kind)
    return int(width[0]) if width else 8 if kind == "pred" else 0
