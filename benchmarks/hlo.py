"""What the text of an optimized program says that it runs: exact, without noise."""

from __future__ import annotations

import itertools
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
_CALLS = _COMPOSITE | {"fusion": ("calls",)}
_ENDS = {"async-done", "async-update", "call-done"}  # of a composite, which counts where it starts
_COLLECTIVES = {
    *("all-gather", "all-reduce", "all-to-all", "ragged-all-to-all"),
    *("reduce-scatter", "collective-permute", "collective-broadcast"),
}
_VIEW = 'custom_call_target="ConcatBitcast"'  # pieces in a TPU's fast memory, as one array
# Copies that run beside the kernels: a TPU's from and to its fast memory.
_FETCHES = {"copy", "slice"}
_SLICES = {"slice", "dynamic-slice", "gather"}
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*?)([a-z][a-z\-]*)\((.*)$")
_ATTRIBUTE = re.compile(r", (\w+)=(?:\{([^}]*)\}|%?([\w.\-]+))")
_NAME = re.compile(r"%([\w.\-]+)")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_TILE = re.compile(r":T\(([\d,]*)\)")


class Instruction(NamedTuple):
    """One line of a computation.

    size: the bytes of its result. slow: those of them that lie in main memory. argument: which one
    of its computation's parameters it is. called: the computations that it names.
    """

    opcode: str
    size: float
    slow: float
    operands: tuple[str, ...]
    called: tuple[str, ...]
    argument: int | None
    is_root: bool


Computation = dict[str, Instruction]


@dataclass
class Tally:
    """What a program runs: kernels, the bytes of main memory that they read and write, and its
    collectives.

    Kernels are the fusions, custom calls, copies and other instructions of the entry computation
    and of those that it calls, each a loop on CPU and a kernel on GPU: every branch of a
    conditional, and a loop's body once. What a library call launches inside does not count, and
    neither do copies that run beside the kernels. Bytes are those of each kernel's operands and
    results, with the padding of their layout; of an array that a kernel only slices, or updates in
    place in part, those of the part. What lies in a TPU's fast memory costs no bytes, and what is
    fetched into it those that are fetched.
    """

    kernels: int = 0
    bytes: float = 0.0
    collectives: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Run the other too."""
        self.kernels += other.kernels
        self.bytes += other.bytes
        self.collectives += other.collectives


def tally(hlo: str, due: int | None = None) -> Tally:
    """Count what an optimized program runs: all of it, or one path through its branches.

    due: of conditionals inside of one another, how many take their dearest branch; those inside of
    these take their cheapest. So with 0 nothing is due that a step only does now and then, and with
    1 it is, but nothing that is rarer still. A loop of at most one turn is a conditional too.
    """
    computations, entry = _computations(hlo)
    found: dict[tuple[str, int], Tally] = {}

    def of(name: str, inside: int) -> Tally:
        if (name, inside) not in found:
            found[name, inside] = total = Tally()
            body = computations.get(name, {})
            for instruction in body.values():
                for part in parts(instruction, body, inside):
                    total.add(part)
        return found[name, inside]

    def parts(one: Instruction, body: Computation, inside: int) -> list[Tally]:
        if one.opcode not in _COMPOSITE:
            return [_own(one, body, computations)]
        if due is None or not is_conditional(one):
            return [of(called, inside) for called in one.called]
        branches = [of(called, inside + 1) for called in one.called]
        pick = max if inside < due else min
        return [pick(branches, key=lambda branch: (branch.bytes, branch.kernels))]

    def is_conditional(one: Instruction) -> bool:
        """A loop that asks only whether a flag is set, which its one turn clears, is one of its
        body and of its condition, which is nothing."""
        idle = one.opcode == "while" and not of(one.called[0], 0).kernels
        return one.opcode == "conditional" or idle

    return of(entry, 0)


def _own(
    instruction: Instruction, body: Computation, computations: dict[str, Computation]
) -> Tally:
    """What one instruction adds. A pair of start and done reads at the start and writes at the
    end: the result of the start names its operands again."""
    opcode = instruction.opcode
    kind, _, stage = opcode.rpartition("-")
    if opcode in _FREE or opcode in _ENDS:
        return Tally()
    if kind in _FETCHES and stage == "start":
        return Tally()
    if kind in _FETCHES and stage == "done":
        return Tally(bytes=_fetched(instruction, body))
    if stage == "done":
        return Tally(bytes=instruction.slow)
    started = kind if stage == "start" else opcode
    read = sum(
        min(body[name].slow, _read(instruction, name, body, computations))
        for name in set(instruction.operands) & body.keys()
    )
    written = 0.0 if stage == "start" else _written(instruction, body, computations)
    collectives = Counter({started: 1} if started in _COLLECTIVES else {})
    return Tally(1, read + written, collectives)


def _fetched(done: Instruction, body: Computation) -> float:
    """The bytes that a copy or slice from one memory to another reads and writes."""
    (start,) = (body[name] for name in done.operands)
    source = sum(body[name].slow for name in start.operands if name in body)
    return done.slow + (done.size if source else 0)


def _read(
    reader: Instruction, name: str, body: Computation, computations: dict[str, Computation]
) -> float:
    """The bytes that an instruction reads of an operand."""
    whole = body[name].size
    if reader.opcode in _SLICES and reader.operands.index(name) == 0:
        return reader.size
    if reader.opcode == "dynamic-update-slice" and reader.operands.index(name) == 0:
        return 0.0
    if reader.opcode != "fusion":
        return whole
    fused = computations[reader.called[0]]
    positions = [i for i, operand in enumerate(reader.operands) if operand == name]
    inner = [own for own, one in fused.items() if one.argument in positions]
    return sum(_read_inside(own, fused, computations) for own in inner)


def _read_inside(name: str, fused: Computation, computations: dict[str, Computation]) -> float:
    """The bytes that a fused computation reads of one of its values."""
    total = 0.0
    for own, user in fused.items():
        if name in user.operands:
            if user.opcode == "bitcast":
                total += _read_inside(own, fused, computations)
            else:
                total += _read(user, name, fused, computations)
    return total


def _written(writer: Instruction, body: Computation, computations: dict[str, Computation]) -> float:
    """The bytes that an instruction writes to main memory."""
    if writer.opcode == "dynamic-update-slice" and writer.operands[1] in body:
        return min(writer.slow, body[writer.operands[1]].size)
    if writer.opcode == "tuple":
        results = (body[name] for name in writer.operands if name in body)
        return sum(_written(one, body, computations) for one in results)
    if writer.opcode == "bitcast" and writer.operands[0] in body:
        return _written(body[writer.operands[0]], body, computations)
    if writer.opcode == "fusion":
        fused = computations[writer.called[0]]
        (root,) = (one for one in fused.values() if one.is_root)
        return min(writer.slow, _written(root, fused, computations))
    return writer.slow


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
            root, own, shape, opcode, rest = match.groups()
            opcode = "bitcast" if _VIEW in rest else opcode
            inside = _inside(rest)
            found[name][own] = Instruction(
                opcode,
                size_of(shape),
                size_of(shape, fast=False),
                tuple(_NAME.findall(inside)),
                _called(rest, opcode),
                int(inside) if opcode == "parameter" else None,
                root is not None,
            )
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
    called = [value for key, value in attributes if key in _CALLS.get(opcode, ())]
    return tuple(name.strip("% ") for several in called for name in several.split(","))


def size_of(shape: str, *, fast: bool = True) -> float:
    """The bytes of a shape as HLO writes it, `(f32[2,3]{1,0}, s4[8])`, with its layout's padding.

    fast: whether arrays in another memory than the main one count.
    """
    return sum(
        _bits(kind) / 8 * math.prod(_padded(lengths, layout))
        for kind, lengths, layout in _ARRAY.findall(shape)
        if fast or "S(" not in layout
    )


def _padded(lengths: str, layout: str) -> list[int]:
    """The lengths of the axes, from minor to major, in whole tiles."""
    shape = [int(n) for n in lengths.split(",") if n]
    order = [int(axis) for axis in layout.partition(":")[0].split(",") if axis]
    minor_first = [shape[axis] for axis in order] if order else shape[::-1]
    tile = _TILE.search(layout)
    tiles = [int(n) for n in reversed(tile[1].split(",")) if n] if tile else []
    units = itertools.zip_longest(tiles[: len(shape)], minor_first, fillvalue=1)
    return [-(-length // unit) * unit for unit, length in units]


def _bits(kind: str) -> int:
    """Of an element; its name says it: bf16, s4, f8e4m3fn."""
    width = re.search(r"\d+", kind)
    return int(width[0]) if width else 8 if kind == "pred" else 0
