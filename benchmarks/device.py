"""gradtx on an accelerator in a few minutes: ``python -m benchmarks.device``.

For a machine whose time is short. On a bare one with an NVIDIA GPU, in the repository:

    pip install -e . "jax[cuda12]" "optax>=0.2.8"
    python -m benchmarks.device

AdamW, clip + AdamW, accumulation, LAMB and Muon step in turns with Optax's in one process, and
state in few bits with gradtx's own float32 AdamW. At last small optimizers take the same steps on
the device and on the CPU of the same process.

``python -m benchmarks --device gpu`` measures more: tracing, compiling, steps outside of jit, each
until it is certain, in a time without a limit. This is another plan for the same parts:
the programs of a batch are compiled side by side, and only their steps are timed. Batches come in
the order of their importance. What there is no time for, or no memory, is left out and listed with
the reason. The results are written, whole, after every case: a run can be killed at any time. At
the end of its time it starts nothing any more; a program that is just being compiled delays the
end of the process, not the results.

A sample is a number of steps that the host dispatches one after the other, as a training loop does,
with parameters and state donated. They are awaited together: 0.1 s or more, so that neither the
clock nor the first launch counts. Where the device is slower than the host, this is the time of the
device alone; where it is not (many leaves), that of the launches, which is what a user waits for.
"host" tells which: the time in which the host hands over one step. The copy bandwidth is the better
one of a copy and of x + 1 in place, on 1 GiB, 50 of them awaited together.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from benchmarks.agreement import STEPS
from benchmarks.budget import NOT_REACHED, Batch, Budget, DeviceResults, Effort, Run, planned
from benchmarks.measure import QUEUED, Pace, copy_bandwidth, plain_copy_bandwidth
from benchmarks.options import command, names
from benchmarks.parameters import PARAMETER_SETS
from benchmarks.recipes import RECIPES, Recipe
from benchmarks.report import headline, markdown_table, stroke, text_table
from benchmarks.results import FOLDER, CaseResult, device_facts, library_versions, now
from benchmarks.ways import WAYS


def _stored(name: str) -> Recipe:
    way = WAYS[f"state {name}"]
    return Recipe(
        f"AdamW, state {name}", lambda lib: way.build(1e-3), way.floor, beside=RECIPES["adamw"]
    )


OF_OPTAX = ("adamw", "clip_adamw_cosine", "accumulate_8", "lamb", "muon")
OWN = ("int8", "bfloat16")
HERE = {name: RECIPES[name] for name in OF_OPTAX} | {name: _stored(name) for name in OWN}

FIRST = ("adamw", "clip_adamw_cosine", "accumulate_8")
# 1000 leaves take longest to compile. Muon needs matrices: on one vector, and nearly so on
# ResNet-50, it is AdamW.
PLAN: tuple[Batch, ...] = (
    ("vector", (*FIRST, *OWN, "lamb")),
    ("gpt2", (*FIRST, *OWN, "lamb", "muon")),
    ("llama1b", ("adamw", *OWN, *FIRST[1:], "lamb", "muon")),
    ("matrices", FIRST),
    ("resnet50", (*FIRST, *OWN, "lamb")),
    ("matrices", ("lamb", "muon", *OWN)),
)
SETS = tuple(dict.fromkeys(name for name, _ in PLAN))


class Goal(NamedTuple):
    """For one case: at least a share of the copy bandwidth, or at most a ratio of step times."""

    set: str
    recipe: str
    of_copy: float | None = None
    ratio: float = math.inf


GOALS = (
    Goal("vector", "adamw", of_copy=0.95),
    Goal("gpt2", "adamw", of_copy=0.9),
    Goal("llama1b", "int8", ratio=0.65),
)


# Time for at least 6 samples of each side, unless a step takes longer than a sample.
EFFORT = Effort(QUEUED, seconds=3.0)
DRY_EFFORT = Effort(Pace(0.001, each=False), seconds=0.0)


def start(device: jax.Device, typed: str, dry: bool, plan: Sequence[Batch]) -> DeviceResults:
    """Results without cases: the device and its copy bandwidth."""
    elements, rounds = (2**18, 3) if dry else (2**28, 10)
    copies = {
        "copy": plain_copy_bandwidth(device, elements, EFFORT.pace, rounds),
        "x + 1 in place": copy_bandwidth(device, elements, EFFORT.pace, rounds),
    }
    facts, versions = device_facts(device), library_versions()
    results = DeviceResults(facts, versions, now(), [typed], dry, 0.0, *max(copies.values()))
    results.copies = {kind: median for kind, (median, _) in copies.items()}
    results.left_out = dict.fromkeys(planned(plan), NOT_REACHED)
    return results


# -- the report ----------------------------------------------------------------------------------

HEADER = [
    "parameters", "recipe", "against", "step ms", "ratio", "95% interval", "of copy", "host ms",
    "kernels", "bytes", "floor", "temps",
]  # fmt: skip

# Of these, what the documentation shows.
SHOWN = ("parameters", "recipe", "against", "step ms", "ratio", "of copy", "host ms", "kernels")

LEGEND = """\
Two numbers with a slash are gradtx / what it is measured against. ratio: the median of the ratios
of neighbouring samples. of copy: the share of the copy bandwidth that the step would reach if it
moved only the floor's bytes. host: until a step is handed to the device. kernels: every branch of a
conditional and a loop's body once. bytes, floor, temps: accessed, unavoidable, temporary, a
parameter."""


def _row(case: CaseResult, bandwidth: float) -> list[str]:
    ratio = case.ratio("step")

    def milliseconds(what: str) -> str:
        return stroke(f"{1e3 * statistics.median(side.times(what)):.3g}" for side in case.sides)

    return [
        PARAMETER_SETS[case.set].title,
        HERE[case.recipe].title,
        case.against,
        milliseconds("step"),
        f"{ratio.median:.3f}" if ratio else "",
        f"{ratio.least:.3f} .. {ratio.most:.3f}" if ratio else "",
        stroke(f"{case.of_bandwidth(side, bandwidth):.3f}" for side in case.sides),
        milliseconds("host"),
        stroke(str(side.kernels) for side in case.sides),
        stroke(f"{side.bytes:.1f}" for side in case.sides),
        stroke(f"{side.floor:g}" for side in case.sides),
        stroke(f"{side.temps:.2f}" for side in case.sides),
    ]


def goal_rows(results: DeviceResults) -> list[list[str]]:
    """Each goal beside what was measured; tiny sizes are not judged."""
    cases = {(case.set, case.recipe): case for case in results.good()}
    rows = []
    for goal in GOALS:
        titles = [PARAMETER_SETS[goal.set].title, HERE[goal.recipe].title]
        case = cases.get((goal.set, goal.recipe))
        said, value, met = _judged(goal, case, results.copy_bandwidth)
        rows.append([*titles, said, value, "not judged" if results.quick else met])
    return rows


def _judged(goal: Goal, case: CaseResult | None, bandwidth: float) -> list[str]:
    """The goal, what was measured and whether that is enough."""
    share = goal.of_copy is not None
    said = f"of copy >= {goal.of_copy:g}" if share else f"ratio <= {goal.ratio:g}"
    ratio = case.ratio("step") if case else None
    if case is None or ratio is None:
        return [said, "", "not measured"]
    if goal.of_copy is not None:
        value = case.of_bandwidth(case.gradtx, bandwidth)
        met = value >= goal.of_copy
    else:
        value, met = ratio.median, ratio.median <= goal.ratio
    return [said, f"{value:.3f}", "yes" if met else "no"]


def report(results: DeviceResults) -> str:
    """What a run prints at the end."""
    copies = ", ".join(f"{kind} {rate / 1e9:.4g} GB/s" for kind, rate in results.copies.items())
    rows = [_row(case, results.copy_bandwidth) for case in results.good()]
    checks = [
        [a.optimizer, a.error or f"{a.difference:.2g}", f"{a.tolerance:g}", a.verdict]
        for a in results.agreements
    ]
    parts = [
        headline(results),
        copies,
        text_table(HEADER, rows),
        LEGEND,
        text_table(["parameters", "recipe", "goal", "measured", "met"], goal_rows(results)),
        f"{STEPS} steps on the device and on the CPU, relative to how far they led:",
        text_table(["optimizer", "difference", "tolerance", "within"], checks),
    ]
    failed = [f"failed: {c.set} {c.recipe}: {c.error}" for c in results.cases if c.error]
    left_out = [f"left out: {what}: {why}" for what, why in results.left_out.items()]
    return "\n\n".join([*parts, *(["\n".join(failed + left_out)] if failed + left_out else [])])


def page(results: DeviceResults) -> str:
    """A run as Markdown, for the documentation."""
    rows = [dict(zip(HEADER, _row(x, results.copy_bandwidth), strict=True)) for x in results.good()]
    commands = ", ".join(f"`{command}`" for command in results.commands)
    checks = [f"{a.optimizer} {a.difference:.2g}" for a in results.agreements if a.error is None]
    left_out = [f"{what} ({why})" for what, why in results.left_out.items()]
    parts = [
        f"**{headline(results)}** ({commands})",
        markdown_table(SHOWN, [[row[name] for name in SHOWN] for row in rows]),
        f"After {STEPS} steps the parameters differ from those of the CPU, relative to how far "
        f"they moved, by: {', '.join(checks)}.",
    ]
    return "\n\n".join([*parts, *([f"Left out: {', '.join(left_out)}."] if left_out else [])])


# -- the command line ----------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Run, print, write; 1 if a case failed or the device computes something else."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.device",
        description="Time gradtx on an accelerator beside Optax, in a few minutes.",
    )
    add = parser.add_argument
    add("--dry", action="store_true", help="on the CPU, with tiny sizes: whether all of it works")
    add("--sets", type=names("sets", SETS), default=SETS, help=f"of {','.join(SETS)}; default: all")
    add("--minutes", type=float, default=8.0, help="at most; default: 8")
    add("--json", type=Path, help="default: benchmarks/results/device/; dry: nowhere")
    options = parser.parse_args(arguments)
    budget = Budget(60 * options.minutes)
    device = _device(options.dry)
    plan = [batch for batch in PLAN if batch[0] in options.sets]
    results = start(device, command("benchmarks.device", arguments), options.dry, plan)
    path = options.json or (None if options.dry else FOLDER / "device" / results.file_name)

    def done(what: str) -> None:
        if path is not None:
            results.write(path)
        said = results.left_out.get(what, "done")
        print(f"{budget.passed():4.0f} s  {what:28} {said}", file=sys.stderr, flush=True)

    if path is not None:
        results.write(path)
    effort = DRY_EFFORT if options.dry else EFFORT
    with jax.default_device(device):
        Run(results, HERE, device, budget, effort, done).run(plan)
    print(report(results))
    bad = [case for case in results.cases if case.error is not None]
    return int(bool(bad) or not all(agreement.good for agreement in results.agreements))


def _device(dry: bool) -> jax.Device:
    """JAX's first accelerator with nearly all of its memory, or in a dry run the CPU."""
    if dry:
        return jax.devices("cpu")[0]
    if not any(name.endswith("CLIENT_MEM_FRACTION") for name in os.environ):
        os.environ["XLA_CLIENT_MEM_FRACTION"] = "0.92"
    jax.config.update("jax_enable_compilation_cache", False)  # type: ignore[no-untyped-call]
    device = jax.devices()[0]
    if device.platform == "cpu":
        raise SystemExit(f"JAX has no accelerator, only {device}; --dry runs on the CPU")
    try:
        jax.devices("cpu")  # now rather than when everything else is measured
    except RuntimeError as error:
        raise SystemExit(f"JAX needs the CPU too, as in JAX_PLATFORMS=cuda,cpu: {error}") from None
    return device


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
