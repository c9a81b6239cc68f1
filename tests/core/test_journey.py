"""How far a reader, and Python, has to go for one update."""

import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp

import gradtx

ROOT = str(Path(gradtx.__file__).parent)


def journey(tx: Any) -> tuple[int, int, int]:
    """Calls of the library's functions in tracing one update of one leaf, moves between its files,
    and the files."""
    params = {"w": jnp.ones((3, 4))}
    state = tx.init(params)
    way: list[str] = []
    calls: Counter[str] = Counter()
    moves = 0

    def watch(frame: FrameType, event: str, _: Any) -> None:
        nonlocal moves
        file = frame.f_code.co_filename
        if not file.startswith(ROOT):
            return
        if event == "call":
            calls[file] += 1
            moves += bool(way) and way[-1] != file
            way.append(file)
        elif event == "return" and way:
            way.pop()

    step = jax.jit(lambda *given: tx.update(*given))
    sys.setprofile(watch)
    try:
        step.trace(params, state, params)
    finally:
        sys.setprofile(None)
    return sum(calls.values()), moves, len(calls)


def test_the_journey_of_an_update_is_short() -> None:
    """Once the traces of the compiled parts, which are shared, are there."""
    tx = gradtx.adamw(1e-3)
    for _ in range(2):  # what a definition says of itself is found once in a process
        jax.clear_caches()
        calls, moves, files = journey(tx)
    assert calls <= 265
    assert moves <= 107
    assert files <= 22
