"""What a command says when it cannot go on: one line, and in a construction the place."""

from collections.abc import Iterable

from gradtx.core.reading import did_you_mean


class CommandError(Exception):
    """A request that cannot be met; the message is what the user reads."""


class MissingPackageError(CommandError):
    """A package of the ``demo`` extra is not installed."""

    def __init__(self, command: str, package: str) -> None:
        super().__init__(f"gradtx {command} needs {package}: pip install 'gradtx[demo]'")


def unknown(
    kind: str, name: str, known: Iterable[str], listed_by: str | None = None
) -> CommandError:
    """The error for a name that is not among ``known``: the nearest three of them, and the command
    that lists them, or all of them if there is none."""
    names = list(known)
    hint = did_you_mean(name, names)
    where = f"{listed_by} lists all" if listed_by else f"known: {', '.join(names)}"
    return CommandError(
        f"unknown {kind} {name!r}{': ' if hint else '; '}{hint}{' ' * bool(hint)}{where}"
    )
