"""What a type checker says of right and of wrong uses, and what completion lists."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import pydoc
import re
import runpy
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import gradtx
from gradtx.precision.formats import FORMATS, FormatName

ROOT = Path(__file__).parent.parent
RIGHT = Path("tests/types/right_uses.py")
WRONG = Path("tests/types/wrong_uses.py")
SOURCE = (ROOT / WRONG).read_text()
BEGIN, MISSED_BY_MYPY = "# -- flagged by every checker", "# -- missed by mypy"

CHECKERS = {"mypy": [], "pyright": ["--pythonpath", sys.executable]}


def statements_after(heading: str) -> dict[int, str]:
    """The statements of the wrong uses below a heading, by line."""
    above = SOURCE[: SOURCE.index(heading)].count("\n")
    nodes = (node for node in ast.parse(SOURCE).body if node.lineno > above)
    return {node.lineno: ast.unparse(node) for node in nodes}


@pytest.mark.parametrize("checker", CHECKERS)
def test_wrong_uses_are_flagged_and_right_ones_are_not(checker):
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed: pip install 'gradtx[dev]'")
    command = [sys.executable, "-m", checker, *CHECKERS[checker], str(RIGHT), str(WRONG)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    errors = re.findall(r"(\w+\.py):(\d+).*\berror\b", run.stdout)
    assert errors, run.stdout + run.stderr
    assert {name for name, _ in errors} == {WRONG.name}, run.stdout
    wrong = statements_after(BEGIN)
    flagged = {int(line) for _, line in errors}
    missed = statements_after(MISSED_BY_MYPY) if checker == "mypy" else {}
    assert {wrong.get(line, line) for line in flagged ^ wrong.keys()} == set(missed.values())


def test_right_uses_run():
    runpy.run_path(str(ROOT / RIGHT))


@pytest.fixture(scope="module")
def names():
    """What the wrong uses speak of."""
    defined = {}
    exec(SOURCE[: SOURCE.index(BEGIN)], defined)
    return defined


@pytest.mark.parametrize("statement", statements_after(BEGIN).values())
def test_wrong_uses_raise(names, statement):
    with pytest.raises((TypeError, ValueError, AttributeError)):
        exec(statement, names)


def test_formats_are_those_that_checkers_know():
    assert typing.get_args(FormatName) == tuple(FORMATS)


# -- completion ------------------------------------------------------------------------------------

VALUE = ("arguments", "definition", "replace", "to_config")
TRANSFORMATION = (*VALUE, "init", "parts", "update")
SCHEDULE = (*VALUE, "clip", "shift")


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (gradtx.adamw(0.1), TRANSFORMATION),
        (gradtx.scale_by_adam(), TRANSFORMATION),
        (gradtx.store(gradtx.adam(0.1), "int8"), TRANSFORMATION),
        (gradtx.chain(gradtx.clip(1.0)), (*TRANSFORMATION, "max_delta")),
        (gradtx.named_chain(("clip", gradtx.clip(1.0))), (*TRANSFORMATION, "names", "max_delta")),
        (gradtx.partition({".*": gradtx.clip(1.0)}), (*TRANSFORMATION, "assignment", "max_delta")),
        (gradtx.exponential_decay(1.0, 10, 0.5), SCHEDULE),
        (-gradtx.exponential_decay(1.0, 10, 0.5), SCHEDULE),
    ],
    ids=repr,
)
def test_completion_lists_the_arguments_and_what_is_for_users(value, names):
    listed = {name for name in dir(value) if not name.startswith("_")}
    assert listed == {*inspect.signature(value.definition).parameters, *names}


@pytest.mark.parametrize(
    "value",
    [
        gradtx.adamw(0.1),
        gradtx.MultiSteps(gradtx.sgd(0.1), 2),
        gradtx.partition({".*": gradtx.sgd(0.1)}),
        gradtx.GradientTransformation(lambda params: (), lambda *args: args),
        0.5 * gradtx.exponential_decay(1.0, 10, 0.5),
    ],
    ids=lambda value: value.definition.name,
)
def test_every_listed_name_can_be_read(value):
    for name in dir(value):
        getattr(value, name)


@pytest.mark.parametrize(
    ("definition", "name"),
    [
        (gradtx.adamw, "GradientTransformation"),
        (gradtx.scale_by_adam, "GradientTransformation"),
        (gradtx.apply_if_finite, "GradientTransformation"),
        (gradtx.chain, "GradientTransformation"),
        (gradtx.cosine_decay_schedule, "Schedule"),
        (gradtx.join_schedules, "Schedule"),
    ],
)
def test_signatures_say_what_a_call_returns(definition, name):
    signature = inspect.signature(definition)
    assert signature.return_annotation == name
    own, written = signature.parameters, inspect.signature(definition.function).parameters
    assert list(own) == list(written)
    for parameter in written.values():
        assert own[parameter.name].replace(annotation=parameter.annotation) == parameter
    assert f"-> {name}>" in repr(definition)


def test_help_shows_signature_and_formula():
    text = pydoc.plain(pydoc.render_doc(gradtx.clip))
    assert "clip(max_delta: float | Array | Schedule) -> GradientTransformation" in text
    assert gradtx.clip.__doc__.splitlines()[0] in text
