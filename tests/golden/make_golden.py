"""Run PyTorch and write the golden files: ``python -m tests.golden.make_golden [optimizer ...]``.

One JSON file for each optimizer and one for the schedulers. Numbers are written with as many
digits as bring the same bits back. Needs torch; the tests that read the files do not.
"""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from .cases import (
    CASES,
    COMPLEX_DTYPES,
    DTYPES,
    GO_ON,
    RECORDED,
    SCALES,
    SCHEDULE_STEPS,
    SCHEDULES,
    SHAPES,
    STEPS,
    STOP,
    STOPPED,
    Case,
    Schedule,
    as_reals,
    matrices,
    problem,
)

FOLDER = Path(__file__).parent


def optimizer_and_scheduler(case: Case, params: list[torch.Tensor]) -> tuple[Any, Any]:
    optimizer = getattr(torch.optim, case.optimizer)(params, **case.arguments)
    return optimizer, None if case.schedule is None else scheduler_of(case.schedule, optimizer)


def scheduler_of(schedule: Schedule, optimizer: Any) -> Any:
    arguments = {
        name: [scheduler_of(x, optimizer) for x in value] if name == "schedulers" else value
        for name, value in schedule.arguments.items()
    }
    return getattr(torch.optim.lr_scheduler, schedule.name)(optimizer, **arguments)


@contextmanager
def in_one_dtype(dtype: torch.dtype) -> Iterator[None]:
    """NAdam and ASGD keep scalars in the default dtype, and Muon iterates in bfloat16: all are of
    one dtype here, so that no rounding depends on the machine."""
    before, narrowed = torch.get_default_dtype(), torch.Tensor.bfloat16
    torch.set_default_dtype(dtype)
    torch.Tensor.bfloat16 = lambda x: x.clone()
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        torch.Tensor.bfloat16 = narrowed


class Trajectory(NamedTuple):
    """The parameters before the first and after each of the steps, the steps' gradients, and the
    mean of the parameters after each, where the optimizer keeps one."""

    path: np.ndarray
    grads: np.ndarray
    means: np.ndarray | None


def trajectory(case: Case, scale: float, dtype: str) -> Trajectory:
    """What PyTorch does."""
    with in_one_dtype(torch.float32 if dtype in ("float32", "complex64") else torch.float64):
        return descend(case, scale, *map(torch.tensor, problem(dtype)))


def descend(
    case: Case, scale: float, matrix: torch.Tensor, target: torch.Tensor, start: torch.Tensor
) -> Trajectory:
    """The same, of this problem."""
    x = start.clone().reshape(SHAPES.get(case.optimizer, (8,))).requires_grad_()
    optimizer, scheduler = optimizer_and_scheduler(case, [x])
    path, grads, means = [x.detach().numpy().copy()], [], []
    for _ in range(STEPS):
        with torch.no_grad():
            x.grad = scale * (matrix @ x.flatten() - target).reshape(x.shape)
            grads.append(x.grad.numpy().copy())
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        path.append(x.detach().numpy().copy())
        if "ax" in optimizer.state[x]:
            means.append(optimizer.state[x]["ax"].numpy().copy())
    return Trajectory(np.stack(path), np.stack(grads), np.stack(means) if means else None)


def rates(schedule: Schedule, lr: float = 0.1, steps: int = SCHEDULE_STEPS) -> list[float]:
    """The learning rate of each step, the first being that of the optimizer's first step."""
    case = Case("SGD", {"lr": lr}, schedule)
    optimizer, scheduler = optimizer_and_scheduler(case, [torch.zeros(1, requires_grad=True)])
    values = []
    for step in range(steps):
        if step > 0:
            optimizer.step()
            scheduler.step()
        values.append(float(optimizer.param_groups[0]["lr"]))
    return values


def stopped(case: Case) -> dict[str, Any]:
    """The state_dict after some steps of descending the problem of `matrices`, and where the steps
    before and after it lead."""
    with in_one_dtype(torch.float64):
        curvatures, starts = matrices(case.optimizer)
        params = {k: torch.tensor(x, requires_grad=True) for k, x in starts.items()}
        optimizer, _ = optimizer_and_scheduler(case, list(params.values()))
        found: dict[str, Any] = {"case": as_json(case)}
        for step in range(STOP + GO_ON + 1):
            if step == STOP:
                found["state_dict"] = as_lists(optimizer.state_dict())
                found["stopped"] = as_lists({k: x.detach() for k, x in params.items()})
            if step == STOP + GO_ON:
                found["end"] = as_lists({k: x.detach() for k, x in params.items()})
            for k, x in params.items():
                x.grad = torch.tensor(curvatures[k] * x.detach().numpy())
            optimizer.step()
        return found


def as_lists(x: Any) -> Any:
    """With nested lists of numbers in place of tensors, as JSON has them."""
    if isinstance(x, dict):
        return {str(k): as_lists(y) for k, y in x.items()}
    return x.tolist() if isinstance(x, torch.Tensor) else x


def record(case: Case) -> dict[str, Any]:
    """The case itself, so that a changed table is noticed, and its trajectories."""
    runs: dict[str, Any] = {"case": as_json(case)}
    for dtype in (*DTYPES, *COMPLEX_DTYPES):
        is_complex = dtype in COMPLEX_DTYPES
        if is_complex and (case.schedule is not None or case.optimizer in SHAPES):
            continue
        runs[dtype] = {}
        for scale in SCALES[:1] if is_complex else SCALES:
            path, _, means = trajectory(case, scale, dtype)
            runs[dtype][f"{scale:g}"] = [row(path[step]) for step in RECORDED]
            if means is not None:
                runs[dtype][f"{scale:g} mean"] = [row(means[step - 1]) for step in RECORDED]
    return runs


def row(values: np.ndarray) -> list[float]:
    """Shortest digits that bring the value's bits back, in its own precision."""
    return [float(str(v)) for v in as_reals(values).flatten()]


def as_json(case: Case | Schedule) -> Any:
    """As it reads when it comes back from JSON."""
    return json.loads(json.dumps(case))


def write(name: str, content: dict[str, Any]) -> None:
    text = json.dumps({"torch": torch.__version__.split("+")[0], **content}, indent=1)
    # One array of numbers on a line.
    text = re.sub(r"\[[^][{}]*\]", lambda array: " ".join(array[0].split()), text)
    (FOLDER / f"{name}.json").write_text(text + "\n")


def main(*names: str) -> None:
    """Of all optimizers and schedules, or of the optimizers named."""
    for name, cases in CASES.items():
        if names and name not in names:
            continue
        write(name, {"cases": {label: record(case) for label, case in cases.items()}})
    if names:
        return
    write(
        "schedules",
        {
            "cases": {
                label: {"case": as_json(schedule), "rates": rates(schedule)}
                for label, schedule in SCHEDULES.items()
            }
        },
    )
    write("states", {"cases": {label: stopped(case) for label, case in STOPPED.items()}})


if __name__ == "__main__":
    main(*sys.argv[1:])
