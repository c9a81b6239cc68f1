"""A construction in a notebook: the tree of its parts, with their arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from gradtx.core.value import Value, show, thaw

_STYLE = "margin: 0; padding-left: 1.5em; font-family: monospace"


def as_html(value: Value) -> str:
    """An HTML list."""
    return f'<ul style="{_STYLE}">{_item("", value)}</ul>'


def _item(label: str, value: Value) -> str:
    """A construction, and those among its arguments below it."""
    plain, parts = [], []
    for name, argument in value.arguments.items():
        inside = list(_values(name, thaw(argument)))
        parts += inside
        if not inside:
            plain.append(f"{escape(name)}={escape(show(thaw(argument)))}")
    head = f"{escape(label)}: " if label else ""
    given = f"({', '.join(plain)})" if plain else ""
    below = "".join(_item(label, part) for label, part in parts)
    nested = f'<ul style="{_STYLE}">{below}</ul>' if below else ""
    return f"<li>{head}<b>{escape(value.definition.name)}</b>{given}{nested}</li>"


def _values(label: str, argument: Any) -> Iterator[tuple[str, Value]]:
    """The constructions in an argument, with the words that tell them apart."""
    if isinstance(argument, Value):
        yield label, argument
    elif isinstance(argument, Mapping):
        for key, x in argument.items():
            yield from _values(show(key), x)
    elif isinstance(argument, tuple | list):
        for number, x in enumerate(argument, start=1):
            yield from _values(str(number), x)
