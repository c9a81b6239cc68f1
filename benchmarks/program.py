"""What a traced and compiled program says about itself: exact, without noise."""

from __future__ import annotations

import re
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr


def count_equations(jaxpr: ClosedJaxpr) -> tuple[int, int]:
    """The equations of a closed jaxpr, counting distinct inner jaxprs once, and at each use.

    The first is what is traced and mostly what is lowered; the second is what the compiler sees.
    """
    expanded: dict[int, int] = {}
    own: dict[int, int] = {}

    def visit(inner: Jaxpr) -> int:
        if id(inner) not in expanded:
            uses = [sub for equation in inner.eqns for sub in _jaxprs_in(equation.params)]
            own[id(inner)] = len(inner.eqns)
            expanded[id(inner)] = len(inner.eqns) + sum(visit(sub) for sub in uses)
        return expanded[id(inner)]

    total = visit(jaxpr.jaxpr)
    return sum(own.values()), total


def _jaxprs_in(params: dict[str, Any]) -> list[Jaxpr]:
    """The jaxprs among an equation's parameters, open or closed, alone or in sequences."""

    def is_jaxpr(x: object) -> bool:
        return hasattr(x, "eqns") or hasattr(x, "jaxpr")

    found = [x for x in jax.tree.leaves(params, is_leaf=is_jaxpr) if is_jaxpr(x)]
    return [x.jaxpr if hasattr(x, "jaxpr") else x for x in found]


# What costs no launch: names, views and values that exist already.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("opt-barrier", "partition-id", "replica-id", "async-done", "call-done"),
}
# What runs other computations, instruction by instruction, and the attributes that name them.
_COMPOSITE = {
    "call": ("to_apply",),
    "conditional": ("branch_computations", "true_computation", "false_computation"),
    "while": ("condition", "body"),
    "async-start": ("calls",),
    "call-start": ("to_apply",),
}
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = .*?([a-z][a-z\-]*)\(")
_ATTRIBUTE = re.compile(r", (\w+)=(?:\{([^}]*)\}|%?([\w.\-]+))")


def count_kernels(hlo: str) -> int:
    """The instructions that an optimized program runs, each a loop on CPU and a kernel on GPU.

    Counts the fusions, custom calls, copies and other instructions of the entry computation and of
    those it calls, with every branch of a conditional, and a loop's body once. What a library call
    launches inside does not count.
    """
    computations, entry = _computations(hlo)
    counts: dict[str, int] = {}

    def count(name: str) -> int:
        if name not in counts:
            body = computations.get(name, [])
            counts[name] = sum(1 if called is None else sum(map(count, called)) for called in body)
        return counts[name]

    return count(entry)


def count_texts(hlo: str) -> int:
    """How many different fused loops an optimized program has: XLA compiles loops that differ only
    in names once."""
    plain = re.sub(r", metadata=\{[^}]*\}", "", hlo)
    bodies = re.findall(r"^%(?:fused|wrapped)\S* \([^\n]*\{\n(.*?)^\}", plain, re.S | re.M)
    return len(set(map(_without_names, bodies)))


def _without_names(body: str) -> str:
    names: dict[str, str] = {}
    return re.sub(r"%[\w.\-]+", lambda m: names.setdefault(m[0], f"%{len(names)}"), body)


def _computations(hlo: str) -> tuple[dict[str, list[list[str] | None]], str]:
    """For each computation, what each instruction that is not free calls (None: nothing); and the
    name of the entry computation."""
    found: dict[str, list[list[str] | None]] = {}
    entry = name = ""
    for line in hlo.splitlines():
        if header := _HEADER.match(line):
            name = header[2]
            found[name] = []
            entry = name if header[1] else entry
        elif (match := _INSTRUCTION.match(line)) and match[1] not in _FREE:
            found[name].append(_called(line, match[1]))
    return found, entry


def _called(line: str, opcode: str) -> list[str] | None:
    if opcode not in _COMPOSITE:
        return None
    attributes = [(key, several or one) for key, several, one in _ATTRIBUTE.findall(line)]
    names = [value for key, value in attributes if key in _COMPOSITE[opcode]]
    return [name.strip("% ") for several in names for name in several.split(",")]
