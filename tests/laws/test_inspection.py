"""What `describe` says of the state, against the states themselves."""

import re
from typing import Any

import jax
import numpy as np
import optax
import pytest

import gradtx
from gradtx.inspection import describe, state_bytes_per_parameter
from gradtx.inspection.state_size import KINDS

from .registry import Example, for_every

TREE = {  # four million parameters of every kind, of which two are matrices
    "kernel": (1024, 1024),
    "head": (1024, 1024),
    "conv": (4, 4, 256, 256),
    "bias": (2**20,),
}
SIZE = 2**20


def held(tx: Any, tree: dict[str, tuple[int, ...]]) -> float:
    """Bytes of the state on leaves of these shapes for each of the parameters of one."""
    params = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in tree.items()}
    arrays = jax.tree.leaves(jax.eval_shape(tx.init, params))
    return sum(x.size * x.dtype.itemsize for x in arrays if x.ndim) / SIZE


def said_of(kind: str, table: dict[str, float]) -> float:
    """What a table without groups says of a kind of array."""
    return sum(size for where, size in table.items() if not where or kind in where)


@for_every(where=lambda e: not (e.whole_tree or e.by_path), slow=True)
def test_the_state_is_as_large_as_described(example: Example) -> None:
    tx = example.make()
    table = state_bytes_per_parameter(tx)
    if any("group" in where or "mask" in where for where in table):
        return  # these are tried one by one, below
    for kind, shape in KINDS.items():
        got = held(tx, {"w": shape})
        assert said_of(kind, table) == pytest.approx(got, rel=2e-3, abs=1e-4), kind


@for_every(slow=True)
def test_everything_can_be_described(example: Example) -> None:
    text = describe(example.make())
    assert re.search(r"^    state: \S", text, re.MULTILINE)
    assert " at 0x" not in text


def test_a_structure_has_no_formula_of_its_own() -> None:
    inner = gradtx.masked(gradtx.partition({".*": gradtx.clip(1.0)}), "kernel")
    for made in (gradtx.chain(inner), gradtx.named_chain(("a", inner))):
        text = describe(made)
        assert "Limit every element" in text
        assert not any(word in text for word in ("Apply", "Like", "Raises"))


def adam() -> Any:
    return gradtx.adam(0.1)


def momentum() -> Any:
    return gradtx.sgd(0.1, momentum=0.9)


def groups() -> Any:
    return gradtx.partition({"bias": momentum(), "head": gradtx.freeze(), ".*": adam()})


def by_axes(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.ndim > 1, tree)


# What is made, the table, and of each leaf the lines that speak of it.
M, A, B, ALL = "in group 'muon'", "in group 'adam'", "in group 'bias'", "in group '.*'"
ON, OFF = "under the mask 'conv|head'", "not under the mask 'conv|head'"
MUON = {"kernel": M, "head": M, "conv": A, "bias": A}
GROUPS = {"kernel": ALL, "head": None, "conv": ALL, "bias": B}
MASKED = {"kernel": OFF, "head": ON, "conv": ON, "bias": OFF}
GROUPED = {
    "muon": (lambda: gradtx.muon(0.1), {M: 4, A: 8}, MUON),
    "muon, accumulated": (lambda: gradtx.accumulate(gradtx.muon(0.1), 4), {M: 8, A: 12}, MUON),
    "muon, looking ahead": (
        lambda: gradtx.chain(gradtx.ema(0.9), gradtx.muon(0.1)),
        {"": 4, M: 4, A: 8},
        MUON,
    ),
    "partition": (groups, {B: 4, ALL: 8}, GROUPS),
    "partition, accumulated": (
        lambda: gradtx.accumulate(groups(), 4),
        {B: 8, "in group 'head', not under the mask": 4, "in group 'head', under the mask": 4}
        | {ALL: 12},
        GROUPS | {"head": "in group 'head', under the mask"},
    ),
    "masked": (lambda: gradtx.masked(adam(), "conv|head"), {ON: 8}, MASKED),
    "masked, schedule-free": (
        lambda: gradtx.schedule_free(gradtx.masked(adam(), "conv|head"), 0.1),
        {ON: 12, OFF: 4},
        MASKED,
    ),
    "selective": (
        lambda: gradtx.selective_transform(adam(), freeze_mask="conv|head"),
        {"in group 'train'": 8},
        dict.fromkeys(("kernel", "bias"), "in group 'train'"),
    ),
    "two masks": (
        lambda: gradtx.chain(
            gradtx.masked(gradtx.trace(0.9), by_axes),
            gradtx.masked(adam(), {name: name == "bias" for name in TREE}),
        ),
        {"under the mask": 4, "under the mask (2)": 8},
        dict.fromkeys(TREE, "under the mask") | {"bias": "under the mask (2)"},
    ),
    "int8 in groups": (
        lambda: gradtx.partition({"bias": gradtx.store(adam(), "int8"), ".*": adam()}),
        {B: 2.031, ALL: 8},
        dict.fromkeys(TREE, ALL) | {"bias": B},
    ),
}


