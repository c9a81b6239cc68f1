"""The command as a user runs it: in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gradtx
from gradtx.demo.optimizers import OPTIMIZERS

from .pictures import assert_drawn

_ROOT = Path(gradtx.__file__).parents[1]


@pytest.fixture
def command(tmp_path):
    def run(*words, **streams):
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        return subprocess.run(
            [sys.executable, "-m", "gradtx", *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": path},
            text=True,
            timeout=300,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams,
        )

    return run


def test_compare_prints_a_table_and_draws_the_curves(command, tmp_path):
    done = command(
        "compare", "--steps", "5", "--optimizers", "sgd,adamw", "--seeds", "0,1", "--out", "c.png"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 optimizers, 5 steps: the same parameters as Optax's to ")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows if row and row[0] in OPTIMIZERS] == ["sgd", "adamw"]
    for word in ("accuracy", "steps/s", "compile", "difference", "2 seeds"):
        assert word in done.stdout
    assert_drawn(tmp_path / "c.png")


def test_an_unknown_optimizer_is_one_line_with_the_nearest_names(command, tmp_path):
    done = command("compare", "--optimizers", "sgd,adamm")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "'adamm': did you mean adam, " in done.stderr
    assert "gradtx compare --list" in done.stderr
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
    for name in ("compare", "landscape", "describe", "schedule", "plot"):
        assert f"\n  gradtx {name} " in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        "describe sgd",
        "describe --list",
        "schedule --list",
        "schedule constant_schedule value=1",
        "compare --steps 2 --optimizers sgd --no-optax",
    ],
)
def test_a_reader_that_goes_away_ends_the_command_quietly(command, words):
    """As the shell reports a command that SIGPIPE ended: 128 and 13."""
    reading, writing = os.pipe()
    os.close(reading)
    done = command(*words.split(), stdout=writing)
    os.close(writing)
    assert done.returncode == 141
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_is_one_line(command):
    with open("/dev/full", "w") as full:
        done = command("describe", "sgd", stdout=full)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "No space left" in done.stderr


def test_output_without_all_characters_and_without_any_input(command, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = command(
        "compare", "--steps", "2", "--optimizers", "sgd", "--no-optax", "--seeds", "0,1",
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 seeds" in done.stdout
