"""What the command lines have in common."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Collection, Sequence
from pathlib import Path


def names(kind: str, known: Collection[str]) -> Callable[[str], list[str]]:
    """A parser of comma-separated known names."""

    def parse(text: str) -> list[str]:
        given = [name.strip() for name in text.split(",") if name.strip()]
        if unknown := [name for name in given if name not in known]:
            raise argparse.ArgumentTypeError(
                f"unknown {kind} {', '.join(unknown)}; known: {', '.join(known)}"
            )
        return [name for name in known if name in given]

    return parse


def command(module: str, arguments: Sequence[str]) -> str:
    """The command as typed, without folders of this machine."""
    shown = [Path(word).name if word.startswith("/") else word for word in arguments]
    return shlex.join(["python", "-m", module, *shown])
