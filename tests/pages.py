"""Python blocks of Markdown pages: run in order, and held to what they say they print.

A block that begins with ```` ```python ```` is run, and one that begins with
```` ```{.python .notest} ```` is not. A trailing comment `# -> text` says what the statement that
ends on its line prints, or else what its value looks like, or which error it raises
(`# -> ValueError: message`). Further lines of the text stand below as comments `# -> text` of
their own, and `...` stands for anything.
"""

import ast
import contextlib
import io
import re
import sys
import tokenize
import types
from collections.abc import Iterator
from typing import NamedTuple

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


def run_block(block: Block, namespace: dict[str, object], name: str) -> int:
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


@contextlib.contextmanager
def page_module(name: str) -> Iterator[dict[str, object]]:
    """The namespace of a module of its own, so that classes made in it pickle and annotations
    resolve."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    try:
        yield module.__dict__
    finally:
        del sys.modules[name]
