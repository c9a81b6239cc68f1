"""What a package exports: the public names of its files."""

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from gradtx.core.documentation import Shown
from gradtx.core.known import TAKEN


def export_names(package: dict[str, Any], *modules: str) -> None:
    """Set a package's `__all__`: its public names, including only those modules in `modules`.

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
    TAKEN.update(package["__all__"])
    show_types(*filter(inspect.isfunction, map(package.get, names)))


def show_types(*functions: Callable[..., Any]) -> None:
    """Let `help` print the types of these functions as they are written, without quotes."""
    for function in functions:
        written = function.__annotations__.items()
        function.__annotations__ = {
            name: Shown(text) if isinstance(text, str) else text for name, text in written
        }
