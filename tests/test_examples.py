"""Every example runs by itself and prints what it promises."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
FILES = sorted(path.name for path in EXAMPLES.glob("*.py"))


class Promise(NamedTuple):
    """What an example imports beside JAX and gradtx, and what is checked of what it prints."""

    needs: tuple[str, ...]
    check: Callable[[str], None]


PROMISES: dict[str, Promise] = {}


def of(name: str, *needs: str) -> Callable[[Callable[[str], None]], None]:
    """The function checks what this example prints, in the folder in which it ran."""

    def keep(check: Callable[[str], None]) -> None:
        PROMISES[name] = Promise(needs, check)

    return keep


def numbers(pattern: str, text: str) -> list[float]:
    """What the pattern's one group matches, line after line."""
    return [float(x) for x in re.findall(pattern, text, re.MULTILINE)]


def reaches_a_good_accuracy(text: str) -> None:
    losses = numbers(r"loss ([\d.]+)", text)
    accuracies = numbers(r"test accuracy ([\d.]+)%", text)
    assert len(losses) == len(accuracies) >= 4
    assert losses[-1] < 0.15
    assert losses[-1] < losses[0]
    assert accuracies[-1] > 95


@of("train_jax.py", "sklearn")
def prints_the_optimizer_that_it_trains_with(text: str) -> None:
    reaches_a_good_accuracy(text)
    assert text.startswith("chain(clip_by_global_norm(max_norm=1.0), adamw(learning_rate=warmup_")


@of("train_flax.py", "sklearn", "flax")
def the_state_is_readable(text: str) -> None:
    reaches_a_good_accuracy(text)
    assert "output kernel's gradient: (64, 10), float32" in text


@of("train_equinox.py", "sklearn", "equinox")
def compiles_once_for_four_learning_rates(text: str) -> None:
    reaches_a_good_accuracy(text)
    assert numbers(r"rate ([\d.]+) ", text) == [0.005, 0.0025, 0.0012, 0.0006]
    assert "four learning rates, compiled 1 time(s)" in text


@of("sweep.py", "sklearn")
def finds_the_middle_of_its_range(text: str) -> None:
    accuracies = numbers(r"^0\.\d+ +([\d.]+)%", text)
    assert len(accuracies) == 8
    assert max(accuracies) > 95 > 50 > accuracies[0]
    (best,) = numbers(r"best learning rate: ([\d.]+)", text)
    assert 1e-4 < best < 1e-1


@of("hypergradient.py", "sklearn")
def improves_both_hyperparameters(text: str) -> None:
    rate, momentum = (numbers(rf"{name} (\d[\d.]*)", text) for name in ("rate", "momentum"))
    losses = numbers(r"held-out loss ([\d.]+)", text)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.1 * losses[0]
    assert rate[-1] > rate[0]
    assert momentum[-1] > momentum[0]
    assert numbers(r"its hypergradient sgd\(learning_rate=array\((-?[\d.]+)", text)[0] < 0


@of("own_transformation.py", "optax")
def is_printed_checked_scheduled_chained_and_mapped(text: str) -> None:
    lines = text.splitlines()
    assert lines[0] == "scale_by_soft_sign(decay=0.95, softness=1.0)"
    assert lines[1] == "scale_by_soft_sign: decay must be in [0, 1), got 1.5"
    assert lines[2].startswith("scale_by_soft_sign(decay=0.9, softness=linear_schedule(")
    scheduled, *mapped = numbers(r"loss (\S+)$", text)
    assert scheduled < 1e-2
    assert len(mapped) == 5
    assert min(mapped) < 1e-2 < mapped[0]


@of("log_report.py", "sklearn")
def its_log_can_be_drawn(text: str) -> None:
    rows = [json.loads(line) for line in Path("run.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 301))
    assert rows[-1]["loss"] < 0.15 < 2 < rows[0]["loss"]
    assert max(row["rate/adamw"] for row in rows) == pytest.approx(1e-2, rel=1e-2)
    assert {row["clipped/clip_by_global_norm"] for row in rows} <= {0.0, 1.0}
    assert all(0 <= row["ratio/hidden"] < 1 for row in rows)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", FILES)
def test_it_prints_what_it_promises(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promise = PROMISES[name]
    for module in promise.needs:
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    path = os.pathsep.join(filter(None, [str(EXAMPLES.parent), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, EXAMPLES / name],
        env=os.environ | {"PYTHONPATH": path, "JAX_ENABLE_X64": "0"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    promise.check(done.stdout)


@pytest.mark.parametrize("name", FILES)
def test_an_example_is_short_and_says_what_it_is(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    assert len(text.splitlines()) <= 60
    assert text.startswith('"""')
    assert f"[{name}]({name})" in (EXAMPLES / "README.md").read_text()


def test_every_example_promises_something() -> None:
    assert set(PROMISES) == set(FILES)
