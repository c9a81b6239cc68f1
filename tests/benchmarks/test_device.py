"""`python -m benchmarks.device` on tiny sizes, and its use of time and memory; a clock that is made
up says how late it is."""

import json
import math
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import pytest

from benchmarks.agreement import CHECKS, Agreement
from benchmarks.ahead import side_by_side
from benchmarks.budget import CHECK_SECONDS, NO_TIME, NOT_REACHED, Budget, Effort, Run, planned
from benchmarks.budget import DeviceResults as Results
from benchmarks.device import HERE, PLAN, SETS, goal_rows, main, report
from benchmarks.measure import QUEUED
from benchmarks.results import CaseResult, Side

ROOT = Path(__file__).parents[2]


# -- a dry run -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dry:
    """A run on one of the sets of parameters: the recipes, what it printed, what it wrote."""

    name: str
    recipes: list[str]
    ran: subprocess.CompletedProcess[str]
    data: dict[str, Any]


ONE_SET = [pytest.param(name, marks=pytest.mark.one_in(len(SETS))) for name in SETS]


@pytest.fixture(scope="module", params=ONE_SET)
def dry(request, tmp_path_factory):
    name = request.param
    path = tmp_path_factory.mktemp("device") / "dry.json"
    command = [sys.executable, "-m", "benchmarks.device", "--dry", "--sets", name]
    command += ["--json", str(path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    recipes = [recipe for batch, recipes in PLAN for recipe in recipes if batch == name]
    return Dry(name, recipes, ran, json.loads(path.read_text()))


def test_a_dry_run_does_everything(dry):
    data = dry.data
    assert {"commands", "date", "device", "versions"} <= set(data)
    typed = f"python -m benchmarks.device --dry --sets {dry.name} --json dry.json"
    assert data["commands"] == [typed]
    assert data["quick"] is True
    assert data["left_out"] == {}
    assert set(data["copies"]) == {"copy", "x + 1 in place"}
    assert data["copy_bandwidth"] == max(data["copies"].values())
    done = [(case["set"], case["recipe"]) for case in data["cases"]]
    assert done == [(dry.name, recipe) for recipe in dry.recipes]
    for case in data["cases"]:
        assert case["error"] is None
        for side in (case["gradtx"], case["reference"]):
            assert min(side["step_s"]) > 0
            assert min(side["host_s"]) > 0
            assert side["kernels"] > 0
            assert side["bytes"] > side["floor"]
            assert side["temps"] >= 0
        assert case["summary"]["ratios"]["step"]["least"] > 0


def test_each_is_measured_against_what_it_should_be(dry):
    own = dict.fromkeys(("int8", "bfloat16"), "gradtx, AdamW")
    against = {case["recipe"]: case["against"] for case in dry.data["cases"]}
    assert against == {recipe: own.get(recipe, "Optax") for recipe in dry.recipes}
    for case in dry.data["cases"]:
        # The same work; with stored moments, but for the rounding after the first step.
        assert case["difference"] < 1e-3, case["recipe"]
        if case["recipe"] == "int8":
            assert (case["gradtx"]["floor"], case["reference"]["floor"]) == (16.06, 28)


def test_every_recipe_is_tried_on_a_set():
    tried = {recipe for _, recipes in PLAN for recipe in recipes}
    of_optax = ("adamw", "clip_adamw_cosine", "accumulate_8", "lamb", "muon")
    assert tried == {*of_optax, "int8", "bfloat16"} == set(HERE)


def test_the_device_is_compared_with_the_cpu(dry):
    assert [row["optimizer"] for row in dry.data["agreements"]] == list(CHECKS)
    for row in dry.data["agreements"]:
        assert row["error"] is None
        assert row["difference"] <= row["tolerance"]


def test_the_report(dry):
    for said in ("95% interval", "of copy >= 0.95", "ratio <= 0.65", "not judged", "float8"):
        assert said in dry.ran.stdout
    for recipe in dry.recipes:
        assert f"{dry.name} {recipe}" in dry.ran.stderr


def test_a_machine_without_an_accelerator_is_refused():
    with pytest.raises(SystemExit, match="--dry runs on the CPU"):
        main([])


# -- time and memory -----------------------------------------------------------------------------

SHORT = (("vector", ("adamw", "int8")), ("gpt2", ("adamw", "lamb", "muon")))
DURATION = 20.0


class Pretended(Run):
    """A run that does nothing but let the time pass."""

    now = 0.0
    limit: int | None = None

    def __init__(self, seconds: float, path: Path):
        results = Results(
            {"kind": "pretended", "platform": "gpu", "processor": "x86", "cores": 1},
            {"jax": "0"},
            "2025-01-01T00:00+00:00",
            ["python -m benchmarks.device"],
            True,
            0.0,
            1e12,
            [1e12],
            left_out=dict.fromkeys(planned(SHORT), NOT_REACHED),
        )
        budget = Budget(seconds, lambda: self.now)
        super().__init__(
            results,
            HERE,
            jax.devices()[0],
            budget,
            Effort(QUEUED, DURATION),
            lambda what: results.write(path),
        )
        self.path = path

    def memory(self):
        return self.limit

    def draw(self, shapes):
        return {}, {}

    def compile(self, labels, shapes, seconds):
        assert seconds > 0
        self.now += DURATION
        return {label: [None, None] for label in labels}

    def measure(self, case, programs, params, grads):
        self.now += DURATION
        case.gradtx.step_s = case.reference.step_s = [1.0]
        case.gradtx.host_s = case.reference.host_s = [0.5]

    def check(self):
        for name in CHECKS:
            yield name, Agreement(name, 0.0, 1e-3)

    def written(self):
        data = json.loads(self.path.read_text())
        cases = [f"{case['set']} {case['recipe']}" for case in data["cases"]]
        checks = [f"agreement {row['optimizer']}" for row in data["agreements"]]
        assert sorted([*cases, *checks, *data["left_out"]]) == sorted(planned(SHORT))
        return data, cases


@pytest.mark.parametrize("cases", range(6))
def test_what_there_is_no_time_for_is_left_out(tmp_path, cases):
    batches = 1 if cases <= 2 else 2
    enough = DURATION * (cases + batches) + CHECK_SECONDS
    run = Pretended(enough if cases else CHECK_SECONDS, tmp_path / "results.json")
    run.run(SHORT)
    data, done = run.written()
    every = [f"{name} {recipe}" for name, recipes in SHORT for recipe in recipes]
    assert done == every[:cases]
    assert data["left_out"] == dict.fromkeys(every[cases:], NO_TIME)
    assert run.now <= enough - CHECK_SECONDS + 1e-9
    assert "left out: gpt2 muon: no time left" in report(run.results) or cases == 5


def test_programs_that_are_late_are_left_out(tmp_path):
    class Late(Pretended):
        def compile(self, labels, shapes, seconds):
            return super().compile(labels, shapes, seconds) | {
                "int8": [None, TimeoutError("not compiled in time")]
            }

    run = Late(1e6, tmp_path / "results.json")
    run.run(SHORT)
    assert run.written()[0]["left_out"] == {"vector int8": "not compiled in time"}


def test_checks_that_are_late_are_left_out(tmp_path):
    class Late(Pretended):
        def check(self):
            return [(name, TimeoutError("no time left")) for name in CHECKS]

    run = Late(1e6, tmp_path / "results.json")
    run.run(SHORT)
    assert run.written()[0]["left_out"] == {f"agreement {name}": NO_TIME for name in CHECKS}


def test_an_interrupted_run_leaves_what_it_has(tmp_path):
    class Interrupted(Pretended):
        def measure(self, case, programs, params, grads):
            if (case.set, case.recipe) == ("gpt2", "lamb"):
                raise KeyboardInterrupt
            super().measure(case, programs, params, grads)

    run = Interrupted(1e6, tmp_path / "results.json")
    with pytest.raises(KeyboardInterrupt):
        run.run(SHORT)
    data, done = run.written()
    assert done == ["vector adamw", "vector int8", "gpt2 adamw"]
    assert set(data["left_out"].values()) == {NOT_REACHED}
    assert list(tmp_path.iterdir()) == [run.path]


def test_a_case_that_fails_does_not_end_the_run(tmp_path):
    class Failing(Pretended):
        def measure(self, case, programs, params, grads):
            if case.recipe == "int8":
                raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nmore about it")
            super().measure(case, programs, params, grads)

    run = Failing(1e6, tmp_path / "results.json")
    run.run(SHORT)
    data, done = run.written()
    assert len(done) == 5
    assert data["cases"][1]["error"] == "RuntimeError: RESOURCE_EXHAUSTED: out of memory"
    assert "failed: vector int8: RuntimeError" in report(run.results)


def test_what_the_memory_cannot_hold_is_left_out(tmp_path):
    run = Pretended(1e6, tmp_path / "results.json")
    # One vector of 4096: four times the parameters, and both states, of two moments and a count.
    run.limit = 4096 * 4 * (4 + 2 * 2) + 2 * 4
    run.run(SHORT)
    data, done = run.written()
    assert done == ["vector adamw", "vector int8"]
    assert set(data["left_out"]) == {"gpt2 adamw", "gpt2 lamb", "gpt2 muon"}
    assert all("its arrays need" in reason for reason in data["left_out"].values())


def test_what_runs_side_by_side_is_waited_for_only_so_long():
    release = threading.Event()
    found = side_by_side({"endless": release.wait}, 0.1)
    release.set()
    assert isinstance(found["endless"], TimeoutError)


def test_an_error_beside_others_is_a_result():
    def wrong():
        raise ValueError("no such program")

    found = side_by_side({"one": lambda: 1, "wrong": wrong, "two": lambda: 2}, 600.0)
    assert (found["one"], found["two"]) == (1, 2)
    assert isinstance(found["wrong"], ValueError)


# -- goals ---------------------------------------------------------------------------------------


def test_goals_stand_beside_what_was_measured(tmp_path):
    results = Pretended(1.0, tmp_path / "results.json").results
    results.quick = False

    def case(name, recipe, ours, theirs, floor):
        sides = (Side(floor=floor, step_s=[seconds]) for seconds in (ours, theirs))
        return CaseResult(name, recipe, 1, 10**9, HERE[recipe].against, *sides)

    # A floor of 28 bytes of 10^9 parameters take 28 ms at 10^12 bytes a second.
    results.cases = [
        case("vector", "adamw", 0.029, 0.03, 28.0),
        case("llama1b", "int8", 0.7, 1.0, 16.0),
    ]
    assert [row[2:] for row in goal_rows(results)] == [
        ["of copy >= 0.95", "0.966", "yes"],
        ["of copy >= 0.9", "", "not measured"],
        ["ratio <= 0.65", "0.700", "no"],
    ]


def test_a_difference_that_is_no_number_is_none_to_accept():
    assert Agreement("adamw", 1e-3, 1e-3).good
    assert not Agreement("adamw", 2e-3, 1e-3).good
    assert not Agreement("adamw", math.nan, 1e-3).good
    assert not Agreement("adamw", 0.0, 1e-3, "RuntimeError").good
