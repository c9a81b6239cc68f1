"""What the project demands of itself on CPU, beside what was measured."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.parameters import PARAMETER_SETS
from benchmarks.recipes import RECIPES
from benchmarks.results import CaseResult, Ratio, Results

# The names of measures in a table; bytes and temps are gradtx's own, the others gradtx / Optax.
MEASURES = {
    "step": "step, gradtx / Optax",
    "bytes": "bytes a parameter",
    "temps": "temporary bytes a parameter",
    "trace_lower": "trace + lower, gradtx / Optax",
    "compile": "compile, gradtx / Optax",
    "eager": "step outside of jit, gradtx / Optax",
}


@dataclass(frozen=True)
class Bar:
    """At most `limit` for a measure of a case."""

    recipe: str
    set: str
    measure: str
    limit: float


BARS = (
    Bar("clip_adamw_cosine", "gpt2", "step", 0.6),
    Bar("clip_adamw_cosine", "gpt2", "bytes", 46),
    Bar("clip_adamw_cosine", "gpt2", "temps", 0.1),
    Bar("adamw", "gpt2", "step", 1.05),
    Bar("sgd", "gpt2", "step", 1.05),
    Bar("momentum", "gpt2", "step", 1.05),
    Bar("adamw", "gpt2", "bytes", 40),
    Bar("clip_adamw_cosine", "gpt2", "trace_lower", 0.4),
    Bar("clip_adamw_cosine", "matrices", "trace_lower", 0.4),
    Bar("adamw", "gpt2", "trace_lower", 0.5),
    Bar("adamw", "matrices", "trace_lower", 0.5),
    Bar("clip_adamw_cosine", "matrices", "compile", 0.8),
    Bar("accumulate_8", "gpt2", "step", 0.3),
    Bar("accumulate_8", "gpt2", "temps", 4),
    Bar("adamw", "mlp", "eager", 0.35),
    Bar("adamw", "resnet50", "eager", 0.35),
    Bar("adamw", "matrices", "eager", 0.35),
    Bar("lamb", "gpt2", "step", 1.05),
    Bar("lion", "gpt2", "step", 1.05),
    Bar("adafactor", "gpt2", "step", 1.05),
    Bar("partition_2", "gpt2", "step", 1.05),
    Bar("partition_12", "gpt2", "step", 1.05),
    Bar("partition_12", "gpt2", "trace_lower", 0.5),
    Bar("if_finite", "gpt2", "step", 1.05),
    Bar("averaged", "gpt2", "step", 1.05),
    Bar("muon", "blocks", "step", 0.8),
    Bar("muon", "blocks", "compile", 0.3),
)


def judged(case: CaseResult) -> set[str]:
    """The measures of a case that a bar is set for."""
    return {bar.measure for bar in BARS if (bar.set, bar.recipe) == (case.set, case.recipe)}


HEADER = ["recipe", "parameters", "measure", "bar", "measured", "95% interval", "met"]


def bar_rows(results: Results) -> list[list[str]]:
    """A row per bar whose case was measured; on CPU only."""
    if results.quick or results.device["platform"] != "cpu":
        return []
    rows = []
    for bar in BARS:
        value, ratio = _value(results, bar)
        if value is not None:
            titles = [RECIPES[bar.recipe].title, PARAMETER_SETS[bar.set].title]
            rows.append([*titles, MEASURES[bar.measure], *_judged(value, bar.limit, ratio)])
    return rows


def _judged(value: float, limit: float, ratio: Ratio | None = None) -> list[str]:
    """Judged as printed, to two decimals. A timing that misses its bar by less than its uncertainty
    is told apart from one that clearly misses it."""
    met = "yes" if round(value, 2) <= limit else "no"
    if ratio and met == "no" and round(ratio.least, 2) <= limit:
        met = "cannot be told"
    interval = f"{ratio.least:.2f} .. {ratio.most:.2f}" if ratio else ""
    return [f"<= {limit:g}", f"{value:.2f}", interval, met]


def _value(results: Results, bar: Bar) -> tuple[float | None, Ratio | None]:
    for case in results.good():
        if (case.set, case.recipe) == (bar.set, bar.recipe):
            if bar.measure in ("bytes", "temps"):
                return float(getattr(case.gradtx, bar.measure)), None
            ratio = case.ratio(bar.measure)
            return (ratio.median if ratio else None), ratio
    return None, None
