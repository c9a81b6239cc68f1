"""How large a traced program is."""

from __future__ import annotations

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
