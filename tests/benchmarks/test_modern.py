"""`python -m benchmarks.modern`: its table, its mean over a period, and what it keeps."""

import json

import pytest

from benchmarks import modern
from benchmarks.modern import MODERN, amortised, cells, main, tables

ROW = {
    "set": "blocks",
    "layers": 1,
    "recipe": "soap",
    "period": 10,
    "state": 24.0,
    "bytes": 400.0,
    "temporary": 2.0,
    "kernels": 30,
    "quiet": [100.0, 10],
    "due": [300.0, 20],
    "seconds": 3.0,
}


def test_the_mean_over_a_period():
    assert amortised(ROW) == pytest.approx((9 * 100 + 300) / 10)


def test_a_step_with_rare_work_shows_both():
    assert cells(ROW)[1:] == ["24.0", "100.0", "300", "120", "2.0", "10 / 20", "3"]
    always = ROW | {"recipe": "adamw", "period": 1}
    assert cells(always)[1:] == ["24.0", "400.0", "", "", "2.0", "30", "3"]


def test_what_was_given_up_says_so():
    row = {name: ROW[name] for name in ("set", "layers", "recipe", "period", "state")}
    assert "not compiled in 5 s" in tables([row | {"error": "not compiled in 5 s"}])


def test_writes_and_keeps(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(modern, "FOLDER", tmp_path)
    for names in ("adamw,adam_mini", "laprop,adamw"):
        assert main(["--recipes", names, "--set", "squares", "--layers", "1"]) == 0
    data = json.loads((tmp_path / "modern" / "cpu.json").read_text())
    assert [row["recipe"] for row in data["rows"]] == ["adamw", "laprop", "adam_mini"]
    assert data["command"].count("benchmarks.modern") == 2
    assert "| AdamW | 8.0 | 40.0 |" in capsys.readouterr().out


def test_every_recipe_is_built():
    for one in MODERN.values():
        assert one.build().init  # the arguments are checked
