"""`python -m benchmarks` on tiny sizes; nothing here looks at a time."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import main

ROOT = Path(__file__).parents[2]


def benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def quick(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[subprocess.CompletedProcess[str], Path]:
    path = tmp_path_factory.mktemp("results") / "quick.json"
    ran = benchmarks("--quick", "--recipes", "adamw", "--sets", "mlp", "--json", str(path))
    assert ran.returncode == 0, ran.stderr
    return ran, path


def test_writes_raw_timings_and_medians(quick):
    _, path = quick
    data = json.loads(path.read_text())
    assert data["quick"] is True
    assert data["device"]["platform"] == "cpu"
    assert set(data["versions"]) == {"python", "jax", "jaxlib", "optax", "gradtx"}
    assert data["copy_bandwidth"] > 0
    (case,) = data["cases"]
    assert (case["set"], case["recipe"], case["error"]) == ("mlp", "adamw", None)
    for library in ("gradtx", "reference"):
        side = case[library]
        assert side["bytes"] > side["floor"]
        assert 0 < side["equations"] <= side["equations_expanded"]
        assert side["kernels"] > 0
        for what in ("trace", "lower", "compile", "step", "eager"):
            assert all(seconds > 0 for seconds in side[f"{what}_s"])
            assert case["summary"][library][f"{what}_s"] > 0
    assert case["summary"]["ratios"]["step"]["median"] > 0


def test_says_where_it_ran_but_not_on_whose_machine(quick):
    _, path = quick
    data = json.loads(path.read_text())
    assert data["commands"] == [
        "python -m benchmarks --quick --recipes adamw --sets mlp --json quick.json"
    ]
    assert str(path.parent) not in path.read_text()


def test_prints_a_table_and_draws(quick):
    ran, path = quick
    assert "RL-sized MLP" in ran.stdout
    assert "AdamW" in ran.stdout
    assert "1/2" in ran.stderr  # progress
    assert path.with_suffix(".png").stat().st_size > 1000
    assert not path.with_suffix(".partial").exists()


def test_shows_results_that_are_there(quick):
    ran, path = quick
    shown = benchmarks("--show", str(path))
    assert shown.returncode == 0
    assert without_digits(shown.stdout) in without_digits(ran.stdout)


def without_digits(text: str) -> str:
    """What is written keeps fewer digits, which may round to another last one."""
    return " ".join(re.sub(r"[\d.e+-]+", "", text).split())


def test_appends(quick, tmp_path):
    path = tmp_path / "joined.json"
    path.write_text(quick[1].read_text())
    measured = added(path, ["sgd", "muon"])
    assert measured == [("mlp", "adamw"), ("mlp", "sgd"), ("blocks", "muon")]


@pytest.mark.slow
def test_both_libraries_do_the_same_work_in_all_recipes(quick, tmp_path):
    from benchmarks.recipes import RECIPES

    path = tmp_path / "joined.json"
    path.write_text(quick[1].read_text())
    others = [recipe for recipe in RECIPES if recipe != "adamw"]
    on_mlp = [recipe for recipe in others if "mlp" in RECIPES[recipe].sets]
    assert added(path, others) == [
        *(("mlp", recipe) for recipe in ["adamw", *on_mlp]),
        ("blocks", "muon"),
    ]


def added(path: Path, recipes: list[str]) -> list[tuple[str, str]]:
    """What is in the file after these were measured too, in which both libraries agree."""
    only = ("--recipes", ",".join(recipes), "--sets", "mlp,blocks")
    ran = benchmarks("--quick", *only, "--json", str(path), "--append")
    assert ran.returncode == 0, ran.stderr
    data = json.loads(path.read_text())
    assert len(data["commands"]) == 2
    for case in data["cases"]:
        assert math.isfinite(case["difference"])
        assert case["difference"] < 1e-3, case["recipe"]
    return [(case["set"], case["recipe"]) for case in data["cases"]]


@pytest.mark.parametrize("option", ["recipes", "sets"])
def test_unknown_names_list_the_known_ones(option, capsys):
    with pytest.raises(SystemExit) as ended:
        main([f"--{option}", "nonsense"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "nonsense" in said
    assert {"recipes": "clip_adamw_cosine", "sets": "resnet50"}[option] in said


def test_lists(capsys):
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    for name in ("adamw", "gpt2", "148 leaves, 124,439,808 parameters", "gpu only", "device"):
        assert name in listed


def test_a_set_for_another_device_is_left_out():
    ran = benchmarks("--sets", "llama1b", "--device", "cpu")
    assert ran.returncode == 1
    assert "gpu only" in ran.stderr
