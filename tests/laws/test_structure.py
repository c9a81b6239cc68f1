"""How the code is laid out: files stay short, and names have docstrings."""

import ast
import importlib
import inspect
import subprocess
import sys
from typing import Any

import pytest

import gradtx
from gradtx.core.definition import Definition
from gradtx.core.per_leaf import LeafTransformation
from gradtx.core.per_tree import TreeTransformation

from .files import MODULES, ROOT, every_module


@every_module
def test_files_are_short(module: str) -> None:
    lines = len(MODULES[module].read_text().splitlines())
    assert lines <= 600, f"{module} has {lines} lines"


@every_module
def test_long_functions_say_what_they_do(module: str) -> None:
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.FunctionDef):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= 60 or ast.get_docstring(node), f"{module}.{node.name}: {lines} lines"


@every_module
def test_no_drawer_for_everything(module: str) -> None:
    assert module.split(".")[-1] not in ("utils", "util", "helpers", "misc", "common")


@every_module
def test_definitions_are_bound_by_the_names_of_their_functions(module: str) -> None:
    """So that they are pickled by reference, and no other name for one leaks into errors."""
    found = importlib.import_module(module) if module != "gradtx.__main__" else None
    for name, thing in vars(found or gradtx).items():
        if isinstance(thing, Definition) and thing.__module__ == module:
            assert thing.__qualname__ == name
            assert not name.startswith("_")


# -- public names --------------------------------------------------------------------------------


def public() -> list[Any]:
    """Every public name that can have a docstring, of every module that says what is public."""
    found = []
    for module in (gradtx, gradtx.torch, gradtx.schedules, gradtx.optimizers):
        for name in module.__all__:
            thing = getattr(module, name)
            if callable(thing) or inspect.ismodule(thing):
                found.append(pytest.param(thing, id=f"{module.__name__}.{name}"))
    names = [name for name, thing in vars(gradtx.tree).items() if inspect.isfunction(thing)]
    for name in names:
        thing = getattr(gradtx.tree, name)
        if not name.startswith("_") and thing.__module__.startswith("gradtx.tree."):
            found.append(pytest.param(thing, id=f"gradtx.tree.{name}"))
    return found


def is_annotation(thing: Any) -> bool:
    """`Decay` and its like are annotations, `Params` is `Any`: they say nothing of their own."""
    return hasattr(thing, "__metadata__") or thing is Any


@pytest.mark.parametrize("thing", public())
def test_public_names_have_docstrings(thing: Any) -> None:
    if is_annotation(thing):
        return
    doc = vars(thing).get("__doc__") if isinstance(thing, type) else thing.__doc__
    assert doc
    assert doc.strip()
    if isinstance(thing, type) and hasattr(thing, "_fields"):
        assert not doc.startswith(f"{thing.__name__}("), "this is what NamedTuple writes by itself"


def rules() -> list[Any]:
    """The public transformations with maths of their own."""
    found = []
    for name in gradtx.__all__:
        thing = getattr(gradtx, name)
        kinds = (LeafTransformation, TreeTransformation)
        if isinstance(thing, Definition) and issubclass(thing.value_class, kinds):
            found.append(pytest.param(thing, id=name))
    return found


@pytest.mark.parametrize("definition", rules())
def test_rules_give_their_formula(definition: Any) -> None:
    lines = (definition.__doc__ or "").splitlines()
    assert any(" = " in line or " <- " in line for line in lines)


# -- dependencies --------------------------------------------------------------------------------


def test_gradtx_needs_jax_and_numpy_only() -> None:
    """Importing it brings in nothing that JAX itself does not bring in."""
    probe = "import sys, {}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    loaded = {
        package: set(
            subprocess.run(
                [sys.executable, "-c", probe.format(package)],
                capture_output=True,
                text=True,
                check=True,
                cwd=ROOT.parent,
            ).stdout.split()
        )
        for package in ("gradtx", "jax")
    }
    ours = loaded["gradtx"] - loaded["jax"] - {"gradtx"} - set(sys.stdlib_module_names)
    assert {name for name in ours if not name.startswith(("__editable__", "_"))} == set()
