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
    """The line with which the command refuses these words; two more may show the place."""
    assert main(list(words)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    line, *place = said.err.splitlines()
    assert line.startswith("gradtx")
    assert not place or (len(place) == 2 and set(place[1].strip()) == {"^"})
    return line


def test_unknown_names_of_a_few_list_the_known_ones(capsys):
    for words, known in [
        (("compare", "--task", "nope"), TASKS),
        (("landscape", "--function", "nope"), FUNCTIONS),
    ]:
        line = refusal(capsys, *words)
        assert "'nope'" in line
        assert all(name in line for name in known)


@pytest.mark.parametrize(
    ("words", "near"),
    [
        ("compare --optimizers adamm", "adam"),
        ("compare --optimizers Momentun:0.1", "momentum"),
        ("landscape --optimizers addam", "adam"),
        ("schedule cosine_decay", "cosine_decay_schedule"),
        ("describe clip_by_norms", "clip_by_norm"),
    ],
)
def test_unknown_names_of_many_get_the_nearest_and_what_lists_all(capsys, words, near):
    line = refusal(capsys, *words.split())
    assert near in line.partition("did you mean ")[2].partition("?")[0]
    assert line.endswith(f"gradtx {words.split()[0]} --list lists all")
    assert line.count(",") <= 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("compare --steps 0", "positive whole number, got '0'"),
        ("compare --steps many", "positive whole number, got 'many'"),
        ("compare --seeds a", "whole numbers such as 0,1,2, below 2**32, got 'a'"),
        ("compare --optimizers ,", "no optimizer named"),
        ("compare --out picture.txt", ".png"),
        ("compare --out nowhere/picture.png", "there is no folder"),
        ("compare --colour", "--colour"),
        ("schedule", "gradtx schedule --list"),
        ("schedule constant_schedule 3", "name=value"),
        ("schedule constant_schedule value=x", "cannot read value: unknown name x"),
        ("schedule constant_schedule value=1 value=2", "value is given twice"),
        ("schedule constant_schedule(1) value=2", "cannot read 'value=2'"),
        ("schedule constant_schedule(1) adam(1e-3)", "this is a transformation, not a schedule"),
        ("schedule constant_schedule(1) constant_schedule", "cannot read 'constant_schedule'"),
        ("schedule constant_schedule(-1) --log", "--log needs positive values"),
        ("schedule constant_schedule(1", "'(' was never closed"),
        ("schedule sgd", "unknown schedule 'sgd'"),
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
        ("describe masked", "missing a required argument: 'inner'"),
        ("describe adam(1e-3", "'(' was never closed"),
        ("describe adam(1e-3,b3=1)", "adam has no argument b3"),
        ("describe adam(1e-3) b1=0.5", "write b1=0.5 inside the brackets"),
        ("describe constant_schedule(1)", "this is a schedule, not a transformation"),
        ("describe adamw mask=bias", "cannot read mask: unknown name bias"),
        ("describe constant_schedule", "unknown transformation 'constant_schedule'"),
        ("compare --optimizers adam:x", "the learning rate must be a number, got 'x'"),
        ("compare --optimizers lion:-1", "learning_rate must be finite and >= 0"),
        ("compare --optimizers freeze:1", "freeze has no learning rate"),
        ("compare --optimizers dpsgd", "missing a required argument"),
        ("compare --optimizers adam(b1=2)", "b1"),
        ("compare --optimizers adam(1e-3,sgd", "'(' was never closed"),
        ("compare --optimizers constant_schedule(1)", "not a transformation"),
        ("compare --optimizers sgd,kahan", "kahan cannot train digits: kahan rounds"),
        ("landscape --optimizers ,", "no optimizer named; known: SGD"),
        ("landscape --optimizers scale_by_muon", "scale_by_muon on ravine: "),
        ("landscape --optimizers adam(0)(0)", "only a name can be called"),
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


def test_compare_trains_whatever_is_written(capsys, tmp_path):
    """And says first what it found; what Optax does not have is trained without it."""
    texts = ["sgd:0.3", "lion", "chain(clip(1.0), adamw(1e-3, b2=0.95))", "torch.sgd:0.3"]
    assert main(["compare", "--steps", "4", "--optimizers", ",".join(texts)]) == 0
    said = capsys.readouterr().out
    first, about, *_ = said.splitlines()
    assert first.startswith("4 optimizers, 4 steps: the same parameters as Optax's to ")
    assert "; 1 not in Optax; lowest held-out loss " in first
    assert "4 steps, 1 seed" in about
    rows = {line.split()[0]: line.split() for line in said.splitlines() if line.strip()}
    assert rows["torch.sgd:0.3"].count("-") == 3
    assert rows["sgd:0.3"][1:3] == rows["torch.sgd:0.3"][1:3]
    assert "chain(clip(1.0)," in said
    assert "b2=0.95))" in said
    assert_drawn(tmp_path / "compare.png")


def test_landscape_draws_whatever_is_written(capsys, tmp_path):
    texts = ["Adam", "adagrad:0.5", "sgd(0.065)", "lion", "lbfgs"]
    words = ["--optimizers", ",".join(texts), "--function", "ravine"]
    assert main(["landscape", *words]) == 0
    said = capsys.readouterr().out
    assert all(f"  {text} " in said for text in ("Adam", "AdaGrad", "sgd(0.065)", "lion", "lbfgs"))
    assert_drawn(tmp_path / "landscape.png")


def test_landscape_lists_functions_and_optimizers(capsys):
    assert main(["landscape", "--list"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in [*FUNCTIONS, "AdaGrad", "gradtx describe --list"])


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
    assert naming.make_transformation(["adamw"]) == gradtx.adamw(1e-3)
    assert naming.make_transformation(["lion:3e-4"]) == gradtx.lion(3e-4)
    assert naming.make_transformation(["torch.sgd:0.5"]) == gradtx.torch.sgd(0.5)
    assert naming.make_transformation(["sgd", "learning_rate=0.5"]) == gradtx.sgd(0.5)


def test_arguments_may_be_constructions():
    words = ["masked", "inner=adam(1e-3)", "mask=~matching('bias')"]
    expected = gradtx.masked(gradtx.adam(1e-3), ~gradtx.matching("bias"))
    assert naming.make_transformation(words) == expected


def test_describe_of_groups_gives_each_its_size(capsys):
    text = "chain(clip(1.0), partition({'bias': freeze(), 'w': sgd(0.1, 0.9), '.*': adam(1e-3)}))"
    assert main(["describe", text]) == 0
    whole = capsys.readouterr().out.partition("\n1. ")[0]
    assert "4 bytes a parameter in group 'w'" in whole
    assert "8 bytes a parameter in group '.*'" in whole
    assert "bias" not in whole


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        (" , ", []),
        ("adam, sgd:0.1,", ["adam", "sgd:0.1"]),
        ("chain(clip(1), sgd(0.1)),adam", ["chain(clip(1), sgd(0.1))", "adam"]),
        ("freeze('a,(b'),partition({'a': sgd(0.1), 'b': adam(1)}), a", [
            "freeze('a,(b')", "partition({'a': sgd(0.1), 'b': adam(1)})", "a"
        ]),
        ("adam(1, sgd", ["adam(1, sgd"]),
        ("a),b", ["a)", "b"]),
    ],
)  # fmt: skip
def test_commas_inside_brackets_and_quotes_do_not_separate(text, parts):
    assert naming.split(text) == parts


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


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 1.0, 0.5, 0.5, 0.25, 0.25], True),
        ([0.0, 0.5, 1.0, 1.0, 0.5, 0.5], True),  # behind a warm-up
        ([1.0, 0.5], True),
        ([1.0, 1.0, 0.75, 0.5, 0.5, 0.5], False),
        ([1.0, 1.0, 1.0], False),
        ([1.0], False),
    ],
)
def test_stairs_are_told_from_slopes(values, expected):
    assert schedules.has_stairs(np.array(values)) is expected


