"""What the command accepts and refuses, in this process."""

import sys

import numpy as np
import pytest

import gradtx
from gradtx.cli import main
from gradtx.demo import naming, schedules
from gradtx.demo.functions import FUNCTIONS
from gradtx.demo.optimizers import OPTIMIZERS
from gradtx.demo.tasks import TASKS

from .pictures import assert_drawn


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()


def refusal(capsys, *words):
    """The one line with which the command refuses these words."""
    assert main(list(words)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    return line


def test_unknown_names_list_the_known_ones(capsys):
    for words, known in [
        (("compare", "--task", "nope"), TASKS),
        (("landscape", "--function", "nope"), FUNCTIONS),
        (("schedule", "nope"), naming.schedules()),
        (("describe", "nope"), naming.transformations()),
    ]:
        line = refusal(capsys, *words)
        assert "'nope'" in line
        assert all(name in line for name in known)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("compare --steps 0", "positive whole number, got '0'"),
        ("compare --steps many", "positive whole number, got 'many'"),
        ("compare --seeds a", "whole numbers such as 0,1,2, got 'a'"),
        ("compare --optimizers ,", "no optimizer named"),
        ("compare --out picture.txt", ".png"),
        ("compare --out nowhere/picture.png", "there is no folder"),
        ("compare --colour", "--colour"),
        ("schedule", "gradtx schedule --list"),
        ("schedule constant_schedule 3", "name=value"),
        ("schedule constant_schedule value=x", "Python literal"),
        ("schedule constant_schedule", "value"),
        ("schedule constant_schedule value=1 valeu=1", "valeu"),
        ("schedule torch.step_lr lr=-1.0 step_size=3", "lr"),
        ("schedule constant_schedule value=1 --out folder.png", "it is a folder"),
        ("schedule constant_schedule value=1 --out /dev/full/x.png", "cannot write"),
        ("schedule wsd_schedule", "'init_value'"),
        ("schedule join_schedules schedules=[1,2] boundaries=[3]", "join_schedules"),
        (
            "schedule piecewise_constant_schedule init_value=1 boundaries_and_scales=[1]",
            "piecewise",
        ),
        ("schedule constant_schedule value=1e400", "finite"),
        ("describe adamw b1=1.5", "b1"),
        ("describe adamw mu_dtype='nope'", "mu_dtype"),
        ("describe masked", "gradtx.inspection.describe"),
        ("describe accumulate inner=1 every=2", "inner"),
        ("describe clip", "max_delta"),
        ("fly", "fly"),
    ],
)
def test_refusals_say_why(capsys, words, expected):
    assert expected in refusal(capsys, *words.split())


@pytest.mark.parametrize(
    ("module", "words", "package"),
    [
        ("sklearn", "compare", "scikit-learn"),
        ("optax", "compare", "optax"),
        ("rich", "compare", "rich"),
        ("matplotlib", "compare", "matplotlib"),
        ("matplotlib", "landscape", "matplotlib"),
        ("matplotlib", "schedule constant_schedule value=1", "matplotlib"),
    ],
)
def test_a_missing_package_is_named_with_the_way_to_install_it(
    capsys, monkeypatch, module, words, package
):
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    line = refusal(capsys, *words.split())
    command = words.split()[0]
    assert line == f"gradtx {command} needs {package}: pip install 'gradtx[demo]'"


