"""Orbax: saved in mid-run, restored from shapes alone, in one place and on another mesh."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx

from .guests import assert_near, assert_same

ocp = pytest.importorskip("orbax.checkpoint")

KEY = jax.random.key(3)
PARAMS = {"kernel": jax.random.normal(KEY, (16, 8)), "bias": jnp.linspace(-1.0, 1.0, 8)}
RUNS = {
    "adamw": gradtx.adamw(gradtx.cosine_decay_schedule(0.1, 10)),
    "adafactor": gradtx.adafactor(0.1, min_dim_size_to_factor=4),
    "muon": gradtx.muon(0.1),
    "galore": gradtx.galore(0.1, rank=2),  # keeps nothing for the bias
    "key": gradtx.chain(gradtx.add_noise(0.1, 0.55, KEY), gradtx.adam(0.1)),
    "groups": gradtx.partition({"bias": gradtx.sgd(0.1), ".*": gradtx.adamw(0.1)}),
    "accumulated": gradtx.accumulate(gradtx.chain(gradtx.clip(1.0), gradtx.adamw(0.1)), 2),
} | {
    format: gradtx.store(gradtx.adamw(0.1), format, min_size=1)
    for format in ("bfloat16", "bfloat16+8", "float8", "int8", "int4")
}
every_run = pytest.mark.parametrize("tx", RUNS.values(), ids=RUNS)


def stepped(tx: Any, params: Any, state: Any, steps: int) -> Any:
    step = jax.jit(lambda params, state: gradtx.step(tx, params, state, params))
    for _ in range(steps):
        params, state = step(params, state)
    return params, state


def saved(folder: Any, tree: Any, target: Any) -> Any:
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "1", tree)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "1", target)


def shapes(tx: Any, params: Any) -> Any:
    return jax.tree.map(
        lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=p.sharding), params
    ), jax.eval_shape(tx.init, params)


@every_run
def test_goes_on_bit_for_bit(tx: Any, tmp_path: Any) -> None:
    half = stepped(tx, PARAMS, tx.init(PARAMS), 3)
    again = saved(tmp_path, half, shapes(tx, PARAMS))
    assert_same(again, half)
    assert_same(stepped(tx, *again, 2), stepped(tx, *half, 2))


def on_mesh(shape: tuple[int, int]) -> Any:
    if jax.device_count() < 8:
        pytest.skip("needs eight devices: XLA_FLAGS=--xla_force_host_platform_device_count=8")
    mesh = Mesh(np.asarray(jax.devices()[:8]).reshape(shape), ("a", "b"))
    specs = {"kernel": P("a", "b"), "bias": P("b")}
    return jax.device_put(PARAMS, {k: NamedSharding(mesh, s) for k, s in specs.items()})


def placed(tree: Any) -> Any:
    """Shapes, and where they go: what init left on one device, as counts, is a copy everywhere;
    Orbax would bind it to that device."""
    everywhere = next(
        (NamedSharding(x.sharding.mesh, P()) for x in jax.tree.leaves(tree) if on_a_mesh(x)), None
    )
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=x.sharding if on_a_mesh(x) else everywhere or x.sharding
        ),
        tree,
    )


def on_a_mesh(x: Any) -> bool:
    return isinstance(x.sharding, NamedSharding)


@pytest.mark.parametrize("name", ["adamw", "adafactor", "muon", "int8"])
def test_goes_on_elsewhere(name: str, tmp_path: Any) -> None:
    """From eight devices in a row onto a mesh of 2 x 4, and onto one device."""
    tx = RUNS[name]
    half = stepped(tx, params := on_mesh((8, 1)), tx.init(params), 3)
    expected = stepped(tx, *half, 2)[0]
    for i, place in enumerate((on_mesh((2, 4)), PARAMS)):
        target = placed((place, tx.init(place)))
        again = saved(tmp_path / str(i), half, target)
        wanted = zip(jax.tree.leaves(again), jax.tree.leaves(target), strict=True)
        assert all(x.sharding.is_equivalent_to(y.sharding, x.ndim) for x, y in wanted)
        assert_near(again, half, 0)
        assert_near(stepped(tx, *again, 2)[0], expected, 1e-2 if name == "int8" else 1e-5)


def test_saved_as_a_pytree_by_a_manager(tmp_path: Any) -> None:
    """The other way that Orbax has, with the steps of a training run."""
    tx = RUNS["int8"]
    half = stepped(tx, PARAMS, tx.init(PARAMS), 3)
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(3, args=ocp.args.PyTreeSave({"state": half[1]}))
        manager.wait_until_finished()
        target = {"state": tx.init(PARAMS)}
        again = manager.restore(manager.latest_step(), args=ocp.args.PyTreeRestore(target))
    assert_same(again["state"], half[1])


def test_without_a_target_it_is_refused(tmp_path: Any) -> None:
    tx = RUNS["adamw"]
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "1", tx.init(PARAMS))
        checkpointer.wait_until_finished()
        plain = checkpointer.restore(tmp_path / "1")
    with pytest.raises(ValueError, match="restored without its classes"):
        tx.update(PARAMS, plain, PARAMS)


ACROSS = {
    "schedule_free": gradtx.schedule_free_adamw(0.1),
    "soap": gradtx.soap(0.1),
}


@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", [*RUNS, *ACROSS])
def test_goes_on_around_the_meshes(name: str, tmp_path: Any) -> None:
    """Saved on eight devices, restored on 2 x 4, saved there, on one device, and on eight again;
    the target is a state, or shapes and shardings."""
    tx = (RUNS | ACROSS)[name]
    half = stepped(tx, params := on_mesh((8, 1)), tx.init(params), 3)
    expected = stepped(tx, *half, 2)[0]
    for i, place in enumerate((on_mesh((2, 4)), PARAMS, params)):
        like = (place, tx.init(place))
        target = like if i else placed(like)
        half = saved(tmp_path / str(i), half, target)
        assert jax.tree.structure(half) == jax.tree.structure(like)
        moved = zip(jax.tree.leaves(half), jax.tree.leaves(like), strict=True)
        assert all(x.sharding.is_equivalent_to(y.sharding, x.ndim) for x, y in moved)
        assert_near(stepped(tx, *half, 2)[0], expected, 1e-5)


@pytest.mark.parametrize("format", ["int8", "int4"])
def test_moves_to_a_mesh_that_cuts_blocks_otherwise(format: str, tmp_path: Any) -> None:
    """Restored as it was saved, and brought to the blocks of the new mesh by `migrate`."""
    tx = gradtx.store(gradtx.adamw(0.1), format, min_size=1)
    mesh = on_mesh((2, 4))["kernel"].sharding.mesh
    kernel = jax.random.normal(KEY, (64, 256))
    divided = jax.device_put({"kernel": kernel}, NamedSharding(mesh, P("a", "b")))
    half = stepped(tx, divided, tx.init(divided), 3)
    shape = gradtx.tree.get(half[1], "mu")["kernel"].scales.shape
    alone = {"kernel": kernel}
    assert gradtx.tree.get(tx.init(alone), "mu")["kernel"].scales.shape != shape
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "1", half[1])
        checkpointer.wait_until_finished()
        raw = checkpointer.restore(tmp_path / "1")
    state, _ = gradtx.migrate(raw, to=tx, from_=tx, params=alone)
    new, old = (gradtx.decode_state(x) for x in (state, half[1]))
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, tx.init(alone))
    for x, y in zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=True):
        size = np.max(np.abs(np.asarray(y)))
        assert np.max(np.abs(np.asarray(x) - np.asarray(y))) <= size * (
            0.1 if format == "int8" else 0.5
        )
