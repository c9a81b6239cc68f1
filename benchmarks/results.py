"""The results of a run, written to JSON and read from it."""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

if TYPE_CHECKING:
    import jax

FOLDER = Path(__file__).parent / "results"


@dataclass
class Side:
    """One optimizer in one case: what its program says about itself, and every timing in seconds.

    floor: the bytes per parameter that a step cannot avoid. bytes, temps: bytes accessed and
    temporary bytes, per parameter. equations: with inner jaxprs counted once; equations_expanded:
    at each use. step_s, eager_s: per step, the mean over a recipe's cycle. host_s: per step, until
    it is handed to the device, which may still be at work on earlier ones.
    """

    floor: float = math.nan
    bytes: float = math.nan
    temps: float = math.nan
    equations: int = 0
    equations_expanded: int = 0
    kernels: int = 0
    trace_s: list[float] = field(default_factory=list)
    lower_s: list[float] = field(default_factory=list)
    compile_s: list[float] = field(default_factory=list)
    step_s: list[float] = field(default_factory=list)
    eager_s: list[float] = field(default_factory=list)
    host_s: list[float] = field(default_factory=list)

    def times(self, what: str) -> list[float]:
        """The samples of `trace`, `lower`, `compile`, `step`, `eager`, `host` or `trace_lower`."""
        if what == "trace_lower":
            return [a + b for a, b in zip(self.trace_s, self.lower_s, strict=True)]
        samples: list[float] = getattr(self, f"{what}_s")
        return samples


class Ratio(NamedTuple):
    """gradtx / reference: the median of the ratios of neighbouring timings.

    low, high: the quartiles. least, most: the 95% interval of the median; the range if there are
    fewer than six ratios.
    """

    median: float
    low: float
    high: float
    least: float
    most: float

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Ratio:
        """From one or more ratios."""
        ordered, n = sorted(ratios), len(ratios)
        twice = ordered if n > 1 else 2 * ordered
        low, median, high = statistics.quantiles(twice, method="inclusive")
        # How many of n ratios lie below the true median is binomial. At each end, leave out as many
        # as would wrongly exclude it in at most 2.5% of cases.
        tails = [sum(math.comb(n, j) for j in range(k + 1)) / 2**n for k in range(n)]
        out = max(0, sum(tail <= 0.025 for tail in tails) - 1)
        return cls(median, low, high, ordered[out], ordered[-1 - out])


TIMES = ("trace", "lower", "trace_lower", "compile", "step", "eager", "host")


@dataclass
class CaseResult:
    """A recipe on a parameter set. against: what gradtx is compared with, the reference."""

    set: str
    recipe: str
    leaves: int
    parameters: int
    against: str = "Optax"
    gradtx: Side = field(default_factory=Side)
    reference: Side = field(default_factory=Side)
    difference: float = math.nan
    error: str | None = None

    @property
    def sides(self) -> tuple[Side, Side]:
        """gradtx and the reference."""
        return self.gradtx, self.reference

    def ratio(self, what: str) -> Ratio | None:
        """gradtx / reference of a time; None where it was not measured."""
        pairs = zip(self.gradtx.times(what), self.reference.times(what), strict=True)
        ratios = [ours / theirs for ours, theirs in pairs]
        return Ratio.of(ratios) if ratios else None

    def of_bandwidth(self, side: Side, bandwidth: float) -> float:
        """The share of the copy bandwidth at which a step would move the floor's bytes."""
        return side.floor * self.parameters / statistics.median(side.step_s) / bandwidth

    def summary(self, bandwidth: float) -> dict[str, Any]:
        """The medians, for readers of the JSON."""
        if self.error is not None:
            return {}
        ratios = {what: self.ratio(what) for what in TIMES}
        found: dict[str, Any] = {
            "ratios": {what: ratio._asdict() for what, ratio in ratios.items() if ratio}
        }
        for name, side in (("gradtx", self.gradtx), ("reference", self.reference)):
            medians = {what: side.times(what) for what in TIMES if side.times(what)}
            found[name] = {f"{what}_s": statistics.median(times) for what, times in medians.items()}
            found[name]["of_copy_bandwidth"] = self.of_bandwidth(side, bandwidth)
        return found


