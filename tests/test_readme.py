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


def test_every_name_of_the_readme_is_there() -> None:
    """In a process that has imported gradtx alone: gradtx.NAME, and the table of what there is."""
    text = README.read_text()
    dotted = set(re.findall(r"\bgradtx((?:\.[a-z_]\w*)+)", text)) - {".egg"}
    table = text.split("## What is there")[1].split("\n\n")[2]
    listed = set(re.findall(r"`\*{0,2}([a-zA-Z_]\w*)`", table))
    assert {".tree", ".inspection", ".interop", ".torch"} <= dotted
    assert len(listed) > 100
    code = f"""
import operator, gradtx
for name in {sorted(dotted)!r}:
    operator.attrgetter(name[1:])(gradtx)
for name in {sorted(listed)!r}:
    assert hasattr(gradtx, name) or hasattr(gradtx.torch, name), name
assert {{"tree", "inspection", "interop", "torch", "schedules"}} <= set(dir(gradtx))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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

```python notest
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
