"""Imports go one way, between folders and between files."""

import ast
from collections.abc import Iterator, Mapping

from .files import MODULES, every_module

# Each may import from itself and from those before it.
LAYERS = [
    "gradtx.core",
    "gradtx.tree",
    "gradtx.schedules",
    "gradtx.combinators",
    "gradtx.transforms",
    "gradtx.precision",
    "gradtx.sharding",
    "gradtx.optimizers",
    "gradtx.torch",
    "gradtx.interop",
    "gradtx.inspection",
    "gradtx.contrib",
    "gradtx.tree_utils",
    "gradtx",
    "gradtx.demo",
    "gradtx.cli",
    "gradtx.__main__",
]

FOR_TYPES = ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(tree: ast.AST, module: str, for_types: bool = True) -> Iterator[str]:
    """The modules of gradtx that a file imports, anywhere in it, or all but those that it imports
    for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in FOR_TYPES:
            if for_types:
                yield from imports(ast.Module(node.body), module)
            yield from imports(ast.Module(node.orelse), module, for_types)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively: {ast.unparse(node)}"
            found = ((f"{node.module}.{alias.name}", str(node.module)) for alias in node.names)
            named = (inner if inner in MODULES else outer for inner, outer in found)
            yield from (name for name in named if name in MODULES)
        yield from imports(node, module, for_types)


def layer(module: str) -> str:
    """The first name below gradtx; the package itself holds nothing but public names."""
    return ".".join(module.split(".")[:2])


@every_module
def test_folders_import_one_way(module: str) -> None:
    assert layer(module) in LAYERS, f"say in LAYERS what {layer(module)} may import"
    own = LAYERS.index(layer(module))
    for imported in imports(ast.parse(MODULES[module].read_text()), module):
        assert LAYERS.index(layer(imported)) <= own, f"{module} imports {imported}"


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Names of which each leads to the next and the last is the first; none without a circle."""
    done: set[str] = set()

    def follow(path: list[str]) -> list[str]:
        for name in sorted(graph[path[-1]] - done):
            if name in path:
                return [*path[path.index(name) :], name]
            if found := follow([*path, name]):
                return found
        done.add(path[-1])
        return []

    return next(filter(None, (follow([name]) for name in graph if name not in done)), [])


def test_files_import_one_way() -> None:
    """Imports for types only are left out: they are no order in which files are read."""

    graph = {
        module: set(imports(ast.parse(path.read_text()), module, for_types=False))
        for module, path in MODULES.items()
    }
    found = circle(graph)
    assert not found, f"imports go in a circle: {' -> '.join(found)}"


def test_imports_are_found() -> None:
    """So that the laws above are known to fail: in functions too, and of names and modules."""
    source = (
        "import jax\n"
        "if typing.TYPE_CHECKING:\n    from gradtx.core.rule import Rule\n"
        "else:\n    import gradtx.core.rule\n"
        "def f():\n    from gradtx import tree, adam\n    import gradtx.cli\n"
        "if not TYPE_CHECKING:\n    import gradtx.demo\n"
    )
    run = ["gradtx.core.rule", "gradtx.tree", "gradtx", "gradtx.cli", "gradtx.demo"]
    assert list(imports(ast.parse(source), "gradtx.core.x", for_types=False)) == run
    assert list(imports(ast.parse(source), "gradtx.core.x")) == ["gradtx.core.rule", *run]


def test_circles_are_found() -> None:
    rows = {"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}
    assert circle(rows) == []
    assert circle(rows | {"d": {"c"}}) == ["d", "c", "d"]
    assert circle({"a": {"a"}}) == ["a", "a"]