def test_a_picture_that_cannot_be_written_after_all_is_one_line(capsys, monkeypatch):
    """As where the disk is full, which is not known beforehand."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    assert main(["schedule", "constant_schedule", "value=1"]) == 2
    assert capsys.readouterr().err == "gradtx: cannot write schedule.png: No space left on device\n"


def test_compare_trains_on_text_without_optax(capsys, tmp_path):
    assert (
        main(["compare", "--task", "text", "--steps", "2", "--optimizers", "sgd", "--no-optax"])
        == 0
    )
    said = capsys.readouterr().out
    assert "Optax" not in said
    assert_drawn(tmp_path / "compare.png")


def test_compare_lists_tasks_and_optimizers(capsys):
    assert main(["compare", "--list"]) == 0
    said = capsys.readouterr().out
    for name in [*OPTIMIZERS, *TASKS]:
        assert f"  {name} " in said


def test_landscape_draws_the_default_functions(capsys, tmp_path):
    assert main(["landscape", "--steps", "20", "--out", "paths.png"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in FUNCTIONS if name != "quadratic")
    assert_drawn(tmp_path / "paths.png")


def test_landscape_of_the_quadratic_reports_the_denominators(capsys, tmp_path):
    assert main(["landscape", "--function", "quadratic"]) == 0
    said = capsys.readouterr().out
    for row in ("Hessian's diagonal", "RMSProp, step 60", "Adam, step 60"):
        assert row in said
    assert_drawn(tmp_path / "landscape.png")


def test_every_transformation_can_be_listed_and_most_described(capsys):
    assert main(["describe", "--list"]) == 0
    listed = capsys.readouterr().out
    for name in ("adamw", "clip_by_global_norm", "scale_by_momentum", "torch.sgd"):
        assert f"{name}(" in listed
        example = {"clip_by_global_norm": ["max_norm=1.0"], "scale_by_momentum": ["decay=0.9"]}
        assert main(["describe", name, *example.get(name, [])]) == 0
        assert capsys.readouterr().out.startswith(name)


def test_describe_gives_a_learning_rate_only_where_none_was_given():
    assert naming.make_transformation("adamw", []) == gradtx.adamw(1e-3)
    assert naming.make_transformation("sgd", ["learning_rate=0.5"]) == gradtx.sgd(0.5)


def test_schedules_are_listed_and_torchs_can_be_drawn(capsys, tmp_path):
    assert main(["schedule", "--list"]) == 0
    listed = capsys.readouterr().out
    for name in (*gradtx.schedules.__all__, "torch.step_lr"):
        assert f"{name}(" in listed
    assert "torch.sgd" not in listed
    words = ["torch.step_lr", "lr=1.0", "step_size=10", "gamma=0.5", "--steps", "40"]
    assert main(["schedule", *words, "--out", "step.png"]) == 0
    assert "step     40  0.0625" in capsys.readouterr().out
    assert_drawn(tmp_path / "step.png")


@pytest.mark.parametrize(
    ("words", "last"),
    [
        ("linear_schedule init_value=1 end_value=0 transition_steps=30 transition_begin=10", 44),
        ("wsd_schedule init_value=0 peak_value=1 warmup_steps=100 stable_steps=400 "
         "decay_steps=500", 1100),
        ("warmup_cosine_decay_schedule init_value=0 peak_value=1 warmup_steps=20 "
         "decay_steps=1000", 1100),
        ("piecewise_constant_schedule init_value=1 boundaries_and_scales={100:0.1,3000:0.5}", 3300),
        ("cosine_annealing_schedule init_value=1 half_period=50", 200),  # goes on for ever
        ("constant_schedule value=1", 200),
        ("linear_schedule init_value=1 end_value=0 transition_steps=1000 --steps 5", 5),
    ],
)  # fmt: skip
def test_a_schedule_is_drawn_to_a_little_after_its_end(capsys, tmp_path, words, last):
    assert main(["schedule", *words.split()]) == 0
    steps = [line.split()[1] for line in capsys.readouterr().out.splitlines() if "  step" in line]
    assert [steps[0], steps[-1]] == ["0", str(last)]
    assert_drawn(tmp_path / "schedule.png")


def test_schedules_of_schedules_have_the_lengths_of_their_parts():
    line = gradtx.linear_schedule(1.0, 0.0, 100)
    for schedule in (0.5 * line, line.clip(0.0, 2.0), gradtx.sgd(line).learning_rate):
        assert schedules.whole_length(schedule) == 110
    assert schedules.whole_length(line.shift(900)) == 1100
    assert schedules.whole_length(gradtx.join_schedules((line, line), (100,))) == 220


def test_a_staircase_is_level_and_a_slope_is_not():
    at, stairs = np.arange(6), np.array([1.0, 1.0, 0.5, 0.5, 0.25, 0.25])
    x, y = schedules.with_jumps(at, stairs)
    assert x.tolist() == [0, 1, 2, 2, 3, 4, 4, 5]
    assert y.tolist() == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25]
    slope = np.array([1.0, 1.0, 0.75, 0.5, 0.5, 0.5])
    assert [z.tolist() for z in schedules.with_jumps(at, slope)] == [at.tolist(), slope.tolist()]


def test_no_command_prints_the_help(capsys):
    assert main([]) == 0
    assert "examples:" in capsys.readouterr().out


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"gradtx {gradtx.__version__}\n"
