"""Small leaves on an H100: many in one kernel, and no byte more for it."""

from collections.abc import Callable

import pytest

from benchmarks.compiler import Compiler, Figures
from benchmarks.parameters import size

from .steps import TREES

LIBRARIES = ("gradtx", "optax")
CompilerFor = Callable[[str], Compiler]


def of(compiler: Compiler, library: str, name: str, tree: str) -> Figures:
    return compiler("tests.programs.steps:recipe", library, name, tree)


@pytest.mark.parametrize(
    ("name", "kernels", "floor"), [("adamw", 6, 28), ("clip_adamw_cosine", 11, 32)]
)
def test_fifty_small_leaves_are_a_few_kernels(
    name: str, kernels: int, floor: int, compiler_for: CompilerFor
) -> None:
    ours, theirs = (of(compiler_for("h100"), lib, name, "small leaves") for lib in LIBRARIES)
    assert ours.kernels <= kernels < 50 < theirs.kernels
    parameters = size(TREES["small leaves"])[1]
    assert ours.bytes <= (floor + 0.1) * parameters
    assert ours.temporary <= 0.1 * parameters


def test_a_body_that_reduces_keeps_to_its_leaf(compiler_for: CompilerFor) -> None:
    # XLA copies the moments of leaves whose reductions it merges with loops: 54 bytes.
    ours, theirs = (of(compiler_for("h100"), lib, "lamb", "small leaves") for lib in LIBRARIES)
    assert ours.bytes <= theirs.bytes
    assert ours.bytes <= 44.1 * size(TREES["small leaves"])[1]


def test_on_a_mesh_norms_are_still_one_collective(compiler_for: CompilerFor) -> None:
    ours = of(compiler_for("h100x8"), "gradtx", "clip_adamw_cosine", "small leaves")
    assert ours.collectives == {"all-reduce": 1}
    assert ours.kernels < 20
