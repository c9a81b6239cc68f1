"""Every Python block of the documentation runs, in order, and prints what it says it prints.

The blocks of a page share a namespace. A block that imports a library that gradtx does without is
a test of its own, which is skipped where the library is not installed: such blocks of one page and
one library share a namespace too, and use nothing of the page's other blocks.
"""

import importlib.util
import re
from pathlib import Path

import pytest

from gradtx.core.per_leaf import LeafTransformation
from gradtx.core.per_tree import TreeTransformation
from tests.pages import Block, blocks, page_module, run_block

DOCS = Path(__file__).parents[2] / "docs"
LIBRARIES = (
    *("equinox", "flax", "haiku", "jaxopt", "numpyro", "omegaconf", "optimistix", "orbax"),
    *("torch", "yaml"),
)
IMPORT = re.compile(rf"^(?:import|from) ({'|'.join(LIBRARIES)})\b", re.MULTILINE)


def parts() -> dict[str, tuple[Path, str, list[Block]]]:
    """By test: the page, the library that its blocks need or \"\", and the blocks."""
    found: dict[str, tuple[Path, str, list[Block]]] = {}
    for page in sorted(DOCS.rglob("*.md")):
        name = page.relative_to(DOCS).as_posix()
        for block in blocks(page.read_text()):
            match = IMPORT.search(block.code)
            library = match[1] if match else ""
            key = f"{name}: {library}" if library else name
            found.setdefault(key, (page, library, []))[2].append(block)
    return found


PARTS = parts()


@pytest.mark.parametrize("key", PARTS)
def test_page(key: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page, library, its_blocks = PARTS[key]
    if library and importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    monkeypatch.chdir(tmp_path)
    with page_module("page") as namespace:
        for block in its_blocks:
            run_block(block, namespace, page.relative_to(DOCS.parent).as_posix())


def test_there_are_pages() -> None:
    assert len({page for page, _, _ in PARTS.values()}) > 10
    assert {library for _, library, _ in PARTS.values()} == {"", *LIBRARIES}


def test_the_page_about_rules_tells_all_that_they_may_ask_for() -> None:
    page = (DOCS / "own.md").read_text()
    for rules, where in (
        (LeafTransformation, "| `per_leaf` |"),
        (TreeTransformation, "| `per_tree` |"),
    ):
        header, _, *rows = page[page.index(where) :].split("\n\n", 1)[0].splitlines()
        columns = [cell.strip("` ") for cell in header.split("|")[1:-1]]
        asked: dict[str, set[str]] = {column: set() for column in columns}
        for row in rows:
            cells = [cell.strip() for cell in row.split("|")[1:-1]]
            for column, cell in zip(columns, cells, strict=True):
                if cell == "yes":
                    asked[column] |= set(re.findall(r"`(\w+)`", cells[0]))
        assert asked["in init"] == set(rules.init_names)
        assert asked["in update"] == set(rules.update_names)


def test_every_block_is_rendered() -> None:
    """Of an info string in another form the renderer makes no block, but text."""
    for page in DOCS.rglob("*.md"):
        for fence in re.findall(r"^```.+$", page.read_text(), re.MULTILINE):
            assert re.fullmatch(r"```(\w+|\{[.\w ]+\})", fence), f"{page.name}: {fence}"