@pytest.mark.parametrize("name", GROUPED)
def test_groups_and_masks_are_told_apart(name: str) -> None:
    make, table, of_leaf = GROUPED[name]
    tx = make()
    assert state_bytes_per_parameter(tx) == table
    lines = [table.get("", 0) + table.get(of_leaf.get(leaf), 0) for leaf in TREE]
    assert sum(lines) == pytest.approx(held(tx, TREE), rel=1e-3)
    text = describe(tx)
    for where, size in table.items():
        assert f"{size:g} bytes a parameter{where and ' '}{where}, " in text


@pytest.mark.parametrize(
    ("tx", "table"),
    [
        (gradtx.sgd(0.1), {}),
        (gradtx.adamw(0.1), {"": 8}),
        (gradtx.sm3(0.1), {"of a matrix": 4.008, "of a convolution kernel": 4.002}),
        (gradtx.galore(0.1), {"of a matrix": 1.5, "of a convolution kernel or a vector": 8}),
        (gradtx.adafactor(0.1), {"of a matrix": 0.007812, "of a vector": 4}),
        (gradtx.lookahead(gradtx.adamw(0.1), 5, 0.5), {"": 8}),
        (gradtx.chain(optax.adam(0.1)), {"": 8}),
    ],
    ids=lambda x: x.definition.name if isinstance(x, gradtx.GradientTransformation) else "",
)
def test_kinds_of_arrays_are_told_apart(tx: Any, table: dict[str, float]) -> None:
    """Counted by hand: Adafactor keeps 2 * 1024 numbers for a matrix of 1024 * 1024."""
    got = state_bytes_per_parameter(tx)
    assert {where: got[where] for where in table} == pytest.approx(table, rel=1e-3)
    assert bool(got) == bool(table)


def test_what_depends_on_the_tree_is_said_to() -> None:
    tx = gradtx.chain(optax.masked(optax.adam(0.1), {"a": True}))
    assert "state: as jax.eval_shape(tx.init, params) says" in describe(tx)


def test_the_parts_of_groups_are_called_by_their_groups() -> None:
    def titles(tx: Any) -> list[str]:
        return [line for line in describe(tx).splitlines() if line[:1].isdigit()]

    nested = gradtx.partition({"w": gradtx.sgd(0.1, momentum=0.9), ".*": gradtx.clip(1.0)})
    assert titles(gradtx.chain(gradtx.clip(1.0), nested)) == [
        "1. clip",
        "2. partition",
        "2.1. sgd (group 'w')",
        "2.1.1. trace",
        "2.1.2. scale_by_learning_rate",
        "2.2. clip (group '.*')",
    ]
    assert titles(gradtx.muon(0.1))[::5] == ["1. chain (group 'muon')", "2. adamw (group 'adam')"]
    assert titles(gradtx.named_chain(("bound", gradtx.clip(1.0)))) == ["1. clip ('bound')"]
