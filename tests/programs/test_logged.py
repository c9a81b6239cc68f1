"""What a report adds to a training step, in the programs that are compiled for three targets."""

from collections.abc import Callable

import pytest

from benchmarks.compiler import Compiler
from benchmarks.parameters import size

from .steps import LOGGED, TREES

# Passes over an array of the parameters: one over each of gradients, updates and parameters. Where
# a reduction runs by itself the updates are stored first, written and, by `apply_updates`, read.
# XLA:CPU also copies the parameters, because it writes the new ones in the place of the old, and
# makes the updates in several loops.
ADDED = {"h100": 3.0, "v5e": 4.0, "cpu": 8.2}
MORE = {("h100", "clipped by unit"): 4.6}  # where XLA stores what it computes for two reductions


@pytest.mark.parametrize("name", LOGGED)
@pytest.mark.parametrize("target", ADDED)
def test_a_report_costs_one_pass(
    target: str, name: str, compiler_for: Callable[[str], Compiler]
) -> None:
    tree = "small" if target == "cpu" else "large"
    without, reported = (
        compiler_for(target)("tests.programs.steps:logged", name, tree, reports).bytes
        for reports in (0, 1)
    )
    passes = (reported - without) / (4 * size(TREES[tree])[1])
    assert passes <= MORE.get((target, name), ADDED[target]) + 0.02