@dataclass
class Results:
    """A run, or several on one device with the same versions. quick: whether on tiny sizes."""

    device: dict[str, Any]
    versions: dict[str, str]
    date: str
    commands: list[str]
    quick: bool
    seconds: float
    copy_bandwidth: float
    copy_samples: list[float]
    cases: list[CaseResult] = field(default_factory=list)

    @property
    def file_name(self) -> str:
        """The name of the file: device and JAX version."""
        kind = re.sub(r"[^a-z0-9]+", "-", self.device["kind"].lower()).strip("-")
        return f"{kind}-{self.versions['jax']}.json"

    def good(self) -> list[CaseResult]:
        """The cases that ran."""
        return [case for case in self.cases if case.error is None]

    def join(self, other: Results) -> Results:
        """These results, with those of an earlier run for what this one did not measure.

        Raises: ValueError where device or versions differ.
        """
        for what in ("device", "versions"):
            if getattr(self, what) != getattr(other, what):
                raise ValueError(f"cannot append: the {what} of the results there differ")
        measured = {(case.set, case.recipe) for case in self.cases}
        kept = [case for case in other.cases if (case.set, case.recipe) not in measured]
        return Results(
            self.device,
            self.versions,
            self.date,
            other.commands + self.commands,
            self.quick or other.quick,
            other.seconds + self.seconds,
            max(self.copy_bandwidth, other.copy_bandwidth),
            other.copy_samples + self.copy_samples,
            kept + self.cases,
        )

    def write(self, path: Path) -> None:
        """Write as JSON, with each list of numbers on one line."""
        data = asdict(self)
        for case, row in zip(self.cases, data["cases"], strict=True):
            row["summary"] = case.summary(self.copy_bandwidth)
        text = json.dumps(_rounded(data), indent=1)
        text = re.sub(r"\[[^\[\]{}\"]*\]", lambda m: " ".join(m[0].split()), text)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.tmp")  # a run that is killed leaves a whole file
        unfinished.write_text(text + "\n")
        unfinished.replace(path)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote."""
        data = json.loads(path.read_text())
        for row in data["cases"]:
            del row["summary"]
            for side in ("gradtx", "reference"):
                row[side] = Side(**_numbers(row[side]))
            row["difference"] = math.nan if row["difference"] is None else row["difference"]
        return cls(**(data | {"cases": [CaseResult(**row) for row in data["cases"]]}))


def _rounded(x: Any) -> Any:
    """Five digits, which is more than a timing has; NaN, which JSON lacks, as null."""
    if isinstance(x, dict):
        return {key: _rounded(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [_rounded(value) for value in x]
    if isinstance(x, float):
        return float(f"{x:.5g}") if math.isfinite(x) else None
    return x


def _numbers(side: dict[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None else value for key, value in side.items()}


def device_facts(device: jax.Device) -> dict[str, Any]:
    """What a reader needs to know about the machine, but not its name."""
    software = {} if device.platform == "cpu" else _software(device)
    return software | {
        "kind": device.device_kind,
        "platform": device.platform,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
    }


def _software(device: jax.Device) -> dict[str, str]:
    """What runs an accelerator: JAX's name for it and, for NVIDIA's, the driver."""
    runtime = " ".join(str(device.client.platform_version).split())
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        asked = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return {"runtime": runtime}
    return {"runtime": runtime, "driver": (asked.stdout.split() or ["unknown"])[0]}


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        found = None
    return found[1] if found else platform.machine()


def library_versions() -> dict[str, str]:
    """Python's and the libraries' versions."""
    import jax
    import jaxlib
    import optax

    import gradtx

    modules: Sequence[Any] = (jax, jaxlib, optax, gradtx)
    return {"python": platform.python_version()} | {m.__name__: m.__version__ for m in modules}


def now() -> str:
    """The time, to the minute."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")


def write_rows(
    path: Path, command: str, device: dict[str, Any], rows: list[dict[str, Any]], **facts: Any
) -> None:
    """Write a table of another benchmark, with the facts of the device, versions and command."""
    path.parent.mkdir(parents=True, exist_ok=True)
    heading = {
        "command": command,
        "date": now(),
        "device": device,
        "versions": library_versions(),
    }
    path.write_text(json.dumps(_rounded({**heading, **facts, "rows": rows}), indent=1) + "\n")


R = TypeVar("R", bound=Results)


def newest(folder: Path, kind: type[R]) -> list[R]:
    """The newest results of each kind of device, CPU first; none on tiny sizes."""
    every = [r for r in map(kind.read, sorted(folder.glob("*.json"))) if not r.quick]
    found = {r.device["kind"]: r for r in sorted(every, key=lambda r: r.date)}
    return sorted(found.values(), key=lambda r: (r.device["platform"] != "cpu", r.device["kind"]))
