"""A construction read from text, `"chain(clip(1.0), adam(1e-3))"`, without evaluating code.

The text is parsed into Python's syntax tree, and only what constructions are written with is given
a meaning: calls of the names that the caller allows, numbers, words, containers, arithmetic on
schedules, `~matching(...)`. This is the form in which values print, so that what was printed can be
read back.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import math
import operator
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gradtx.core.known import FUNCTIONS, AmbiguousNameError
from gradtx.core.mask import matching
from gradtx.core.printing import show
from gradtx.core.schedule import Schedule

Names = Mapping[str, Callable[..., Any]]

_DEEPEST = 50  # constructions inside one another; Python's own stack holds ten times as many
_LONGEST = 100_000  # characters
_SHOWN = 76  # characters of the text around the place of an error

_CONSTANTS = {"inf": math.inf, "nan": math.nan}
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_DTYPES = re.compile(r"(float|bfloat|int|uint|complex)[1-9]\w*", re.ASCII)
_OPERANDS = (Schedule, np.ndarray, jax.Array)
_METHODS = ("clip", "shift")  # of schedules


class ParseError(ValueError):
    """A text that is not a construction; the message shows the place.

    problem: what is wrong, in one line; start, end: the characters of `text` where it is.
    """

    def __init__(self, problem: str, text: str, start: int, end: int):
        super().__init__(problem, text, start, end)
        self.problem, self.text, self.start, self.end = problem, text, start, end

    def __str__(self) -> str:
        begin = max(0, min(self.start - _SHOWN // 4, len(self.text) - _SHOWN))
        shown = self.text[begin : begin + _SHOWN]
        before, behind = "..." * (begin > 0), "..." * (begin + _SHOWN < len(self.text))
        # A line break would separate the marks from what they point at.
        line = "".join(c if c.isprintable() else " " for c in shown)
        marks = max(1, min(self.end, begin + _SHOWN) - self.start)
        indent = " " * (len(before) + self.start - begin)
        return f"{self.problem}\n    {before}{line}{behind}\n    {indent}{'^' * marks}"


def read(text: str, names: Names) -> Any:
    """The value that `text` writes, in which the functions in `names` may be called.

    Raises: TypeError for anything but text; ParseError for a text that is not such a value.
    """
    if not isinstance(text, str):
        raise TypeError(f"a construction is read from text, got {type(text).__name__}")
    text = text.strip()
    if len(text) > _LONGEST:
        raise ParseError(f"longer than {_LONGEST:,} characters", text, 0, 1)
    try:
        return _Reader(text, names).value(_tree(text), depth=0)
    except RecursionError:  # where the caller is deep in the stack already
        raise ParseError("nested too deeply", text, 0, 1) from None


def did_you_mean(name: str, known: Iterable[str], *, near: float = 0.5) -> str:
    """The three nearest of the known names as a question, or nothing if none is near.

    near: the least share of characters that must be alike.
    """
    by_lower = {other.lower(): other for other in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=near)
    *some, last = [by_lower[lower] for lower in found] or [""]
    return f"did you mean {', '.join(some)}{' or ' if some else ''}{last}?" if last else ""


def _tree(text: str) -> ast.expr:
    try:
        with warnings.catch_warnings():  # about backslashes in patterns, which stand for themselves
            warnings.simplefilter("ignore")
            return ast.parse(text, mode="eval").body
    except SyntaxError as error:
        start = _offset(text, error.lineno or 1, max(0, (error.offset or 1) - 1), in_bytes=False)
        what = "there is no text" if not text else f"cannot be read: {error.msg}"
        raise ParseError(what, text, start, start + 1) from None
    except UnicodeEncodeError as error:
        raise ParseError("this character cannot be encoded", text, error.start, error.end) from None
    except ValueError as error:
        raise ParseError(f"cannot be read: {error}", text, 0, 1) from None
    except (RecursionError, MemoryError):
        raise ParseError("nested too deeply", text, 0, 1) from None


def _offset(text: str, line: int, column: int, *, in_bytes: bool) -> int:
    """The position in the text of a line, counted from 1, and a column, counted from 0."""
    # Where Python's parser breaks lines: str.splitlines also breaks at other characters.
    lines = re.split("(?<=\n)|(?<=\r)(?!\n)", text)
    before, last = lines[: line - 1], "".join(lines[line - 1 : line])
    inside = len(last.encode()[:column].decode(errors="ignore")) if in_bytes else column
    return min(sum(map(len, before)) + inside, len(text))


class _Reader:
    """Gives the nodes in the syntax tree of one text their meaning."""

    def __init__(self, text: str, names: Names):
        self.text, self.names = text, names

    def error(self, problem: str, node: ast.expr | ast.keyword) -> ParseError:
        """The error that shows a part of the text."""
        start = _offset(self.text, node.lineno, node.col_offset, in_bytes=True)
        end = _offset(self.text, node.end_lineno or 1, node.end_col_offset or 0, in_bytes=True)
        return ParseError(problem, self.text, start, end)

    def value(self, node: ast.expr, depth: int) -> Any:
        """What a node means."""
        if depth > _DEEPEST:
            raise self.error("nested too deeply", node)
        depth += 1
        match node:
            case ast.Constant(value=bool() | int() | float() | str() | None):
                return node.value
            case ast.Constant(value=value) if value is ...:
                raise self.error("an array that was shortened cannot be read", node)
            case ast.Tuple(elts=items):
                return tuple(self.value(item, depth) for item in items)
            case ast.List(elts=items):
                return [self.value(item, depth) for item in items]
            case ast.Dict():
                return self.dict(node, depth)
            case ast.UnaryOp(operand=operand):
                return self.unary(node, self.value(operand, depth))
            case ast.BinOp(left=left, right=right):
                return self.binary(node, self.value(left, depth), self.value(right, depth))
            case ast.Call():
                return self.call(node, depth)
            case ast.Name() | ast.Attribute():
                return self.word(node, whole=depth == 1)
        raise self.error("this is not part of how constructions are written", node)

    def dict(self, node: ast.Dict, depth: int) -> dict[Any, Any]:
        """A dict by label or pattern."""
        read: dict[Any, Any] = {}
        for key, item in zip(node.keys, node.values, strict=True):
            if key is None:
                raise self.error("** is not read here: write the keys", item)
            label = self.value(key, depth)
            try:
                twice = label in read
            except TypeError:
                raise self.error(f"a key cannot be a {type(label).__name__}", key) from None
            if twice:
                raise self.error(f"the key {show(label)} is given twice", key)
            read[label] = self.value(item, depth)
        return read

    def unary(self, node: ast.UnaryOp, x: Any) -> Any:
        """A number or schedule with its sign, or the leaves that a pattern does not match."""
        match node.op:
            case ast.USub() if _is_number(x) or isinstance(x, Schedule):
                return -x
            case ast.UAdd() if _is_number(x):
                return x
            case ast.Invert() if isinstance(x, matching):
                return ~x
            case ast.Invert():
                raise self.error("~ may only stand before matching('pattern')", node)
            case ast.Not():
                raise self.error("this is not part of how constructions are written", node)
        raise self.error("a sign may only stand before a number or a schedule", node)

    def binary(self, node: ast.BinOp, left: Any, right: Any) -> Schedule:
        """Arithmetic on schedules. Numbers are written, not computed."""
        operate = _OPERATORS.get(type(node.op))
        operands = (left, right)
        known = all(_is_number(x) or isinstance(x, _OPERANDS) for x in operands)
        if operate is None or not known or not any(isinstance(x, Schedule) for x in operands):
            raise self.error(
                "arithmetic is for schedules: + - * / ** with a number or another schedule", node
            )
        return self.made(lambda: operate(left, right), node)

    def word(self, node: ast.Name | ast.Attribute, whole: bool) -> Any:
        """A name that is a value by itself: `inf` or `nan`, a dtype, a function of gradtx's.

        whole: whether it is the whole text.
        """
        name = _dotted(node)
        if name in _CONSTANTS:
            return _CONSTANTS[name]
        if name is not None and (dtype := _dtype(name)) is not None:
            return dtype
        if name is None:
            raise self.error("this is not part of how constructions are written", node)
        if name.removeprefix("gradtx.") in FUNCTIONS:
            return FUNCTIONS[name.removeprefix("gradtx.")]
        if self.called(name, node) is not None:
            raise self.error(f"{name} must be called, {name}(...)", node)
        if whole:
            raise self.unknown(name, node)
        hint = did_you_mean(name, self.names, near=0.8)
        quotes = "words are written in quotes, and functions cannot be read from text"
        raise self.error(f"unknown name {_short(name)}: {hint or quotes}", node)

    def unknown(self, name: str, node: ast.expr) -> ParseError:
        """The error for a name that does not exist."""
        hint = did_you_mean(name, self.names)
        return self.error(f"unknown name {_short(name)}{': ' if hint else ''}{hint}", node)

    def called(self, name: str, node: ast.expr) -> Callable[..., Any] | None:
        """The function of that name, if it may be called."""
        if name == "array":
            return array
        try:
            return self.names.get(name)
        except AmbiguousNameError as error:
            raise self.error(str(error), node) from None

    def call(self, node: ast.Call, depth: int) -> Any:
        """The result of calling an allowed name or a method of a schedule."""
        function = self.function(node.func, depth)
        parameters = inspect.signature(function).parameters
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                raise self.error("* is not read here: write the arguments", argument)
        args = [self.value(argument, depth) for argument in node.args]
        kwargs: dict[str, Any] = {}
        for keyword in node.keywords:
            name = keyword.arg
            if name is None:
                raise self.error("** is not read here: write the arguments", keyword)
            if name not in parameters:
                who = getattr(function, "name", None) or getattr(function, "__name__", "it")
                takes = f"it takes {', '.join(parameters) or 'no arguments'}"
                hint = did_you_mean(name, parameters)
                raise self.error(
                    f"{who} has no argument {_short(name)}: {hint}{' ' * bool(hint)}{takes}",
                    keyword,
                )
            if name in kwargs:
                raise self.error(f"{name} is given twice", keyword)
            kwargs[name] = self.value(keyword.value, depth)
        return self.made(lambda: function(*args, **kwargs), node, tuple(parameters))

    def function(self, node: ast.expr, depth: int) -> Callable[..., Any]:
        """The function that is called."""
        name = _dotted(node)
        if name is not None:
            function = self.called(name, node)
            if function is None:
                raise self.unknown(name, node)
            return function
        if isinstance(node, ast.Attribute):
            of = self.value(node.value, depth)
            if isinstance(of, Schedule) and node.attr in _METHODS:
                method: Callable[..., Any] = getattr(of, node.attr)
                return method
            what = f"those of schedules, {' and '.join(_METHODS)}"
            raise self.error(f"the only methods that can be called are {what}", node)
        raise self.error("only a name can be called", node)

    def made(
        self, make: Callable[[], Any], node: ast.expr, parameters: tuple[str, ...] = ()
    ) -> Any:
        """What `make` returns; its errors are raised with the place in the text."""
        try:
            return make()
        # Whatever is wrong with arguments that were read is an error in the text.
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            place = _blamed(reason, node, parameters) if isinstance(node, ast.Call) else node
            if isinstance(place.value if isinstance(place, ast.keyword) else place, ast.List):
                reason += "; an array is written array([0.1, 0.2], 'float32')"
            raise self.error(reason, place) from error


def _short(name: str) -> str:
    """A name, shortened to what a message can show."""
    return name if len(name) <= 60 else f"{name[:57]}..."


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)


def _dtype(name: str) -> np.dtype[Any] | None:
    """The numeric dtype that prints as this name, or None."""
    if not _DTYPES.fullmatch(name):  # NumPy takes many other words for dtypes
        return None
    try:
        return np.dtype(name)
    except TypeError:
        return None


def _dotted(node: ast.expr) -> str | None:
    """A dotted name such as `torch.adam` as it is written; None for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


def array(object: Any, dtype: DTypeLike | None = None) -> np.ndarray[Any, Any] | jax.Array:
    """An array as values print it. A single number becomes JAX's: NumPy's would become Python's."""
    made = np.array(object)
    if made.dtype.kind not in "biuf":
        raise ValueError(f"array: object must be real numbers, got {show(object)}")
    if dtype is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            cast = made.astype(np.dtype(dtype))
        if cast.dtype.kind in "biu" and np.any(cast != made):
            raise ValueError(f"array: object does not fit into {cast.dtype}, got {show(object)}")
        made = cast
    return made if made.ndim else jnp.asarray(made)


def _blamed(reason: str, node: ast.Call, parameters: tuple[str, ...]) -> ast.expr | ast.keyword:
    """The argument that an error is about, as in `adam: b1 must be in ...`, or else the call."""
    found = re.match(r"[\w.]+: (\w+)", reason)
    word = found[1] if found else ""
    for keyword in node.keywords:
        if keyword.arg == word:
            return keyword
    by_position = dict(zip(parameters, node.args, strict=False))
    return by_position.get(word, node)
