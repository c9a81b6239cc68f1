"""How the code is laid out: files stay short, and names have docstrings."""

import ast
import functools
import importlib
import inspect
import subprocess
import sys
import typing
from typing import Any, NamedTuple

import gradtx
from gradtx import GradientTransformation
from gradtx.core.definition import Definition
from gradtx.core.per_leaf import LeafTransformation
from gradtx.core.per_tree import TreeTransformation

from .files import MODULES, ROOT


@functools.cache
def parsed(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


def test_files_are_short() -> None:
    lines = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert not {module: n for module, n in lines.items() if n > 600}


def test_long_functions_say_what_they_do() -> None:
    long = [
        f"{module}.{node.name}"
        for module in MODULES
        for node in ast.walk(parsed(module))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60
        if not ast.get_docstring(node)
    ]
    assert not long


def test_no_drawer_for_everything() -> None:
    drawers = ("utils", "util", "helpers", "misc", "common")
    assert not [module for module in MODULES if module.split(".")[-1] in drawers]


def test_definitions_are_bound_by_the_names_of_their_functions() -> None:
    """So that they are pickled by reference, and no other name for one leaks into errors."""
    found = [
        (f"{module}.{name}", thing.__qualname__)
        for module in MODULES
        if module != "gradtx.__main__"
        for name, thing in vars(importlib.import_module(module)).items()
        if isinstance(thing, Definition) and thing.__module__ == module
    ]
    assert len(found) > 100
    for bound, name in found:
        assert bound.endswith(f".{name}"), f"{bound} is called {name}"
        assert not name.startswith("_")


# -- public names --------------------------------------------------------------------------------


def public_things() -> dict[str, Any]:
    """Every public name that can have a docstring, of every module that says what is public."""
    found = {}
    for module in (gradtx, gradtx.torch, gradtx.schedules, gradtx.optimizers):
        for name in module.__all__:
            thing = getattr(module, name)
            if callable(thing) or inspect.ismodule(thing):
                found[f"{module.__name__}.{name}"] = thing
    for name, thing in vars(gradtx.tree).items():
        public = inspect.isfunction(thing) and not name.startswith("_")
        if public and thing.__module__.startswith("gradtx.tree."):
            found[f"gradtx.tree.{name}"] = thing
    return found


def is_annotation(thing: Any) -> bool:
    """`Decay` and its like are annotations, `Params` is `Any`: they say nothing of their own."""
    return hasattr(thing, "__metadata__") or thing is Any or bool(typing.get_args(thing))


def has_docstring(thing: Any) -> bool:
    """One of its own, which is not what NamedTuple writes by itself."""
    doc = vars(thing).get("__doc__") if isinstance(thing, type) else thing.__doc__
    if isinstance(thing, type) and hasattr(thing, "_fields"):
        return bool(doc) and not doc.startswith(f"{thing.__name__}(")
    return bool(doc and doc.strip())


def test_public_names_have_docstrings() -> None:
    things = {name: thing for name, thing in public_things().items() if not is_annotation(thing)}
    assert len(things) > 300
    assert not [name for name, thing in things.items() if not has_docstring(thing)]


def test_missing_docstrings_are_found() -> None:
    """So that the law above is known to fail."""
    assert not has_docstring(NamedTuple("Bare", [("x", int)]))
    assert not has_docstring(type("Inherits", (GradientTransformation,), {}))
    assert not has_docstring(lambda: None)
    assert has_docstring(gradtx.EmptyState)


def rules() -> dict[str, Definition[Any, Any]]:
    """The public transformations with maths of their own."""
    kinds = (LeafTransformation, TreeTransformation)
    things = {name: getattr(gradtx, name) for name in gradtx.__all__}
    return {
        name: thing
        for name, thing in things.items()
        if isinstance(thing, Definition) and issubclass(thing.value_class, kinds)
    }


def test_rules_give_their_formula() -> None:
    lines = {name: (rule.__doc__ or "").splitlines() for name, rule in rules().items()}
    assert len(lines) > 50
    assert not [
        name for name, doc in lines.items() if not any(" = " in x or " <- " in x for x in doc)
    ]


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
