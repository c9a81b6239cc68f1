"""What is public: a file lists its names, a folder takes them, and type checkers see the same."""

import ast
import importlib

import pytest

import gradtx

from .files import MODULES

FOLDERS = sorted(
    module
    for module, path in MODULES.items()
    if path.name == "__init__.py" and hasattr(importlib.import_module(module), "__all__")
)


def listed(tree: ast.Module) -> list[str] | None:
    """The list that a file assigns to `__all__`, if it does."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    return None


def seen(module: str) -> set[str]:
    """The names that a type checker lets others import from a module: those in a list that it can
    read or else, of imports, those by a star or by `import name as name`."""
    tree = ast.parse(MODULES[module].read_text())
    if (names := listed(tree)) is not None:
        return set(names)
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.name == "*":
                    found |= seen(str(node.module))
                elif alias.asname == alias.name:
                    found.add(alias.name)
    return found


@pytest.mark.parametrize("module", FOLDERS)
def test_type_checkers_see_what_is_exported(module: str) -> None:
    assert sorted(seen(module)) == sorted(importlib.import_module(module).__all__)


@pytest.mark.parametrize("module", [module for module in MODULES if module not in FOLDERS])
def test_listed_names_are_taken(module: str) -> None:
    """By the folder or by gradtx itself: a new file must be."""
    names = listed(ast.parse(MODULES[module].read_text())) or []
    file = importlib.import_module(module)
    places = (importlib.import_module(module.rpartition(".")[0]), gradtx)
    for name in names:
        taken = any(getattr(place, name, None) is getattr(file, name) for place in places)
        assert taken, f"take {name} in {places[0].__name__}: from {module} import *"


@pytest.mark.parametrize("module", FOLDERS)
def test_exports_are_sorted_and_there(module: str) -> None:
    package = importlib.import_module(module)
    assert package.__all__ == sorted(set(package.__all__))
    assert all(hasattr(package, name) for name in package.__all__)
