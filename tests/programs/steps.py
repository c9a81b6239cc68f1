"""The steps that are compiled, by functions that another process can be asked for by name."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

import gradtx
from benchmarks.compiler import Training
from benchmarks.modern import MODERN
from benchmarks.parameters import Shapes, abstract, equal_leaves
from benchmarks.recipes import LIBRARIES
from benchmarks.steps import STEPS, CountedStep
from gradtx.sharding import Plan, on_mesh, plan, zero
from tests.oracles.optax_cases import collect
from tests.oracles.optax_cases.case import build

ALL = collect("TRANSFORMATIONS") | collect("OPTIMIZERS")


# On a TPU small arrays are padded, and some are kept in fast memory. So that these figures are as
# plain as elsewhere, two leaves are larger, and the others, which are all kinds that a rule may
# tell apart, are too small to count.
TREES: dict[str, Shapes] = {
    "small": {
        "scalar": (),
        "vectors": [(2048,), (512,)],
        "matrix": (128, 256),
        "kernel": {"conv": (3, 3, 64, 64)},
    },
    "large": {
        "scalar": (),
        "vectors": [(2**25,), (512,)],
        "matrix": (4096, 8192),
        "kernel": {"conv": (3, 3, 64, 64)},
    },
    "vector": {"vector": (2**26,)},
    "matrix": {"matrix": (8192, 8192)},
    "uneven": {"matrix": (8192, 8200)},
    "square": {"matrix": (1024, 1024)},
    "small leaves": equal_leaves(50, (64, 64)),
}


def of_optax(library: str, name: str, index: int, tree: str) -> Training:
    """One of the cases of everything that Optax has too."""
    lib, case = LIBRARIES[library], ALL[name][index]
    params = abstract(TREES[tree], np.float32)
    tx = build(lib, name, case)

    def step(params: Any, state: Any, grads: Any) -> Any:
        extra = case.extra(params, grads) if case.extra else {}
        updates, state = tx.update(grads, state, params, **extra)
        return lib.apply_updates(params, updates), state

    return Training(step, params, jax.eval_shape(tx.init, params), params)


def recipe(library: str, name: str, tree: str) -> Training:
    """One of the benchmarks' steps."""
    return STEPS[name].training(library, TREES[tree])


def modern(name: str, tree: str) -> Training:
    """One of the steps that do their dearest work now and then."""
    return MODERN[name].training(TREES[tree])


# What Optax lacks, and no benchmark measures.
OURS: dict[str, Any] = {
    "clip_by_norm": lambda: gradtx.clip_by_norm(1.0),
    "independent": lambda: gradtx.adamw(1e-3, independent_decay=True),
    "averaged": lambda: gradtx.averaged(gradtx.adamw(1e-3), 0.999),
    "averaged now and then": lambda: gradtx.averaged(gradtx.adamw(1e-3), every=100),
    "averaged accumulation": lambda: gradtx.averaged(gradtx.accumulate(gradtx.adamw(1e-3), 8)),
    "accumulated average": lambda: gradtx.accumulate(gradtx.averaged(gradtx.adamw(1e-3)), 8),
}


def ours(name: str, in_one_call: bool, tree: str) -> Training:
    """A step of one of these, by `gradtx.step` or by update and apply."""
    step = CountedStep(name, lambda _: OURS[name](), 0, 0, in_one_call=in_one_call)
    return step.training("gradtx", TREES[tree])


LOGGED = {
    "sgd": lambda: gradtx.sgd(0.1),
    "adamw": lambda: gradtx.adamw(1e-3),
    "clipped by norm": lambda: gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3)),
    "clipped by value": lambda: gradtx.chain(gradtx.clip(1.0), gradtx.adamw(1e-3)),
    "clipped by unit": lambda: gradtx.chain(gradtx.adaptive_grad_clip(0.1), gradtx.sgd(0.1)),
}


def logged(name: str, tree: str, reports: int) -> Training:
    """A step that also makes a report, beside its state; or the same without one."""
    tx = LOGGED[name]()
    params = abstract(TREES[tree], np.float32)

    def report(grads: Any, updates: Any, state: Any, params: Any) -> Any:
        return gradtx.report(tx, grads, updates, state, params) if reports else {}

    def step(params: Any, state: Any, grads: Any) -> Any:
        old, _ = state
        updates, new = tx.update(grads, old, params)
        new_params = gradtx.apply_updates(params, updates)
        return new_params, (new, report(grads, updates, old, new_params))

    state = jax.eval_shape(tx.init, params)
    held = state, jax.eval_shape(report, params, params, state, params)
    return Training(step, params, held, params)


ON_A_MESH: dict[str, Any] = {
    "adamw": lambda params: gradtx.adamw(1e-3),
    "int8": lambda params: gradtx.store(gradtx.adamw(1e-3), "int8", min_size=64),
    "muon": lambda params: on_mesh(gradtx.muon(1e-3), params),
    "zero": lambda params: zero(gradtx.muon(1e-3), params),
    "soap": lambda params: on_mesh(gradtx.soap(1e-3), params),
    "shampoo": lambda params: on_mesh(gradtx.shampoo(1e-3), params),
    "kron": lambda params: on_mesh(gradtx.kron(1e-3), params),
}
SPECS: dict[str, tuple[Any, ...]] = {
    "both": ("data", "model"),
    "crossed": ("model", "data"),
    "rows": (("data", "model"), None),
    "columns": (None, "model"),
}


def planned(name: str, layout: str, target: str, devices: int) -> Plan:
    """A step of eight matrices on a mesh of a target's devices."""
    mesh = AbstractMesh((2, devices // 2), ("data", "model"))
    shaped: Any = jax.ShapeDtypeStruct  # which JAX leaves untyped, as the next
    spec: Any = PartitionSpec
    where = NamedSharding(mesh, spec(*SPECS[layout]))
    params = {f"w{i}": shaped((32, 64), np.float32, sharding=where) for i in range(8)}
    return plan(ON_A_MESH[name](params), params, target=target)
