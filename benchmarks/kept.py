"""Figures that are kept on disk: a compiler makes the same of the same program, and takes long."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

# What else decides on the figures of a program: how it is compiled, and how they are counted.
_FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
_COUNTED_BY = [Path(__file__).with_name(name) for name in ("compiler.py", "hlo.py")]


def key_of(lowered: jax.stages.Lowered, target: str, versions: Mapping[str, str]) -> str:
    """What tells a program's figures from those of others: its text, its compiler, and how these
    files count."""
    flags = [os.environ.get(name, "") for name in _FLAGS]
    sources = [path.read_text() for path in _COUNTED_BY]
    told = json.dumps([lowered.as_text(), target, dict(versions), flags, sources], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def kept(folder: Path, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was made for this key once, read from the folder; otherwise made and written there."""
    path = folder / f"{key}.json"
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    made = make()
    beside = path.with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps(made))
    beside.replace(path)  # at once: another process may read it
    return made
