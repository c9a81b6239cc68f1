"""What a command says when it cannot go on: one line, exit code 2."""

from collections.abc import Iterable
from difflib import get_close_matches


class CommandError(Exception):
    """A request that cannot be met; the message is the line that the user reads."""


class MissingPackageError(CommandError):
    """A package of the ``demo`` extra is not installed."""

    def __init__(self, command: str, package: str) -> None:
        super().__init__(f"gradtx {command} needs {package}: pip install 'gradtx[demo]'")


def unknown(kind: str, name: str, known: Iterable[str]) -> CommandError:
    """The error for a name that is not among ``known``, which it lists."""
    names = list(known)
    close = get_close_matches(name, names, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return CommandError(f"unknown {kind} {name!r}{hint}; known: {', '.join(names)}")
