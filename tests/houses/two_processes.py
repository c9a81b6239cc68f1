"""One of two processes that train together: `test_two_processes.py` starts both.

    python two_processes.py FOLDER PORT NUMBER

Each case is a few steps on params that lie over the devices of both processes. The first process
writes what they end in. `run` does the same in one process that has all the devices.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SHAPES = {"kernel": (16, 8), "bias": (8,), "scale": ()}
STEPS = 3


def cases() -> dict[str, Callable[[], Any]]:
    import gradtx

    specs = {"bias": ("model",), "kernel": ("data", "model")}
    return {
        "adamw": lambda: gradtx.adamw(gradtx.cosine_decay_schedule(0.1, 10)),
        "clip": lambda: gradtx.chain(
            gradtx.clip_by_global_norm(0.5), gradtx.sgd(0.1, momentum=0.9)
        ),
        "muon": lambda: gradtx.muon(0.1),
        "accumulate": lambda: gradtx.accumulate(gradtx.adamw(0.1), 2),
        "int8": lambda: gradtx.store(gradtx.adamw(0.1), "int8", min_size=1),
        "noise": lambda: gradtx.chain(gradtx.add_noise(0.1, 0.5, 1), gradtx.sgd(0.1)),
        "zero": lambda: gradtx.sharding.zero(gradtx.adamw(0.1), specs, "data"),
    }


def mesh_and_specs() -> tuple[Any, dict[str, Any]]:
    import jax
    from jax.sharding import Mesh
    from jax.sharding import PartitionSpec as P

    mesh = Mesh(np.asarray(jax.devices()[:8]).reshape(2, 4), ("data", "model"))
    return mesh, {"kernel": P("data", "model"), "bias": P("model"), "scale": P()}


def placed(tree: dict[str, np.ndarray]) -> dict[str, Any]:
    """A tree of arrays over all devices, of which each process makes its part."""
    import jax
    from jax.sharding import NamedSharding

    mesh, specs = mesh_and_specs()
    return {
        name: jax.make_array_from_callback(
            x.shape, NamedSharding(mesh, specs[name]), lambda index, x=x: x[index]
        )
        for name, x in tree.items()
    }


def run(name: str) -> dict[str, np.ndarray]:
    """The params and the state at the end, whole, and what lies elsewhere than on the mesh."""
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    import gradtx

    mesh, _ = mesh_and_specs()
    rng = np.random.default_rng(7)
    params = placed({k: np.asarray(rng.uniform(0.5, 2, s), np.float32) for k, s in SHAPES.items()})
    tx = cases()[name]()
    state = tx.init(params)
    everywhere = set(mesh.devices.flat)
    elsewhere = [
        jax.tree_util.keystr(path)
        for path, x in jax.tree_util.tree_leaves_with_path(state)
        if x.sharding.device_set != everywhere
    ]
    assert not elsewhere, f"{name}: not on the mesh after init: {elsewhere}"
    step = jax.jit(lambda grads, state, params: gradtx.step(tx, grads, state, params))
    for _ in range(STEPS):
        grads = placed(
            {k: np.asarray(rng.uniform(-2, 2, s), np.float32) for k, s in SHAPES.items()}
        )
        params, state = step(grads, state, params)
    assert step._cache_size() == 1, f"{name}: compiled {step._cache_size()} times"
    whole = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))
    leaves = jax.tree.leaves(whole((params, state)))
    return {f"{name}-{i}": np.asarray(x.addressable_data(0)) for i, x in enumerate(leaves)}


def main(folder: str, port: str, number: str) -> None:
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=int(number))
    assert (jax.process_count(), jax.local_device_count(), jax.device_count()) == (2, 4, 8)
    found: dict[str, np.ndarray] = {}
    for name in cases():
        found |= run(name)
    if number == "0":
        np.savez(Path(folder, "found.npz"), **found)
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
