"""Examples of every public name: one module a family, found by itself.

A module holds EXAMPLES (of transformations) or SCHEDULES, tuples of what `example.py` describes.
"""

import importlib
import pkgutil
from typing import Any


def collect(kind: str) -> tuple[Any, ...]:
    """The examples of all modules."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return tuple(e for module in modules for e in getattr(module, kind, ()))
