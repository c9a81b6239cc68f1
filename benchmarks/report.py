"""Tables of results, as text and as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from benchmarks.bars import HEADER, bar_rows
from benchmarks.parameters import PARAMETER_SETS
from benchmarks.recipes import RECIPES
from benchmarks.results import CaseResult, Results, Side

Rows = Sequence[Sequence[str]]

CASE_HEADER = [
    "parameters", "recipe", "step ms", "ratio", "quartiles", "of copy", "bytes", "floor", "temps",
    "trace+lower s", "ratio", "compile s", "ratio", "equations", "expanded", "loops", "eager ms",
    "ratio",
]  # fmt: skip

LEGEND = """\
Two numbers with a slash are gradtx / Optax, each library's median; a ratio is the median of the
ratios of neighbouring timings. step: update and apply_updates, jitted, parameters and state
donated. of copy: the share of the measured copy bandwidth that a step would reach if it moved only
the floor's bytes. bytes, floor, temps: accessed by the compiled program, unavoidable, and
temporary, each per parameter. equations: of the traced program, inner ones once; expanded: at each
use. loops: what the optimized program runs one after the other, on GPU its kernels. eager: the
step outside of jit."""


def text_table(header: Sequence[str], rows: Rows) -> str:
    """Aligned columns: words flush left, figures flush right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), line(["-" * w for w in widths]), *map(line, rows)])


def markdown_table(header: Sequence[str], rows: Rows) -> str:
    """A table as Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def case_row(case: CaseResult) -> list[str]:
    """The first columns, which are shown while running too."""
    return [PARAMETER_SETS[case.set].title, RECIPES[case.recipe].title]


def case_rows(results: Results) -> list[list[str]]:
    """Everything, one row per case."""
    return [case_row(case) + _figures(case, results.copy_bandwidth) for case in results.good()]


def _figures(case: CaseResult, bandwidth: float) -> list[str]:
    step, sides = case.ratio("step"), case.sides
    return [
        _both(case, "step", 1e3),
        f"{step.median:.2f}" if step else "",
        f"{step.low:.2f} .. {step.high:.2f}" if step else "",
        stroke(f"{case.of_bandwidth(s, bandwidth):.2f}" for s in sides),
        stroke(f"{s.bytes:.1f}" for s in sides),
        f"{case.gradtx.floor:g}",
        stroke(f"{s.temps:.2f}" for s in sides),
        _both(case, "trace_lower"),
        ratio_text(case, "trace_lower"),
        _both(case, "compile"),
        ratio_text(case, "compile"),
        stroke(str(s.equations) for s in sides),
        stroke(str(s.equations_expanded) for s in sides),
        stroke(str(s.kernels) for s in sides),
        _both(case, "eager", 1e3),
        ratio_text(case, "eager"),
    ]


def stroke(texts: Iterable[str]) -> str:
    """gradtx's figure and Optax's, with a slash between them."""
    return " / ".join(texts)


def ratio_text(case: CaseResult, what: str) -> str:
    """The median ratio, or nothing if it was not measured."""
    ratio = case.ratio(what)
    return f"{ratio.median:.2f}" if ratio else ""


def _both(case: CaseResult, what: str, unit: float = 1.0) -> str:
    def median(side: Side) -> str:
        return f"{unit * statistics.median(side.times(what)):.3g}"

    return stroke([median(case.gradtx), median(case.reference)]) if case.gradtx.times(what) else ""


def headline(results: Results) -> str:
    """The device and the versions in one line."""
    device, versions = results.device, results.versions
    kind = "CPU" if device["platform"] == "cpu" else device["kind"]
    numbers = ", ".join(f"{name} {version}" for name, version in versions.items())
    quick = "tiny sizes, whose times mean nothing; " if results.quick else ""
    return (
        f"{quick}{kind}: {device['processor']}, {device['cores']} cores; {numbers}; "
        f"copy bandwidth {results.copy_bandwidth / 1e9:.3g} GB/s; {results.date[:10]}"
    )


def full_report(results: Results) -> str:
    """What a run prints at the end."""
    parts = [headline(results), text_table(CASE_HEADER, case_rows(results)), LEGEND]
    if bars := bar_rows(results):
        parts.append(text_table(HEADER, bars))
    if failed := [case for case in results.cases if case.error is not None]:
        parts.append(
            "\n".join(f"failed: {case.set} {case.recipe}: {case.error}" for case in failed)
        )
    return "\n\n".join(parts)
