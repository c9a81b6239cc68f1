"""The README's Python blocks print what they say they print, and the names in it are there."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pages import Block, blocks, page_module, run_block

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, object]]:
    monkeypatch.chdir(tmp_path)
    with page_module("readme") as names:
        yield names


def test_readme(namespace: dict[str, object]) -> None:
    for block in blocks(README.read_text()):
        run_block(block, namespace, "README.md")


def test_every_name_is_there() -> None:
    """Each gradtx.NAME of README and documentation, in a process that imported gradtx alone."""
    pages = [README, *(README.parent / "docs").rglob("*.md")]
    text = re.sub(r"https?://\S+", "", "\n".join(page.read_text() for page in pages))
    dotted = set(re.findall(r"(?<![\w/-])gradtx((?:\.[a-z_]\w*)+)(?!\w*/)", text))
    assert len(dotted) > 100
    assert {".tree.get", ".inspection.describe", ".torch.adam"} <= dotted
    code = f"""
import operator, gradtx
for name in {sorted(dotted)!r}:
    operator.attrgetter(name[1:])(gradtx)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_readme_is_short() -> None:
    assert len(README.read_text().split()) <= 1000


SAMPLE = """
Text, and `code`.

```python
import gradtx

tx = gradtx.sgd(0.1)
tx.learning_rate  # -> 0.1
print(tx)  # -> sgd(learning_rate=0.1, ...)
two = 1 + 1  # -> 2
```

```bash
exit 1
```

```{.python .notest}
raise SystemExit
```

```python
"#  -> not a comment"
gradtx.sgd(
    two
).learning_rate  # -> 2
gradtx.sgd(-1)  # -> ValueError: sgd: learning_rate must be finite and >= 0, got -1
for i in range(2):
    print(i)
# -> 0
# -> 1
```
"""


def test_the_extractor_takes_python_blocks_only() -> None:
    first, second = blocks(SAMPLE)
    assert first.line == 5
    assert first.code.startswith("import gradtx\n")
    assert second.code.startswith('"#  ->')
    assert SAMPLE.splitlines()[second.line - 1].startswith('"#  ->')


def test_the_extractor_runs_blocks_in_one_namespace(namespace: dict[str, object]) -> None:
    assert [run_block(block, namespace, "README.md") for block in blocks(SAMPLE)] == [3, 3]
    assert namespace["two"] == 2


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("1 + 1  # -> 3", "README.md:1\nshown:    2\npromised: 3"),
        ("print(1)  # -> 2", "shown:    1"),
        ("1 / 0", "README.md:1\nshown:    ZeroDivisionError: division by zero"),
        ("1 / 0  # -> 0", "shown:    ZeroDivisionError"),
        ("f = (1,  # -> 1\n     2)", "no statement ends at {1: '1'}"),
        ("# -> 1\n1", "no statement ends at {0: '1'}"),
        ("1  # -> 1\n# -> 2", "promised: 1\n2"),
    ],
)
def test_the_extractor_says_what_is_wrong(code: str, message: str) -> None:
    with pytest.raises(AssertionError) as caught:
        run_block(Block(1, code), {}, "README.md")
    assert message in str(caught.value)
