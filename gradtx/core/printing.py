"""How constructions are printed: on one line, over several, and in a notebook."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Protocol, TypeGuard

import jax
import numpy as np

from gradtx.core.dtypes import is_random_key


class Construction(Protocol):
    """What a `Definition` makes."""

    definition: Any

    def _text(self) -> str:
        """The construction on one line, as it is written in Python."""

    def _given(self) -> Mapping[str, Any]:
        """The arguments as they were given."""


def _is_construction(x: Any) -> TypeGuard[Construction]:
    return hasattr(type(x), "_text")


def show(x: Any) -> str:
    """How an argument is printed in a message: numbers as they were written, functions by their
    name."""
    return _shown(x, exact=False)


def code(x: Any) -> str:
    """How an argument is written in Python, so that reading it back gives an equal one."""
    return _shown(x, exact=True)


def _shown(x: Any, *, exact: bool) -> str:
    def shown(x: Any) -> str:
        return _shown(x, exact=exact)

    if isinstance(x, jax.core.Tracer):
        return f"<traced {x.dtype}[{','.join(map(str, x.shape))}]>"
    if isinstance(x, np.ndarray | jax.Array):
        return _array(x) if exact and not is_random_key(x) else _numbers(x)
    if isinstance(x, np.dtype):
        return repr(str(x)) if exact else str(x)
    if isinstance(x, list):
        return f"[{', '.join(map(shown, x))}]"
    if isinstance(x, tuple) and type(x) is tuple:
        inner = ", ".join(map(shown, x))
        return f"({inner},)" if len(x) == 1 else f"({inner})"
    if isinstance(x, dict):
        return "{" + ", ".join(f"{k!r}: {shown(v)}" for k, v in x.items()) + "}"
    if _is_construction(x):
        return x._text()
    if callable(x):
        return getattr(x, "__qualname__", None) or repr(x)
    return repr(x)


def _numbers(x: np.ndarray[Any, Any] | jax.Array) -> str:
    return str(x) if x.ndim == 0 else np.array2string(np.asarray(x), separator=", ")


def _array(x: np.ndarray[Any, Any] | jax.Array) -> str:
    """The array as NumPy's and JAX's `array` take it. If it is long, the middle is left out."""
    text = str(x)
    if x.ndim > 0:
        text = np.array2string(
            np.asarray(x), separator=", ", max_line_width=sys.maxsize, floatmode="unique"
        )
        text = re.sub(r"\s+(?=[],])|(?<=\[)\s+", "", re.sub(r"\s+", " ", text))
    return f"array({text}, {str(x.dtype)!r})"


_WIDTH = 88
_TOKEN = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|.""", re.S)
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
_NAME = re.compile(r"(\w+=|\S+: )?")  # what may stand before an argument or an entry of a dict
_SIGNS = (r" [+-] ", r" [*/] ", r" \*\* ")  # from the loosest to the tightest


def wrapped(text: str, indent: str = "") -> str:
    """A construction, over several lines if it is too long for one: each argument, and each operand
    of arithmetic, on a line of its own."""
    if len(indent) + len(text) < _WIDTH:
        return text
    flat = _flat(text)
    name = _NAME.match(flat)[0]  # type: ignore[index]  # it also matches the empty text
    if operation := _operation(text[len(name) :], indent):
        return text[: len(name)] + operation
    start = re.search(r"[\[({]", flat)
    end = re.search(r"[\])}]", flat)
    if start is None or end is None or flat.endswith("array(", 0, start.end()):
        return text
    before, behind = text[: start.start()], wrapped(text[end.end() :], indent)
    opening, inside, closing = start[0], text[start.end() : end.start()], end[0]
    pieces = _pieces(inside, ",")
    if not inside or (len(pieces) == 1 and re.search(r"(^|\W)\($", flat[: start.end()])):
        # Brackets around an operation: a comma would turn it into a tuple.
        return before + (_operation(inside, indent) or opening + inside + closing) + behind
    inner = indent + "    "
    lines = [inner + wrapped(piece.strip(), inner) + "," for piece in pieces if piece.strip()]
    return "\n".join([before + opening, *lines, indent + closing + behind])


def _operation(text: str, indent: str) -> str:
    """Arithmetic in brackets, one operand per line; empty if the text is not arithmetic."""
    flat, inner = _flat(text), indent + "    "
    for sign in _SIGNS:
        cuts = [found.start() for found in re.finditer(sign, flat)]
        if cuts:
            bounds = zip([0, *cuts], [*cuts, len(text)], strict=True)
            operands = [text[start:end].strip() for start, end in bounds]
            lines = [inner + _signed(operand, sign.strip(), inner) for operand in operands]
            return "\n".join(["(", *lines, indent + ")"])
    return ""


def _signed(operand: str, sign: str, indent: str) -> str:
    """An operand after its sign, if it has one."""
    found = re.match(rf"{sign} ", operand)
    before = found[0] if found else ""
    return before + wrapped(operand[len(before) :], indent)


def _flat(text: str) -> str:
    """The text with a letter for each character that is inside brackets or quotes."""
    flat, depth = [], 0
    for token in _TOKEN.findall(text):
        depth -= token in _CLOSING
        flat.append(token if depth == 0 and len(token) == 1 else "x" * len(token))
        depth += token in _OPENING
    return "".join(flat)


def _pieces(text: str, sign: str) -> list[str]:
    """The text, cut at each sign that is outside brackets and quotes."""
    cuts = [i for i, c in enumerate(_flat(text)) if c == sign]
    bounds = zip([0, *(i + 1 for i in cuts)], [*cuts, len(text)], strict=True)
    return [text[start:end] for start, end in bounds]


_STYLE = "margin: 0; padding-left: 1.5em; font-family: monospace"


def as_html(value: Construction) -> str:
    """An HTML list."""
    return f'<ul style="{_STYLE}">{_item("", value)}</ul>'


def _item(label: str, value: Construction) -> str:
    """A construction, and those among its arguments below it."""
    plain, parts = [], []
    for name, argument in value._given().items():
        inside = list(_values(name, argument))
        parts += inside
        if not inside:
            plain.append(f"{escape(name)}={escape(code(argument))}")
    head = f"{escape(label)}: " if label else ""
    given = f"({', '.join(plain)})" if plain else ""
    below = "".join(_item(label, part) for label, part in parts)
    nested = f'<ul style="{_STYLE}">{below}</ul>' if below else ""
    return f"<li>{head}<b>{escape(value.definition.name)}</b>{given}{nested}</li>"


def _values(label: str, argument: Any) -> Iterator[tuple[str, Construction]]:
    """The constructions in an argument, with the words that tell them apart."""
    if _is_construction(argument):
        yield label, argument
    elif isinstance(argument, Mapping):
        for key, x in argument.items():
            yield from _values(code(key), x)
    elif isinstance(argument, tuple | list):
        for number, x in enumerate(argument, start=1):
            yield from _values(str(number), x)


def a_or_an(noun: str) -> str:
    """A noun with its article."""
    return f"{'an' if noun[:1].lower() in 'aeio' else 'a'} {noun}"


def plural(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
