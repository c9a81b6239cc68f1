"""L-BFGS on a real problem: ``python -m benchmarks.solve``.

Logistic regression on the digits with a penalty of 1e-3 |w|^2 / 2, from zeros, with each library's
default `lbfgs()`: how many steps, and evaluations of the loss and its gradient, it takes to reach a
gradient of a given norm, how often the step is traced, and what it costs. A callback from the
compiled program counts the evaluations; the timed program has none.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from benchmarks.measure import Rounds, interleave
from benchmarks.recipes import LIBRARIES
from benchmarks.report import markdown_table, stroke
from benchmarks.results import FOLDER, device_facts, write_rows
from gradtx import OptState, Params
from gradtx.demo.tasks import digits

HEADER = ["dtype", "gradient norm", "steps", "evaluations", "traces", "step, ms", "ratio"]


class Problem:
    """The loss, and how often it was evaluated."""

    def __init__(self, dtype: DTypeLike):
        task = digits()
        (x, y), classes = task.data, 10
        self.x, self.y = jnp.asarray(x, dtype), y
        self.start = {"w": jnp.zeros((x.shape[1], classes), dtype), "b": jnp.zeros(classes, dtype)}
        self.evaluations = 0

    def loss(self, params: Params) -> jax.Array:
        """Mean cross-entropy plus penalty."""
        logits = self.x @ params["w"] + params["b"]
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), self.y[:, None], axis=1)
        return -jnp.mean(chosen) + 5e-4 * jnp.sum(params["w"] ** 2)

    def counted(self, params: Params) -> jax.Array:
        """The loss, counting the evaluation."""
        jax.debug.callback(self._count)
        return self.loss(params)

    def _count(self) -> None:
        self.evaluations += 1


class Solver:
    """One library's L-BFGS on the problem."""

    def __init__(self, library: str, problem: Problem, loss: Callable[[Params], jax.Array]):
        lib = LIBRARIES[library]
        tx = lib.lbfgs()
        self.traces = 0

        def step(params: Params, state: OptState) -> tuple[Params, OptState]:
            self.traces += 1
            value, grads = lib.value_and_grad_from_state(loss)(params, state=state)
            updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=loss)
            return lib.apply_updates(params, updates), state

        self.step = jax.jit(step)
        self.first = problem.start, tx.init(problem.start)

    def solve(self, norms: list[float], problem: Problem, most: int = 500) -> list[dict[str, Any]]:
        """Steps and evaluations until the gradient's norm is below each of `norms`."""
        gradient_norm = jax.jit(lambda p: jnp.sqrt(
            sum(jnp.sum(g**2) for g in jax.tree.leaves(jax.grad(problem.loss)(p)))
        ))  # fmt: skip
        (params, state), found, left = self.first, [], sorted(norms, reverse=True)
        problem.evaluations = 0
        for step in range(1, most + 1):
            params, state = self.step(params, state)
            norm = float(gradient_norm(params))
            jax.effects_barrier()  # type: ignore[no-untyped-call]
            while left and norm < left[0]:
                row = {"norm": left.pop(0), "steps": step, "evaluations": problem.evaluations}
                found.append(row | {"traces": self.traces})
            if not left:
                break
        return found

    def seconds(self, steps: int = 20) -> float:
        """The mean seconds of the first steps."""
        params, state = self.first
        start = time.perf_counter()
        for _ in range(steps):
            params, state = self.step(params, state)
        jax.block_until_ready(params)  # type: ignore[no-untyped-call]
        return (time.perf_counter() - start) / steps


def compare(dtype: str, norms: list[float], seconds: float) -> list[dict[str, Any]]:
    """A row per norm: what each library needs."""
    problem = Problem(dtype)
    counted = {name: Solver(name, problem, problem.counted) for name in LIBRARIES}
    solved = {name: solver.solve(norms, problem) for name, solver in counted.items()}
    timed = [Solver(name, problem, problem.loss) for name in LIBRARIES]
    for solver in timed:
        solver.seconds(2)  # compiles
    rounds = Rounds(5, 50, time.perf_counter() + seconds)
    times = interleave([solver.seconds for solver in timed], rounds)
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    medians = dict(zip(LIBRARIES, map(statistics.median, times), strict=True))
    return [
        {
            "dtype": dtype,
            "norm": rows[0]["norm"],
            "step_s": medians,
            "ratio": ratio,
            **dict(zip(LIBRARIES, rows, strict=True)),
        }
        for rows in zip(*(solved[name] for name in LIBRARIES), strict=False)
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """As Markdown; figures with a slash are gradtx / Optax."""

    def cells(row: dict[str, Any]) -> list[str]:
        counts = [
            stroke(str(row[name][what]) for name in LIBRARIES)
            for what in ("steps", "evaluations", "traces")
        ]
        seconds = stroke(f"{1e3 * s:.2f}" for s in row["step_s"].values())
        return [row["dtype"], f"{row['norm']:g}", *counts, seconds, f"{row['ratio']:.2f}"]

    return markdown_table(HEADER, [cells(row) for row in rows])


def main() -> None:
    """Compare, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.solve", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of timing for each dtype")
    options = parser.parse_args()
    rows = compare("float32", [1e-2, 1e-3, 1e-4], options.seconds)
    with jax.enable_x64(True):
        rows += compare("float64", [1e-2, 1e-4, 1e-6, 1e-8], options.seconds)
    print(table(rows))
    path = FOLDER / "solve/lbfgs.json"
    write_rows(path, "python -m benchmarks.solve", device_facts(jax.devices()[0]), rows)
    print(f"\nwritten: {path.relative_to(FOLDER)}")


if __name__ == "__main__":
    main()
