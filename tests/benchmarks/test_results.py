"""Results as JSON, and the tables of the documentation made of them."""

from pathlib import Path

import pytest

from benchmarks.bars import BARS, _judged, bar_rows
from benchmarks.parameters import PARAMETER_SETS
from benchmarks.readme import PAGES, SECTIONS, main, markers
from benchmarks.recipes import RECIPES
from benchmarks.report import full_report
from benchmarks.results import CaseResult, Ratio, Results, Side, newest

ROOT = Path(__file__).parents[2]
START, END = markers("benchmarks")


def side(factor: float) -> Side:
    return Side(
        floor=28,
        bytes=40.004 * factor,
        temps=0.0,
        equations=100,
        equations_expanded=200,
        kernels=12,
        trace_s=[0.1 * factor, 0.1 * factor],
        lower_s=[0.1, 0.1],
        compile_s=[1.0],
        step_s=[factor, 2 * factor, 4 * factor],
        eager_s=[],
    )


def sample(
    platform: str = "cpu", date: str = "2025-01-01T00:00+00:00", factor: float = 0.5
) -> Results:
    device = {"kind": platform, "platform": platform, "processor": "x86", "cores": 2}
    versions = {"python": "3.11.7", "jax": "0.10.2", "jaxlib": "0.10.2", "optax": "0.2.8"}
    cases = [
        CaseResult("gpt2", "adamw", 148, 10**9, "Optax", side(factor), side(1.0), 1e-6),
        CaseResult("gpt2", "sgd", 148, 10**9, error="XlaRuntimeError: out of memory"),
    ]
    command = ["python -m benchmarks"]
    return Results(device, versions, date, command, False, 300.0, 56e9, [56e9], cases)


def test_written_and_read_again(tmp_path):
    path = tmp_path / "results" / "cpu.json"
    sample().write(path)
    read = Results.read(path)
    assert read.good() == sample().good()
    assert read.cases[1].error == sample().cases[1].error
    assert read.cases[1].gradtx.bytes != read.cases[1].gradtx.bytes  # NaN, null in the file


def test_figures():
    (case,) = sample().good()
    assert case.ratio("step") == (0.5,) * 5
    assert case.ratio("trace_lower").median == pytest.approx(0.75)
    assert case.ratio("eager") is None
    assert case.of_bandwidth(case.reference, 56e9) == pytest.approx(28e9 / 2 / 56e9)
    assert sample("NVIDIA H200").file_name == "nvidia-h200-0.10.2.json"


@pytest.mark.parametrize(
    ("count", "least", "most"),
    [(1, 1, 1), (5, 1, 5), (6, 1, 6), (9, 2, 8), (12, 3, 10), (20, 6, 15)],
)
def test_between_which_samples_the_median_lies(count, least, most):
    # Ranks from tables of the sign test at 5%.
    ratio = Ratio.of([float(rank) for rank in range(count, 0, -1)])
    assert (ratio.least, ratio.most) == (least, most)
    assert ratio.median == (count + 1) / 2


def test_a_bar_within_what_is_certain():
    rows = [_judged(1.02, 1.0, Ratio.of([1.02] * 5 + [0.99] * count)) for count in (1, 4)]
    assert [row[-1] for row in rows] == ["cannot be told", "cannot be told"]
    assert _judged(1.02, 1.0, Ratio.of([1.02] * 9 + [0.99]))[-1] == "no"


def test_bars_stand_next_to_what_was_measured():
    rows = {(row[0], row[2]): row for row in bar_rows(sample())}
    assert rows["AdamW", "step, gradtx / Optax"][3:] == ["<= 1.05", "0.50", "0.50 .. 0.50", "yes"]
    assert rows["AdamW", "bytes a parameter"][3:] == ["<= 40", "20.00", "", "yes"]
    slow = {(row[0], row[2]): row for row in bar_rows(sample(factor=2.0))}
    assert slow["AdamW", "step, gradtx / Optax"][-1] == "no"
    assert bar_rows(sample("gpu")) == []


def test_bars_name_what_there_is():
    assert {bar.recipe for bar in BARS} <= set(RECIPES)
    assert {bar.set for bar in BARS} <= set(PARAMETER_SETS)


def test_a_failure_is_in_the_report():
    assert "failed: gpt2 sgd: XlaRuntimeError: out of memory" in full_report(sample())


def test_joining_keeps_what_was_not_measured_again():
    later = sample(factor=0.25)
    del later.cases[1]
    joined = later.join(sample())
    assert [(case.recipe, case.error is None) for case in joined.cases] == [
        ("sgd", False),
        ("adamw", True),
    ]
    assert joined.cases[1].gradtx == side(0.25)
    with pytest.raises(ValueError, match="device"):
        later.join(sample("gpu"))


def test_newest_of_each_device(tmp_path):
    sample("gpu").write(tmp_path / "gpu.json")
    sample(date="2025-01-01T00:00+00:00").write(tmp_path / "b.json")
    sample(date="2025-02-01T00:00+00:00").write(tmp_path / "a.json")
    found = newest(tmp_path, Results)
    assert [(r.device["platform"], r.date[:7]) for r in found] == [
        ("cpu", "2025-02"),
        ("gpu", "2025-01"),
    ]


def test_the_page_is_generated_and_checked(tmp_path, capsys):
    results, page = tmp_path / "results", tmp_path / "page.md"
    sample().write(results / "cpu.json")
    page.write_text(f"# Title\n\nBefore.\n\n{START}\nold\n{END}\n\nAfter.\n")
    arguments = ["--page", str(page), "--results", str(results)]
    assert main([*arguments, "--check"]) == 1
    assert main(arguments) == 0
    text = page.read_text()
    assert text.startswith("# Title\n\nBefore.\n")
    assert text.endswith("\n\nAfter.\n")
    assert "old" not in text
    assert "| AdamW | 0.50 |" in text
    assert "GPT-2 124M" in text
    assert main([*arguments, "--check"]) == 0
    sample(factor=0.6).write(results / "cpu.json")
    assert main([*arguments, "--check"]) == 1
    assert "page.md" in capsys.readouterr().err


def test_a_page_without_markers_is_refused(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("# Title\n")
    assert main(["--page", str(page), "--results", str(tmp_path)]) == 2
    assert START in capsys.readouterr().err
    assert page.read_text() == "# Title\n"


def test_docs_have_what_the_results_give(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = "".join(page.read_text() for page in PAGES)
    assert all(marker in text for section in SECTIONS for marker in markers(section))
    assert "No results yet" not in text
    assert main(["--check"]) == 0
