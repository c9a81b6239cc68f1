"""`python -m benchmarks.programs`, its targets and its environments."""

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import environments
from benchmarks.compiler import CompileError, Compiler, Figures
from benchmarks.environments import MissingError, make, python_for
from benchmarks.programs import main
from benchmarks.steps import STEPS
from gradtx.sharding.targets import EXAMPLES, Target

ROOT = Path(__file__).parents[2]


def programs(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.programs", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("programs") / "cpu.json"
    only = ("--sets", "mlp", "--json", str(path))
    first = programs("--recipes", "state_int8,sgd", *only)
    assert first.returncode == 0, first.stderr
    second = programs("--recipes", "sgd,momentum", *only)
    assert second.returncode == 0, second.stderr
    return second, path


def test_prints_a_table_and_progress(written):
    ran, _ = written
    assert "| RL-sized MLP | SGD | 12.0 / 12.0 | 12 | 0.00 / 0.00 |" in ran.stdout
    assert "2/2" in ran.stderr


def test_keeps_what_other_runs_measured(written):
    _, path = written
    data = json.loads(path.read_text())
    steps = ["sgd", "momentum", "state_int8"]
    assert [row["recipe"] for row in data["rows"]] == steps
    assert [row["optax"] is None for row in data["rows"]] == [False, False, True]
    assert data["target"] == "cpu"
    assert data["versions"]["jax"]
    assert data["command"].count("python -m benchmarks.programs") == 2
    assert str(path.parent) not in path.read_text()


def test_lists(capsys):
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    for name in ("adamw", "state_int8", "gpt2", "148 leaves, 124,439,808 parameters"):
        assert name in listed


@pytest.mark.parametrize(
    ("arguments", "known"),
    [
        (("--target", "h300"), "v5e:4x4"),
        (("--recipes", "nonsense"), "state_int8"),
        (("--sets", "nonsense"), "resnet50"),
    ],
)
def test_unknown_names_list_the_known_ones(arguments, known, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert arguments[1] in said
    assert known in said


# -- targets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "platform", "count"),
    [
        *zip(
            EXAMPLES,
            ("cpu", "cuda", "cuda", "cuda", "tpu", "tpu"),
            (1, 1, 8, 1, 1, 16),
            strict=True,
        ),
        ("h100x2", "cuda", 2),
        ("h200x4", "cuda", 4),
        ("v5p:2x2x4", "tpu", 16),
    ],
)
def test_targets(name, platform, count):
    target = Target.parse(name)
    assert (target.platform, target.count) == (platform, count)
    assert re.fullmatch(r"[\w-]+", target.file_name)


@pytest.mark.parametrize("name", ["", "gpu", "h100x0", "h100:2", "v5e:4", "v5e:4x", "cpux2"])
def test_no_targets(name):
    with pytest.raises(ValueError, match="no target"):
        Target.parse(name)


def test_floors():
    for step in STEPS.values():
        assert step.program >= step.floor > 10


# -- environments --------------------------------------------------------------------------------


@pytest.fixture
def none_yet(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for variable in environments.VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)


def test_the_cpu_needs_no_other_python():
    assert str(python_for("cpu")) == sys.executable


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_a_missing_environment_says_how_it_is_made(none_yet, platform):
    with pytest.raises(MissingError, match=r"python -m benchmarks.programs --target .* --make"):
        python_for(platform)


def test_a_variable_names_a_python(none_yet, monkeypatch):
    monkeypatch.setenv("GRADTX_TPU_PYTHON", sys.executable)
    assert str(python_for("tpu")) == sys.executable
    assert str(make("tpu")) == sys.executable
    monkeypatch.setenv("GRADTX_TPU_PYTHON", "/nowhere/python")
    with pytest.raises(MissingError, match="nothing there"):
        make("tpu")


def test_what_was_not_installed_is_no_environment(none_yet, monkeypatch):
    def fails(*command: str) -> None:
        if "pip" in command:
            raise MissingError("no such wheel")

    monkeypatch.setattr(environments, "_run", fails)
    with pytest.raises(MissingError, match="no such wheel"):
        make("cuda")
    with pytest.raises(MissingError, match="--make"):
        python_for("cuda")
    monkeypatch.setattr(environments, "_run", lambda *command: _folder_of(command))
    python = make("cuda")
    assert python == python_for("cuda")


def _folder_of(command: tuple[str, ...]) -> None:
    if "venv" in command:
        os.makedirs(command[-1])


# -- the compiler --------------------------------------------------------------------------------


def test_an_error_of_a_step_is_told_and_the_next_one_goes_on():
    with Compiler(Target.parse("cpu"), Path(sys.executable)) as compiler:
        with pytest.raises(CompileError, match="no_such"):
            compiler("benchmarks.steps:on_set", "gradtx", "no_such", "mlp")
        figures = compiler("benchmarks.steps:on_set", "gradtx", "sgd", "mlp")
        assert figures.bytes / 71_942 == pytest.approx(12, abs=0.1)
        compiler.process.kill()
        compiler.process.wait()
        assert compiler("benchmarks.steps:on_set", "gradtx", "sgd", "mlp") == figures


def test_a_python_without_the_compiler_says_so(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no module named jax >&2\nexit 3\n")
    python.chmod(0o755)
    with pytest.raises(CompileError, match="status 3:\nno module named jax"):
        Compiler(Target.parse("cpu"), python)


def test_figures_are_kept_for_each_program(tmp_path):
    cpu, python = Target.parse("cpu"), Path(sys.executable)

    def figures(recipe: str, keep: Path | None) -> Figures:
        with Compiler(cpu, python, keep) as compiler:
            return compiler("benchmarks.steps:on_set", "gradtx", recipe, "mlp")

    sgd, adam = (figures(recipe, tmp_path) for recipe in ("sgd", "adam"))
    assert sgd == figures("sgd", None) != adam
    kept = {json.loads(path.read_text())["bytes"]: path for path in tmp_path.iterdir()}
    assert kept.keys() == {sgd.bytes, adam.bytes}
    kept[sgd.bytes].write_text(json.dumps(asdict(sgd) | {"kernels": 99}))
    assert figures("sgd", tmp_path).kernels == 99  # read, and not compiled again
    assert figures("adam", tmp_path) == adam
