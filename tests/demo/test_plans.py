"""`gradtx plan`: what it prints, and what it refuses in one line."""

import re

import pytest

from gradtx.cli import main

LLAMA = ("plan", "--model", "llama-70b", "--mesh", "data=64,model=16")


def test_a_row_for_each_optimizer(capsys):
    lion = "chain(clip(1.0), lion(1e-4))"
    assert main([*LLAMA, "--optimizer", "adamw", "--optimizer", lion]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "70.55 billion parameters of float32 on 1024 devices (data 64 x model 16)" in lines[0]
    assert [re.sub("  +", "  ", line) for line in lines if line.startswith(("adamw", "chain"))] == [
        "adamw  268  268  536  1,071",
        f"{lion}  268  268  268  804",
    ]


def test_five_optimizers_by_default_and_the_state_spread(capsys):
    assert main([*LLAMA, "--layout", "tensor", "--zero", "data", "--dtype", "bfloat16"]) == 0
    out = capsys.readouterr().out
    assert "layout tensor, state over data too, not compiled" in " ".join(out.split())
    assert all(name in out for name in ("adamw", "lion", "adafactor", "muon", "int8"))
    muon = next(line for line in out.splitlines() if "muon" in line)
    adamw = next(line for line in out.splitlines() if line.strip().startswith("adamw"))
    # Half of AdamW's but for what is no hidden matrix.
    assert int(muon.split()[3]) < 0.6 * int(adamw.split()[3])


def test_the_state_spread_over_two_axes(capsys):
    small = ("plan", "--model", "llama-1b", "--mesh", "data=2,model=4", "--optimizer", "adamw")
    assert main([*small, "--layout", "replicated", "--zero", "data,model"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "state over data and model too" in out
    assert "adamw 4,714 4,714 1,179 10,607" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--model x --mesh data=2", "no model 'x'; there are llama-1b"),
        ("--model llama-1b --mesh data", "must be axes such as data=8,model=4, got 'data'"),
        ("--model llama-1b --mesh data=0", "must be axes such as data=8,model=4, got 'data=0'"),
        ("--model llama-1b --mesh data=3", "the axis 'data' of 3 devices does not divide"),
        ("--model llama-1b --mesh data=8,data=4", "must name each axis once"),
        ("--model llama-1b --mesh x=8", "'full' divides over 'data' and 'model', and the mesh"),
        ("--model llama-1b --mesh data=8 --layout tensor", "'tensor' divides over 'model', and"),
        ("--model llama-1b --mesh data=8 --zero ,", "must be axes such as data"),
        ("--model llama-1b --mesh data=8 --target a100", "no target 'a100'"),
        ("--model llama-1b --mesh data=8 --zero model", "has no axis 'model'"),
        ("--model llama-1b --mesh data=8 --optimizer adamx", "did you mean"),
        ("--model llama-1b --mesh data=8 --dtype int7", "int7"),
        ("--model llama-1b", "--mesh"),
    ],
)
def test_refusals(capsys, words, said):
    assert main(["plan", *words.split()]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert said in printed.err
    assert len(printed.err.splitlines()) == 1
