"""What a package exports: the public names of its files."""

from types import ModuleType
from typing import Any


def export_names(package: dict[str, Any], *modules: str) -> None:
    """Set a package's `__all__`: its public names, and of its modules only `modules`.

    package: its `globals()`. Each file lists its public names in `__all__`, and the package takes
    them with `from ... import *`, which type checkers and editors follow. They do not follow an
    `__all__` that is computed (mypy would take every name for private), so it is set here, where
    they do not look.
    """
    names = [
        name
        for name, thing in package.items()
        if not (name.startswith("_") or isinstance(thing, ModuleType))
    ]
    package["__all__"] = sorted([*names, *modules])
