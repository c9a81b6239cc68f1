"""States as checkpoints give them back: with their classes, or as lists and dicts."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import migrate

from .running import assert_equal, begun, params

SCHEDULE = gradtx.constant_schedule(1e-2)
# With everything that looks different without classes: nothing, hidden leaves, codes, labels.
TX = gradtx.chain(
    gradtx.clip(1.0),
    gradtx.masked(gradtx.trace(0.9), "kernel"),
    gradtx.store(gradtx.scale_by_adam(), {"^nu/head": "int8", "mu|nu": "bfloat16+8"}, min_size=3),
    gradtx.partition({"head": gradtx.lion(SCHEDULE), ".*": gradtx.freeze()}),
)
NEW = gradtx.accumulate(
    gradtx.chain(gradtx.trace(0.9), gradtx.scale_by_adam(), gradtx.scale_by_schedule(SCHEDULE)), 2
)


def filled(state: Any) -> Any:
    """A state in which numbers differ, and counts are 5."""
    rng = np.random.default_rng(0)

    def fill(x: Any) -> Any:
        floating = jnp.issubdtype(x.dtype, jnp.inexact)
        numbers = rng.uniform(1, 2, x.shape) if floating else np.full(x.shape, 5)
        return jnp.asarray(numbers, x.dtype)

    return jax.tree.map(fill, state)


def by_flax(state: Any, folder: Path) -> Any:
    serialization = pytest.importorskip("flax.serialization")
    return serialization.msgpack_restore(serialization.to_bytes(state))


def by_orbax(state: Any, folder: Path) -> Any:
    checkpoint = pytest.importorskip("orbax.checkpoint")
    with checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "state", state)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "state")


def by_orbax_in_classes(state: Any, folder: Path) -> Any:
    checkpoint = pytest.importorskip("orbax.checkpoint")
    with checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "state", state)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "state", state)


@pytest.mark.parametrize("restore", [by_flax, by_orbax, by_orbax_in_classes])
def test_a_checkpoint_is_as_good_as_the_state(restore: Any, tmp_path: Path) -> None:
    state, tree = filled(TX.init(params())), params()
    restored = restore(state, tmp_path)
    got, report = migrate(restored, to=TX, params=tree, from_=TX)
    assert_equal(got, state)
    assert (report.fresh, report.dropped) == ((), ())
    got, report = migrate(restored, to=NEW, params=tree, from_=TX)
    expected, same = migrate(state, to=NEW, params=tree, from_=TX)
    assert_equal(got, expected)
    assert report == same
    assert got.gradient_step == 5


@pytest.mark.parametrize("restore", [by_flax, by_orbax])
def test_a_checkpoint_of_optax(restore: Any, tmp_path: Path) -> None:
    theirs = optax.MultiSteps(optax.chain(optax.clip(1.0), optax.adamw(1e-2)), 2)
    tree, state = begun(theirs, 4)
    got, _ = migrate(restore(state, tmp_path), to=gradtx.adamw(SCHEDULE), params=tree, from_=theirs)
    assert_equal(got[0].mu, state.inner_opt_state[1][0].mu)
    assert (got[0].count, got[2].count) == (2, 2)


@pytest.mark.parametrize("restore", [by_flax, by_orbax])
def test_of_parameters_that_came_and_went(restore: Any, tmp_path: Path) -> None:
    tx = gradtx.adam(1e-2)
    tree, state = begun(tx)
    tree = {"dense": {"kernel": tree["dense"]["kernel"]}, "tail": jnp.ones(4), "new": jnp.ones(1)}
    restored = restore(state, tmp_path)
    got, report = migrate(restored, to=tx, params=tree, from_=tx, rename={"head": "tail"})
    assert_equal(got[0].mu["tail"], state[0].mu["head"])
    assert {x.leaf for x in report.dropped} == {"dense/bias"}
    assert {x.leaf for x in report.fresh} == {"new"}


def refused(state: Any, **how: Any) -> str:
    with pytest.raises(ValueError, match=r"^migrate: ") as caught:
        migrate(state, **({"to": TX, "params": params()} | how))
    return str(caught.value)


def test_what_lists_and_dicts_do_not_say(tmp_path: Path) -> None:
    raw = by_flax(TX.init(params()), tmp_path)
    assert "give the transformation that made it, from_=" in refused(raw)
    said = refused(raw, from_=gradtx.chain(*TX.parts[:3]))
    assert (
        said
        == "migrate: the state is a dict of 0, 1, 2, 3, where the init of from_ makes a tuple of 3"
    )
    said = refused(raw, from_=gradtx.chain(gradtx.clip(1.0), *TX.parts[2:], TX.parts[1]))
    assert said.startswith("migrate: the state at [1] is a dict of inner_state, where the init of")
    said = refused(raw, to=NEW, params={"other": jnp.ones(3)}, from_=TX)
    assert "does not take these params (masked: the pattern 'kernel' matches no leaf" in said
