"""What a package exports: the public names of its files."""

from types import ModuleType
from typing import Any


def gather(package: dict[str, Any], *modules: str) -> None:
    """Set the `__all__` of a package: every public name in it, and of modules those named.

    The files list their names in `__all__`, and a package takes them with `from ... import *`,
    which type checkers and editors follow. A sum of those lists mypy does not, and would take
    what it cannot read for private; so the sum is made where checkers do not look.
    """
    names = [
        name
        for name, thing in package.items()
        if not (name.startswith("_") or isinstance(thing, ModuleType))
    ]
    package["__all__"] = sorted([*names, *modules])