def test_schedules_are_drawn_over_each_other_each_to_its_own_end(capsys, tmp_path, monkeypatch):
    drawn = []
    save = schedules.save
    monkeypatch.setattr(
        schedules, "save", lambda figure, out: (drawn.append(figure), save(figure, out))
    )
    texts = [
        "cosine_decay_schedule(1.0, 200)",
        "torch.step_lr(1.0, 30)",
        "0.5 * linear_schedule(1, 0, 50)",
    ]
    assert main(["schedule", *texts, "--log"]) == 0
    assert capsys.readouterr().out.count("step      0") == 3
    (axes,) = drawn[0].axes
    assert axes.get_yscale() == "log"
    assert [line.get_label() for line in axes.lines] == texts
    assert [line.get_xdata()[-1] for line in axes.lines] == [220, 120, 55]
    assert [line.get_drawstyle() for line in axes.lines] == ["default", "steps-post", "default"]
    assert len({str(line.get_linestyle()) + line.get_color() for line in axes.lines}) == 3
    assert_drawn(tmp_path / "schedule.png")


def test_no_command_prints_the_help(capsys):
    assert main([]) == 0
    assert "examples:" in capsys.readouterr().out


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"gradtx {gradtx.__version__}\n"


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_describe_reads_a_file(suffix, tmp_path, capsys):
    if suffix == "yaml":
        pytest.importorskip("yaml")
    file = tmp_path / f"optimizer.{suffix}"
    file.write_text('{"chain": ["clip(1.0)", {"adamw": {"learning_rate": 0.5}}]}')
    assert main(["describe", str(file)]) == 0
    assert "learning_rate=0.5" in capsys.readouterr().out
    for text, said in [
        ("{", "cannot be read"),
        ('{"chain": [{"clip": -1}]}', "chain[0].clip[0]: must"),
    ]:
        file.write_text(text)
        assert main(["describe", str(file)]) == 2
        assert said in capsys.readouterr().err
    assert main(["describe", str(tmp_path / "none.json")]) == 2
    assert "No such file" in capsys.readouterr().err
