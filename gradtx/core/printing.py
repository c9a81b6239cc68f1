"""How constructions are printed: in a line, over several, and in a notebook."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Protocol, TypeGuard

import jax
import numpy as np


class Construction(Protocol):
    """What a `Definition` makes."""

    definition: Any

    def _text(self) -> str:
        """The construction in one line, as it is written in Python."""

    def _given(self) -> Mapping[str, Any]:
        """The arguments as they were given."""


def _is_construction(x: Any) -> TypeGuard[Construction]:
    return hasattr(type(x), "_text")


def show(x: Any) -> str:
    """How an argument is printed: numbers as they were written, functions by their name."""
    if isinstance(x, jax.core.Tracer):
        return f"<traced {x.dtype}[{','.join(map(str, x.shape))}]>"
    if isinstance(x, np.ndarray | jax.Array):
        return str(x) if x.ndim == 0 else np.array2string(np.asarray(x), separator=", ")
    if isinstance(x, np.dtype):
        return str(x)
    if isinstance(x, list):
        return f"[{', '.join(map(show, x))}]"
    if isinstance(x, tuple) and type(x) is tuple:
        inner = ", ".join(map(show, x))
        return f"({inner},)" if len(x) == 1 else f"({inner})"
    if isinstance(x, dict):
        return "{" + ", ".join(f"{k!r}: {show(v)}" for k, v in x.items()) + "}"
    if _is_construction(x):
        return x._text()
    if callable(x):
        return getattr(x, "__qualname__", None) or repr(x)
    return repr(x)


_WIDTH = 88
_TOKEN = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|.""", re.S)
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")


def wrapped(text: str, indent: str = "") -> str:
    """A construction over several lines where it is too long for one: each argument on its own."""
    if len(indent) + len(text) < _WIDTH:
        return text
    pieces, depth = [""], 0  # what stands before the first bracket, then what it encloses
    for token in _TOKEN.findall(text):
        depth -= token in _CLOSING
        if depth == 0 and len(pieces) > 1:
            pieces.append(token)  # the last bracket, or an operation on what was enclosed
        elif depth == 0 and token in _OPENING:
            pieces = [pieces[0] + token, ""]
        elif depth == 1 and token == ",":
            pieces.append("")
        else:
            pieces[-1] += token
        depth += token in _OPENING
    head, *arguments, last = pieces
    if last not in _CLOSING or any(piece in _CLOSING for piece in arguments):
        return text
    if not re.search(r"(\w|^|=|: |, )$", head[:-1]):
        return text  # brackets around an operation
    inner = indent + "    "
    lines = [inner + wrapped(piece.strip(), inner) + "," for piece in arguments if piece.strip()]
    return "\n".join([head, *lines, indent + last])


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
            plain.append(f"{escape(name)}={escape(show(argument))}")
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
            yield from _values(show(key), x)
    elif isinstance(argument, tuple | list):
        for number, x in enumerate(argument, start=1):
            yield from _values(str(number), x)


def a_or_an(noun: str) -> str:
    """A noun with its article."""
    return f"{'an' if noun[:1].lower() in 'aeio' else 'a'} {noun}"
