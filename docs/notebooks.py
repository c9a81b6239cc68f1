"""The notebooks: run, and shown as pages of the site.

`python docs/notebooks.py` runs `docs/notebooks/*.ipynb`, or the files that it is given, from top to
bottom, each in a namespace of its own, and writes the outputs into them: what cells print, the
value of a last expression, and the pictures that they leave open. As a hook of mkdocs it turns the
notebooks, with these outputs, into Markdown. Neither needs Jupyter.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

NOTEBOOKS = Path(__file__).parent / "notebooks"
Cell = dict[str, Any]
Output = dict[str, Any]


# -- running them --------------------------------------------------------------------------------


def run(notebook: dict[str, Any], name: str) -> list[list[Output]]:
    """The outputs of each cell, those of a cell of prose among them, which has none."""
    import matplotlib

    matplotlib.use("agg")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    return [
        outputs_of("".join(cell["source"]), namespace, f"{name}, cell {i}")
        if cell["cell_type"] == "code"
        else []
        for i, cell in enumerate(notebook["cells"], start=1)
    ]


def outputs_of(source: str, namespace: dict[str, Any], where: str) -> list[Output]:
    """Run a cell as Jupyter does."""
    tree = ast.parse(source, where)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    value = None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, where, "exec"), namespace)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), where, "eval"), namespace)
    found: list[Output] = []
    if text := printed.getvalue():
        found.append({"output_type": "stream", "name": "stdout", "text": lines(text)})
    found += map(picture, left_open())
    if value is not None and not source.rstrip().endswith(";"):
        data = {"text/plain": lines(repr(value))}
        found.append({"output_type": "execute_result", "data": data, "metadata": {}})
    return found


def left_open() -> list[bytes]:
    """The figures of pyplot, drawn and closed: 32 colours, which take a third of the space."""
    import matplotlib.pyplot as plt
    from PIL import Image

    drawn = []
    for number in plt.get_fignums():
        raw, small = io.BytesIO(), io.BytesIO()
        plt.figure(number).savefig(raw, dpi=100)
        Image.open(raw).convert("RGB").quantize(32).save(small, "png", optimize=True)
        drawn.append(small.getvalue())
    plt.close("all")
    return drawn


def picture(png: bytes) -> Output:
    """A picture as the output of a cell."""
    data = {"image/png": base64.b64encode(png).decode()}
    return {"output_type": "display_data", "data": data, "metadata": {}}


def lines(text: str) -> list[str]:
    """Text as notebooks keep it."""
    return text.rstrip("\n").splitlines(keepends=True)


def text_of(outputs: list[Output]) -> str:
    """What a cell's outputs say, but for pictures."""
    texts = ["".join(o.get("text") or o["data"].get("text/plain", [])) for o in outputs]
    return "\n".join(filter(None, texts))


def main() -> None:
    """Run them, and keep what they show."""
    for path in map(Path, sys.argv[1:] or sorted(NOTEBOOKS.glob("*.ipynb"))):
        notebook = json.loads(path.read_text())
        for i, (cell, outputs) in enumerate(
            zip(notebook["cells"], run(notebook, path.name), strict=True), start=1
        ):
            cell |= {"id": f"cell-{i}", "metadata": {}}
            if cell["cell_type"] == "code":
                count = {"execution_count": None}
                kept = [o | count if o["output_type"] == "execute_result" else o for o in outputs]
                cell |= count | {"outputs": kept}
        path.write_text(json.dumps(notebook, indent=1, sort_keys=True) + "\n")


# -- as pages of the site ------------------------------------------------------------------------


def as_markdown(notebook: dict[str, Any]) -> str:
    """Prose as it is; code in fences, with its outputs below."""
    return "\n\n".join(shown(cell) for cell in notebook["cells"]) + "\n"


def shown(cell: Cell) -> str:
    """One cell."""
    source = "".join(cell["source"])
    if cell["cell_type"] != "code":
        return source.replace(".ipynb)", ".md)")  # other notebooks are pages too
    parts = [f"```python\n{source}\n```"]
    if text := text_of(cell["outputs"]):
        parts.append(f"```text\n{text}\n```")
    for output in cell["outputs"]:
        if png := output.get("data", {}).get("image/png"):
            parts.append(f"![Output of the cell above](data:image/png;base64,{''.join(png)})")
    return "\n\n".join(parts)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Each notebook becomes a page; the notebook itself stays beside it, to be downloaded."""
    from mkdocs.structure.files import File

    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        link = f"[This page is a notebook]({path.name}), which you can run and change."
        title, _, rest = as_markdown(json.loads(path.read_text())).partition("\n")
        text = f"{title}\n\n{link}\n{rest}"
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
    return files


if __name__ == "__main__":
    main()
