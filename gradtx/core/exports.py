"""What a package exports: the public names of its files."""

from types import ModuleType
from typing import Any


def export_names(package: dict[str, Any], *modules: str) -> None:
    """Set the `__all__` of a package: its public names, among modules only the `modules` named.

    Each file lists its public names in `__all__`, and its package takes them with
    `from ... import *`, which type checkers and editors follow. They do not all follow an
    `__all__` made from other lists: mypy would take every name for private. So it is set
    where they do not look.
    """
    names = [
        name
        for name, thing in package.items()
        if not (name.startswith("_") or isinstance(thing, ModuleType))
    ]
    package["__all__"] = sorted([*names, *modules])
