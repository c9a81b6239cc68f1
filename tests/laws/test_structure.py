"""How the code is laid out: imports go one way, names have docstrings, files stay short."""

import ast
import functools
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gradtx
from gradtx import GradientTransformation
from gradtx.core.definition import Definition
from gradtx.core.leafwise import LeafTransformation
from gradtx.core.treewise import TreeTransformation

# Each may import from itself and from those before it.
LAYERS = [
    "gradtx.core",
    "gradtx.tree",
    "gradtx.schedules",
    "gradtx.combinators",
    "gradtx.transforms",
    "gradtx.precision",
    "gradtx.optimizers",
    "gradtx.torch",
    "gradtx.interop",
    "gradtx.inspection",
    "gradtx",
    "gradtx.demo",
    "gradtx.cli",
    "gradtx.__main__",
]
ROOT = Path(gradtx.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MODULES = {
    ".".join(("gradtx", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in FILES
}


@functools.cache
def parsed(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


def layer(module: str) -> str:
    """The first name below gradtx; the package itself holds nothing but public names."""
    return ".".join(module.split(".")[:2])


def imports(tree: ast.AST, module: str) -> Iterator[str]:
    """The modules of gradtx that a file imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively: {ast.unparse(node)}"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)


def test_imports_go_one_way() -> None:
    wrong = [
        f"{module} imports {imported}"
        for module in MODULES
        for imported in imports(parsed(module), module)
        if imported.split(".")[0] == "gradtx" and place(imported) > place(module)
    ]
    assert not wrong


def place(module: str) -> int:
    assert layer(module) in LAYERS, f"say in LAYERS what {layer(module)} may import"
    return LAYERS.index(layer(module))


def test_imports_are_found() -> None:
    """So that the law above is known to fail: in functions too, and of names and modules."""
    source = "def f():\n    from gradtx import tree, adam\n    import gradtx.cli\n"
    assert list(imports(ast.parse(source), "gradtx.core.x")) == [
        "gradtx.tree",
        "gradtx",
        "gradtx.cli",
    ]


def test_files_are_short() -> None:
    lines = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    lines.pop("gradtx")  # a list of names
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
    return hasattr(thing, "__metadata__") or thing is Any


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


def test_all_is_complete() -> None:
    assert len(gradtx.__all__) == len(set(gradtx.__all__))
    for name in gradtx.__all__:
        assert hasattr(gradtx, name)
    hidden = {
        name
        for name, thing in vars(gradtx).items()
        if isinstance(thing, Definition) and name not in gradtx.__all__
    }
    assert not hidden, f"public, but not in __all__: {sorted(hidden)}"


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
