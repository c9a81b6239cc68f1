"""What a run shows while it runs: a line per case and, if rich is installed, a bar."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from benchmarks.results import CaseResult


class Progress:
    """Counts cases on stderr."""

    def __init__(self, total: int):
        self.total, self.count = total, 0
        self.start = time.perf_counter()
        self.bar: Any = None
        try:
            import rich.console
            import rich.progress
        except ImportError:
            return
        console = rich.console.Console(stderr=True)
        if console.is_terminal:
            columns = rich.progress.Progress.get_default_columns()
            elapsed = rich.progress.TimeElapsedColumn()
            self.bar = rich.progress.Progress(*columns, elapsed, console=console)

    def __enter__(self) -> Progress:
        if self.bar is not None:
            self.bar.start()
            self.task = self.bar.add_task("benchmarks", total=self.total)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, case: CaseResult, what: str) -> None:
        """Report that the `what`, step or eager, of a case is done."""
        self.count += 1
        ratio = case.ratio(what) if case.error is None else None
        outcome = f"{what} ratio {ratio.median:.2f}" if ratio else f"failed: {case.error}"
        elapsed = f"{time.perf_counter() - self.start:4.0f} s"
        done = f"{self.count:{len(str(self.total))}}/{self.total}"
        line = f"{elapsed}  {done}  {case.set:9} {case.recipe:18} {outcome}"
        if self.bar is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self.bar.console.print(line, highlight=False, markup=False)
            self.bar.advance(self.task)
