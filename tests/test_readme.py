"""The README's Python blocks run, in order, and print what they say they print.

A block that begins with ```` ```python ```` is run; one that begins with ```` ```python notest ````
is not. A trailing comment `# -> text` says what the statement that ends on its line prints, or
else what its value looks like, or which error it raises (`# -> ValueError: message`). Further
lines of the text stand below as comments `# -> text` of their own, and `...` stands for anything.
"""

import ast
import contextlib
import io
import re
import subprocess
import sys
import tokenize
import types
from pathlib import Path
from typing import NamedTuple

import pytest

README = Path(__file__).parents[1] / "README.md"
FENCE = re.compile(r"^```python[ \t]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    line: int  # of its first line of code, counted from 1
    code: str


def blocks(markdown: str) -> list[Block]:
    """The blocks that are to be run."""
    return [
        Block(markdown.count("\n", 0, match.start(1)) + 1, match[1])
        for match in FENCE.finditer(markdown)
    ]


def promises(code: str) -> dict[int, str]:
    """The texts of the comments `# -> text`, by the line of code that they speak of."""
    found: dict[int, list[str]] = {}
    owner = last = 0
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type != tokenize.COMMENT or not token.string.startswith("# ->"):
            continue
        line = token.start[0]
        if not token.line.lstrip().startswith("#"):
            owner = line
        elif line - 1 != last:
            owner = line - 1  # alone, below a statement that has no comment of its own
        last = line
        found.setdefault(owner, []).append(token.string.removeprefix("# ->").strip())
    return {line: "\n".join(texts) for line, texts in found.items()}


def run_statement(statement: ast.stmt, namespace: dict[str, object], name: str) -> str:
    """Run it; what it printed, or else the repr of its value."""
    value: object = None
    with contextlib.redirect_stdout(io.StringIO()) as output:
        if isinstance(statement, ast.Expr):
            value = eval(compile(ast.Expression(statement.value), name, "eval"), namespace)
        else:
            exec(compile(ast.Module([statement], []), name, "exec"), namespace)
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                value = namespace[statement.targets[0].id]
    return output.getvalue().rstrip("\n") or repr(value)


def matches(promised: str, shown: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in promised.split("..."))
    return re.fullmatch(pattern, shown, re.DOTALL) is not None


def run_block(block: Block, namespace: dict[str, object], name: str = "README.md") -> int:
    """Run a block; how many promises it kept. A broken one is an AssertionError that names it."""
    code = "\n" * (block.line - 1) + block.code
    expected = promises(code)
    kept = 0
    for statement in ast.parse(code, name).body:
        promised = expected.pop(statement.end_lineno or 0, None)
        cause = None
        try:
            shown = run_statement(statement, namespace, name)
        except Exception as error:
            shown, cause = f"{type(error).__name__}: {error}", error
        if promised is None and cause is None:
            continue
        if promised is None or not matches(promised, shown):
            problem = f"{name}:{statement.lineno}\nshown:    {shown}\npromised: {promised}"
            raise AssertionError(problem) from cause
        kept += 1
    if expected:
        raise AssertionError(f"{name}: no statement ends at {expected}")
    return kept


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, object]:
    """A module of its own, so that classes made in it pickle and annotations resolve."""
    module = types.ModuleType("readme")
    monkeypatch.setitem(sys.modules, "readme", module)
    monkeypatch.chdir(tmp_path)
    return module.__dict__


def test_readme(namespace: dict[str, object]) -> None:
    for block in blocks(README.read_text()):
        run_block(block, namespace)


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
    assert [run_block(block, namespace) for block in blocks(SAMPLE)] == [3, 3]
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
        run_block(Block(1, code), {})
    assert message in str(caught.value)
