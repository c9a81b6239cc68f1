"""Steps on meshes of TPUs and H100s: what the devices send each other, and that none gathers."""

from collections.abc import Callable

import pytest

from benchmarks.compiler import Compiler

CompilerFor = Callable[[str], Compiler]
# The bytes of the parameters, which all devices hold together.
TOTAL = 4 * 8 * 32 * 64


def sent(compiler: Compiler, name: str, layout: str = "both") -> dict[str, tuple[int, int]]:
    """The collectives of a step, on each device."""
    target = compiler.target
    made = compiler.plan("tests.programs.steps:planned", name, layout, target.name, target.count)
    assert made.collectives is not None
    return made.collectives


@pytest.mark.parametrize("target", ["v5e:2x2", "h100x8"])
@pytest.mark.parametrize("name", ["adamw", "int8"])
def test_nothing_is_sent_for_what_is_element_by_element(
    name: str, target: str, compiler_for: CompilerFor
) -> None:
    assert sent(compiler_for(target), name) == {}


@pytest.mark.parametrize("layout", ["both", "crossed", "rows"])
@pytest.mark.parametrize("target", ["v5e:2x2", "h100x8"])
def test_muon_sends_each_matrix_there_and_back(
    target: str, layout: str, compiler_for: CompilerFor
) -> None:
    """However it lies: a device has, and sends, its part of all of them."""
    compiler = compiler_for(target)
    expected = {"all-to-all": (2, 2 * TOTAL // compiler.target.count)}
    assert sent(compiler, "muon", layout) == expected


def test_muon_inside_zero_gathers_parameters_alone(compiler_for: CompilerFor) -> None:
    found = sent(compiler_for("v5e:2x2"), "zero", "columns")
    assert found["all-to-all"] == (2, 2 * TOTAL // 4)
    assert found["all-gather"][1] == TOTAL // 2
    assert {*found} == {"all-to-all", "all-gather"}


@pytest.mark.parametrize(
    ("name", "share"),
    # Of the bytes of the parameters, and a few numbers for the bounds of PSGD's factors.
    [
        ("kron", 1.125),
        pytest.param("soap", 2.0, marks=pytest.mark.slow),
        pytest.param("shampoo", 2.0, marks=pytest.mark.slow),
    ],
)
def test_factors_go_there_and_back(name: str, share: float, compiler_for: CompilerFor) -> None:
    found = sent(compiler_for("v5e:2x2"), name)
    assert sum(size for _, size in found.values()) <= 2 * share * TOTAL * 1.01
    assert found.get("all-gather", (0, 0))[1] < 0.01 * TOTAL
    assert sum(number for number, _ in found.values()) <= 6
