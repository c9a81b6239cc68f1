"""`gradtx plot`: what it reads, how it arranges it, and what it refuses."""

import json
import math

import numpy as np
import pytest

from gradtx.cli import main
from gradtx.demo.runs import arranged, read_run, running_mean

from .pictures import assert_drawn


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return path


@pytest.fixture
def run(tmp_path):
    rows = [
        {
            "step": 10 * i,
            "loss": 2.0**-i if i != 3 else math.nan,
            "rate/adamw": 0.1 * i,
            "norm/grads": 1.0,
            "norm/grads/a/.*w": 0.0,
            "ratio": 1e-3,
            "ratio/head": 10.0**-i,
            "nonfinite/grads": 0.0,
            "skipped/finite_guard": float(i > 4),
            "adamw.b1": 0.9,
            "note": "text",
        }
        for i in range(8)
    ]
    return write(tmp_path / "run.jsonl", rows)


def test_a_picture_is_drawn_beside_the_run(run, capsys):
    assert main(["plot", str(run)]) == 0
    assert_drawn(run.with_suffix(".png"))
    said = capsys.readouterr().out
    assert "8 reports, steps 0 to 70: loss, rate, norm, ratio, norm/grads, skipped\n" in said
    assert f"wrote {run.with_suffix('.png')}" in said


def test_numbers_are_arranged_by_family_and_group(run):
    steps, numbers = read_run(run)
    assert steps.tolist() == [10 * i for i in range(8)]
    panels = {family: list(lines) for family, lines in arranged(numbers).items()}
    assert panels == {
        "loss": ["all"],
        "rate": ["adamw"],
        "norm": ["grads"],
        "ratio": ["all", "head"],
        "norm/grads": ["a/.*w"],
        "skipped": ["finite_guard"],
    }


def test_one_report_without_a_step_is_drawn(tmp_path):
    run = write(tmp_path / "one.log", [{"loss": 1.0, "norm/grads": math.nan}])
    assert main(["plot", str(run), "--out", str(tmp_path / "x.png")]) == 0
    assert_drawn(tmp_path / "x.png")


def test_the_running_mean_is_of_what_is_finite():
    values = np.arange(40.0)
    values[7] = math.nan
    means = running_mean(values)
    np.testing.assert_allclose(means[[0, 1, 6, 7, 8, 39]], [0, 0.5, 5.5, 6, 8, 38.5])
    assert np.isnan(running_mean(np.full(3, math.nan))).all()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("", "is empty"),
        ('{"a": 1}\n{"a": ', "line 2: this is not JSON"),
        ("[1, 2]", "line 1: not an object"),
        ('{"name": "x"}', "holds no numbers"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(tmp_path, capsys, text, said):
    run = tmp_path / "run.jsonl"
    if text is not None:
        run.write_text(text)
    assert main(["plot", str(run)]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert said in error
