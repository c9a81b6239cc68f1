"""The first trace of a step imports nothing of JAX.

A trace depends on JAX's settings, and its modules add to them: imported during the first trace of a
step, they make JAX trace and compile the step once more. Tried in a process of its own, where
nothing is imported yet.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

TRACES = """
import sys

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

import gradtx

mesh = jax.make_mesh((2, 4), ("data", "model"))
divided = NamedSharding(mesh, PartitionSpec("data", "model"))
replicated = NamedSharding(mesh, PartitionSpec())


def new_modules(about, tx, params):
    state = jax.jit(tx.init)(params)
    # Whatever a first program imports.
    before = set(sys.modules)
    jax.jit(lambda g, s, p: gradtx.step(tx, g, s, p)).lower(params, state, params)
    new = sorted(name for name in set(sys.modules) - before if name.startswith("jax"))
    if new:
        print(about, *new[:5])


def matrices(where):
    return {name: jax.device_put(jnp.ones((8, 16)), where) for name in "abcd"}


jax.jit(lambda x: x + 1).lower(1.0)
for where in (None, replicated, divided):
    for name in ("adamw", "lamb", "muon", "soap", "shampoo", "kron", "scion", "galore"):
        if name == "galore":
            tx = gradtx.scale_by_galore(rank=2)
        else:
            tx = getattr(gradtx, name)(learning_rate=1e-3)
        new_modules(f"{name} {where}", tx, matrices(where))
for where in (None, replicated):
    params = {"w": jax.device_put(jnp.ones((64, 256)), where)}
    for form in ("int8", "int4", "bfloat16"):
        new_modules(f"store {form} {where}", gradtx.store(gradtx.adamw(1e-3), form), params)
for tx in (
    gradtx.accumulate(gradtx.adamw(1e-3), 2),
    gradtx.scale_by_lbfgs(),
    gradtx.partition({"a": gradtx.sgd(1.0)}, "a"),
    gradtx.sharding.zero(gradtx.adamw(1e-3), "data"),
):
    new_modules(repr(tx), tx, matrices(replicated))
print("done")
"""


def test_a_first_trace_imports_nothing_of_jax() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", TRACES], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert ran.stdout == "done\n", ran.stdout + ran.stderr[-2000:]
