"""The notebooks run from top to bottom and show what they are kept with; a page shows the same."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

DOCS = Path(__file__).parents[2] / "docs"


def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_notebooks", DOCS / "notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


notebooks = module()
PATHS = sorted((DOCS / "notebooks").glob("*.ipynb"))


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


NUMBER = re.compile(r"-?\d+\.?\d*(?:e-?\d+)?")


def words(text: str) -> list[str]:
    """A text without its numbers, which compilers may change a little, and how they are aligned."""
    return NUMBER.sub("", text).split()


def figures(text: str) -> list[float]:
    return [float(number) for number in NUMBER.findall(text)]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_shows_what_it_is_kept_with(path: Path) -> None:
    pytest.importorskip("matplotlib")
    notebook = read(path)
    for cell, made in zip(notebook["cells"], notebooks.run(notebook, path.name), strict=True):
        kept = cell.get("outputs", [])
        source = "".join(cell["source"])
        assert words(notebooks.text_of(made)) == words(notebooks.text_of(kept)), source
        numbers = [figures(notebooks.text_of(outputs)) for outputs in (made, kept)]
        np.testing.assert_allclose(*numbers, rtol=0.25, atol=0.15, err_msg=source)
        assert [o["output_type"] for o in made] == [o["output_type"] for o in kept], source


def test_there_are_three_and_all_are_in_the_navigation() -> None:
    assert len(PATHS) == 3
    pages = (DOCS.parent / "mkdocs.yml").read_text()
    for path in PATHS:
        assert f": notebooks/{path.stem}.md" in pages


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_kept_outputs_are_small(path: Path) -> None:
    assert path.stat().st_size < 200_000


def test_a_page_is_what_its_notebook_holds() -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title"]},
        {
            "cell_type": "code",
            "source": ["print(1)\n", "2"],
            "outputs": [notebooks.picture(b"drawn")],
        },
    ]
    assert notebooks.as_markdown({"cells": cells}) == (
        "# Title\n\n```python\nprint(1)\n2\n```\n\n"
        "![Output of the cell above](data:image/png;base64,ZHJhd24=)\n"
    )


def test_a_cell_that_fails_is_named() -> None:
    cells = [{"cell_type": "code", "source": ["x = 1\n", "x / 0"]}]
    with pytest.raises(ZeroDivisionError) as caught:
        notebooks.run({"cells": cells}, "mine.ipynb")
    assert "mine.ipynb, cell 1" in str(caught.traceback[-1].path)
