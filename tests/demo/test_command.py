"""The command as a user runs it: in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gradtx
from gradtx.demo.road import ROAD

from .pictures import assert_drawn

_ROOT = Path(gradtx.__file__).parents[1]


@pytest.fixture
def command(tmp_path):
    def run(*words):
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        return subprocess.run(
            [sys.executable, "-m", "gradtx", *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def test_compare_prints_a_table_and_draws_the_curves(command, tmp_path):
    done = command(
        "compare", "--steps", "5", "--optimizers", "sgd,adamw", "--seeds", "0,1", "--out", "c.png"
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows if row and row[0] in ROAD] == ["sgd", "adamw"]
    for word in ("accuracy", "steps/s", "compile", "difference", "2 seeds"):
        assert word in done.stdout
    assert_drawn(tmp_path / "c.png")


def test_an_unknown_optimizer_is_one_line_that_lists_the_known_ones(command, tmp_path):
    done = command("compare", "--optimizers", "sgd,adamm")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "'adamm'" in done.stderr
    assert all(name in done.stderr for name in ROAD)
    assert not list(tmp_path.iterdir())


def test_schedule_prints_and_draws_values(command, tmp_path):
    done = command(
        "schedule", "linear_schedule", "init_value=1.0", "end_value=0", "transition_steps=100",
        "--steps", "100",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "step     50  0.5" in done.stdout
    assert_drawn(tmp_path / "schedule.png")


def test_help_has_an_example_for_every_subcommand(command):
    done = command("--help")
    assert done.returncode == 0
    for name in ("compare", "landscape", "describe", "schedule"):
        assert f"\n  gradtx {name} " in done.stdout
