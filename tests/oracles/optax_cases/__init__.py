"""Argument sets of everything that Optax has too: one module a family, found by itself.

A module holds tables TRANSFORMATIONS, OPTIMIZERS or SCHEDULES: a name, and the argument sets to
try. The first is the defaults, where there are any.
"""

import importlib
import pkgutil

from .case import Args

Table = dict[str, list[Args]]


def collect(kind: str) -> Table:
    """One table of all modules."""
    table: Table = {}
    for module in pkgutil.iter_modules(__path__):
        family = importlib.import_module(f"{__name__}.{module.name}")
        found: Table = getattr(family, kind, {})
        assert not table.keys() & found.keys(), f"twice: {table.keys() & found.keys()}"
        table |= found
    return table
